"""What participants give at persistence points and get back on load, on simulated hosts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from holdfast import (
    App,
    InstanceView,
    KeyInUse,
    Message,
    Participant,
    ParticipantError,
    StorageError,
    Transaction,
    Values,
    activity_context,
    checkpoint,
    defer,
    receive,
    transaction,
)
from holdfast.events.types import Persisted
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.testing import Simulation, crash_prover, execute

app = App("shop")
said: list[Any] = []
wrong: dict[str, Any] = {}


class Opened(Message, correlation="key"):
    key: str


class Added(Opened):
    item: str = ""


class Closed(Opened): ...


class Plain(Opened): ...


@dataclass
class Line:
    item: str
    price: Decimal = Decimal(1)


class Basket:
    """What nobody can turn into JSON."""


@app.participant
class Cart(Participant):
    """Keeps the lines of an order, and shows how many there are."""

    lines: list[Line]

    def __init__(self) -> None:
        self.lines = []
        self.same = self.lines

    def collect(self) -> Values:
        if "collect" in wrong:
            raise wrong["collect"]
        return Values(
            read_write={"lines": wrong.get("lines", self.lines), "same": self.same},
            write_only={"count": len(self.lines), "since": date(2026, 1, 2), **wrong.get("write_only", {})},
        )

    def publish(self, values: Mapping[str, Any]) -> None:
        said.append(("publish", dict(values)))
        if "publish" in wrong:
            raise wrong["publish"]
        self.lines, self.same = values["lines"], values["same"]


@dataclass
class Ledger(Participant):
    """Writes and reads by itself."""

    rows: list[str] = field(default_factory=list)

    def collect(self) -> Values:
        return Values(**wrong.get("ledger", {}))

    async def on_save(self, tx: Transaction, instance: InstanceView) -> None:
        if "on_save" in wrong:
            raise wrong["on_save"]
        await tx.execute("save", (instance.version, instance.status, instance.reason))

    async def on_load(self, tx: Transaction, instance: InstanceView) -> None:
        said.append(("load", instance))
        if "on_load" in wrong:
            raise wrong["on_load"]
        await tx.execute("load")


@app.activity
async def add(item: str) -> int:
    cart = activity_context().participant(Cart)
    cart.lines.append(Line(item))
    return len(cart.lines)


@app.activity
def count() -> int:
    return len(activity_context().participant(Cart).same)


@app.activity
async def fail() -> None:
    raise ValueError("told to")


@app.activity
async def audit() -> None:
    activity_context().participant(Ledger)


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


@app.workflow(start=Opened)
async def order(opened: Opened) -> int:
    await add(opened.key)
    added = await receive(Added, opened.key)
    await add(added.item)
    await receive(Closed, opened.key)
    return await count()


app.participant(workflows=("saved", "rivalry", order))(Ledger)


class Saved(Opened): ...


@app.workflow(start=Saved, persistence="in_memory")
async def saved(start: Saved) -> None:
    await defer(book("later"))
    await book("first")
    await checkpoint()
    await receive(Added, start.key)


@app.workflow(start=Plain)
async def plain(start: Plain) -> str:
    try:
        await audit()
    except ParticipantError as error:
        return str(error)
    return ""


class Rivalry(Opened): ...


@app.workflow(start=Rivalry)
async def rivalry(start: Rivalry) -> str:
    try:
        await receive(Added, "contested")
    except KeyInUse:
        return "lost"
    return "won"


class Ended(Opened): ...


@app.workflow(start=Ended, persistence="in_memory", on_unhandled="terminate")
async def ended(start: Ended) -> None:
    await add(start.key)
    await fail()


class Tried(Opened): ...


@app.workflow(start=Tried, persistence="in_memory")
async def tries(start: Tried) -> int:
    await add("outside")
    try:
        async with transaction():
            await add("inside")
            await fail()
    except ValueError:
        pass
    return await count()


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    said.clear()
    wrong.clear()


@pytest.fixture
def world() -> World:
    return World(app, max_attempts=3)


async def another(world: World, host: SimulatedHost) -> SimulatedHost:
    """Let a host die, and start another one."""
    await host.die()
    world.store.tables.hosts.clear()
    return await world.host()


async def persisted(world: World) -> list[Persisted]:
    return [event.event for event in await world.events() if isinstance(event.event, Persisted)]


async def test_read_write_values_come_back_with_their_types_and_aliases_on_another_host(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    host = await another(world, host)
    await host.deliver(Added(key="k", item="pear"), "m2")
    host = await another(world, host)
    await host.deliver(Closed(key="k"), "m3")
    assert world.state.result == 2
    lines = [values["lines"] for kind, values in said if kind == "publish"]
    assert lines == [[Line("k"), Line("pear")], [Line("k"), Line("pear")]]
    assert lines[0] is not lines[1]


async def test_an_unloaded_instance_gets_a_new_object_with_the_old_values(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    await host.engine.unload_idle(0)
    await host.deliver(Added(key="k", item="pear"), "m2")
    await host.deliver(Closed(key="k"), "m3")
    assert world.state.result == 2
    assert [kind for kind, _ in said] == ["load", "publish"]


async def test_values_are_written_where_they_changed_and_only_there(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    await host.deliver(Added(key="k", item="pear"), "m2")
    await host.deliver(Closed(key="k"), "m3")
    points = await persisted(world)
    assert [(point.reason, point.values is not None, point.promoted) for point in points] == [
        ("idle", True, {"count": 1, "since": "2026-01-02"}),
        ("idle", True, {"count": 2, "since": "2026-01-02"}),
        ("completed", False, None),
    ]
    assert world.state.promoted == {"count": 2, "since": "2026-01-02"}
    assert world.state.values["same"] == {"$ref": "lines"}


async def test_a_value_that_is_not_given_any_more_is_forgotten(world: World) -> None:
    host = await world.host()
    wrong["write_only"] = {"gone": True}
    await host.deliver(Opened(key="k"), "m1")
    assert "gone" in world.state.promoted
    wrong.clear()
    await host.deliver(Added(key="k"), "m2")
    assert "gone" not in world.state.promoted


async def test_without_a_provider_participants_keep_what_they_are_given() -> None:
    done = await execute(app, Opened(key="k"), received=[Added(key="k", item="pear"), Closed(key="k")])
    assert done.result == 2


async def test_a_participant_reads_before_it_gets_its_values_back(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    assert said == []
    version = world.state.version
    host = await another(world, host)
    await host.deliver(Added(key="k", item="pear"), "m2")
    view = InstanceView(
        instance_id=world.instance_id,
        workflow="order",
        correlation_key="k",
        version=version,
        status="idle",
        reason=None,
        values={"lines": [Line("k"), Line("pear")], "same": [Line("k"), Line("pear")]},
    )
    assert said[0] == ("load", view)
    assert said[1][0] == "publish"


async def test_participants_write_after_everything_else_of_each_persistence_point(world: World) -> None:
    host = await world.host()
    await host.deliver(Saved(key="k"), "m1")
    assert world.sql == [
        ("book", ("first",)),
        ("book", ("later",)),
        ("save", (4, "executing", "checkpoint")),
        ("save", (6, "idle", "idle")),
    ]
    assert world.store.statements == world.sql
    assert world.state.version == 6


async def test_what_participants_wrote_for_a_refused_wait_is_written_anew(world: World) -> None:
    host = await world.host()
    await host.deliver(Rivalry(key="first"), "m1")
    await host.deliver(Rivalry(key="second"), "m2")
    assert [row.status for row in world.store.tables.instances.values()] == ["idle", "closed"]
    assert [params[2] for _, params in world.store.statements] == ["idle", "completed"]


async def test_a_participant_is_there_for_its_workflows_only(world: World) -> None:
    host = await world.host()
    await host.deliver(Plain(key="k"), "m1")
    assert world.sql == []
    assert "no participant Ledger" in world.state.result


async def test_what_was_kept_in_a_scope_that_failed_stays_as_variables_do(world: World) -> None:
    host = await world.host()
    await host.deliver(Tried(key="k"), "m1")
    assert world.state.result == 2


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        (
            {"ledger": {"read_write": {"lines": 1}}},
            "two values are named 'lines', given by participant Cart and participant Ledger",
        ),
        (
            {"ledger": {"write_only": {"lines": 1}}},
            "two values are named 'lines', given by participant Cart and participant Ledger",
        ),
        ({"write_only": {"same": 1}}, "two values are named 'same', given by participant Cart: rename one"),
        ({"write_only": {"a\x00": 1}}, r"participant Cart names a value 'a\x00'"),
        ({"write_only": {"": 1}}, "participant Cart names a value ''"),
    ],
)
async def test_values_whose_names_do_not_go_together_are_refused(
    world: World, given: dict[str, Any], said_of_it: str
) -> None:
    host = await world.host()
    wrong.update(given)
    await host.deliver(Opened(key="k"), "m1")
    row = world.row
    assert (row.version, row.suspension_reason) == (0, "unhandled_exception")
    assert row.suspension_exception_name == "holdfast.schemas.errors.ParticipantError"
    wrong.clear()
    await host.command(world.instance_id, "resume")
    await host.deliver(Added(key="k"), "m2")
    wrong.update(given)
    await host.deliver(Closed(key="k"), "m3")
    assert said_of_it in (world.state.suspension_detail or "")


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        ({"lines": [{"b": open}]}, "'lines' (in 0/b) holds a builtin_function_or_method"),
        ({"lines": (item for item in "ab")}, "'lines' holds a generator"),
        ({"write_only": {"big": {"a": [1, 1 << 63]}}}, "'big' (in a/1) holds a int"),
        ({"write_only": {"nan": float("nan")}}, "'nan' holds a float"),
        ({"write_only": {"text": "a\x00"}}, "'text' holds a str"),
        ({"write_only": {"text": "\ud800"}}, "'text' holds a str"),
        ({"write_only": {"keys": {1: 1}}}, "'keys' holds a dict"),
        ({"write_only": {"line": [Basket()]}}, "'line' (in 0) holds a tests.unit.engine.test_participants.Basket"),
    ],
)
async def test_a_value_that_cannot_be_stored_suspends_with_the_names_of_value_and_participant(
    world: World, given: dict[str, Any], said_of_it: str
) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    wrong.update(given)
    await host.deliver(Added(key="k"), "m2")
    assert world.state.suspension_reason == "not_persistable"
    assert said_of_it in (world.state.suspension_detail or "")
    assert "It is a value of participant Cart" in (world.state.suspension_detail or "")


@pytest.mark.parametrize("name", ["on_save", "on_load", "publish"])
async def test_what_a_participant_raises_is_an_unhandled_exception_of_the_workflow(world: World, name: str) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    host = await another(world, host)
    before = world.state
    wrong[name] = LookupError(name)
    await host.deliver(Added(key="k", item="pear"), "m2")
    assert world.state.suspension_reason == "unhandled_exception"
    assert world.state.suspension_exception_name == "LookupError"
    assert (world.state.values, world.state.frames) == (before.values, before.frames)
    wrong.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.promoted["count"] == 2


async def test_a_refused_commit_suspends_whatever_the_policy_for_exceptions(world: World) -> None:
    host = await world.host()
    wrong["write_only"] = {"nan": float("nan")}
    await host.deliver(Ended(key="k"), "m1")
    assert world.row.suspension_reason == "not_persistable"
    wrong.clear()
    wrong["collect"] = LookupError("collect")
    await host.command(world.instance_id, "resume")
    assert (world.row.suspension_reason, world.row.suspension_exception_name) == ("unhandled_exception", "LookupError")
    wrong.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.outcome == "faulted"
    assert world.state.promoted["count"] == 1


async def test_a_store_that_gives_way_while_participants_load_is_asked_again(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    host = await another(world, host)
    wrong["on_load"] = StorageError("gone")
    await host.deliver(Added(key="k", item="pear"), "m2")
    assert not world.state.is_suspended
    wrong.clear()
    await world.advance(1)
    assert world.state.promoted["count"] == 2
    assert world.verdict("m2") == ("applied", None)


async def test_participants_that_do_not_come_to_an_end_on_load_are_given_up(world: World) -> None:
    async def sleep(_tx: Transaction, _instance: InstanceView) -> None:
        await world.sleep(1000)

    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    await host.engine.unload_idle(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "on_load", lambda _self, tx, instance: sleep(tx, instance))
        await host.deliver(Added(key="k", item="pear"), "m2")
        await world.advance(world.settings.transaction_timeout)
    assert world.state.suspension_exception_name == "TimeoutError"


async def test_values_stay_while_no_participant_is_registered(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    before = world.state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "participants", {})
        host = await another(world, host)
        await host.deliver(Added(key="k", item="pear"), "m2")
    after = world.state
    assert after.suspension_exception_name == "holdfast.schemas.errors.ParticipantError"
    assert (after.values, after.promoted) == (before.values, before.promoted)


async def test_suspending_and_ending_from_outside_ask_no_participant(world: World) -> None:
    host = await world.host()
    await host.deliver(Opened(key="k"), "m1")
    wrong["on_save"] = LookupError("nobody is asked")
    await host.command(world.instance_id, "suspend")
    assert world.state.suspension_reason == "requested"
    await host.command(world.instance_id, "terminate")
    assert world.state.outcome == "terminated"
    assert world.state.promoted["count"] == 1


# Protocol: I16.
async def test_values_and_writes_come_out_the_same_wherever_a_host_dies() -> None:
    async def shopping(simulation: Simulation) -> None:
        await simulation.deliver(Opened(key="k"))
        await simulation.deliver(Added(key="k", item="pear"))
        await simulation.deliver(Closed(key="k"))

    report = await crash_prover(app, shopping)
    assert sum("commit of order/k (idle)" in call for call in report.calls) == 2
    assert {kind for kind, _ in said} == {"load", "publish"}
