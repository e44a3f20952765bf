"""Control commands: what each does to an instance, who gave it and why, and what becomes of one that makes no sense."""

import asyncio
from typing import Any

import pytest

from holdfast import App, Cancelled, Message, compensable, receive
from holdfast.events.types import InstanceSuspended
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.control import Command
from holdfast.schemas.message import Envelope

app = App("commanded")
ran: list[str] = []
failing: set[str] = set()
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    failing.clear()
    gates.clear()


class Begun(Message, correlation="key"):
    key: str


class Tried(Begun): ...


class Booked(Begun): ...


class Came(Begun): ...


@app.activity
async def work(what: str) -> None:
    ran.append(what)
    if what in gates:
        await gates[what].wait()
    if what in failing:
        raise ValueError(what)


@app.workflow(start=Begun)
async def begun(start: Begun) -> str:
    await work("first")
    try:
        await receive(Came, start.key)
    except Cancelled:
        await work("unwinding")
        raise
    await work("last")
    return "came"


@app.workflow(start=Tried, on_unhandled="abandon")
async def tried(start: Tried) -> None:
    await work("first")


@app.workflow(start=Booked)
async def booked(start: Booked) -> None:
    async with compensable() as trip:
        await work("booking")
        trip.undo(work, "undoing")
    await receive(Came, start.key)


async def begin() -> tuple[World, SimulatedHost]:
    world = World(app)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    return world, host


async def verdict(world: World, host: SimulatedHost, command: str) -> tuple[str | None, ...]:
    """Give a command and return what became of it."""
    row = world.store.tables.inbox[await host.command(world.instance_id, command)]
    return row.verdict, row.reason, row.detail


async def who(world: World, event: str) -> tuple[str, str | None]:
    """Return who gave a command and why, as the event that it led to says."""
    found: Any = next(e.event for e in await world.events() if type(e.event).__name__ == event)
    return found.by, found.detail if isinstance(found, InstanceSuspended) else found.why


async def test_suspend_stops_an_idle_instance_which_then_keeps_its_messages() -> None:
    world, host = await begin()
    assert (await verdict(world, host, "suspend"))[0] == "applied"
    assert world.state.suspension_reason == "requested"
    assert await who(world, "InstanceSuspended") == ("tester", "because")
    await host.deliver(Came(key="kay"), "m2")
    assert ran == ["first"]
    await host.command(world.instance_id, "resume")
    assert ran == ["first", "last"]
    assert world.state.result == "came"


async def test_suspend_waits_for_the_end_of_a_burst() -> None:
    world = World(app)
    host = await world.host()
    gates["first"] = asyncio.Event()
    await host.deliver(Begun(key="kay"), "m1")
    await host.command(world.instance_id, "suspend")
    gates["first"].set()
    await world.rest()
    assert world.state.suspension_reason == "requested"
    assert list(world.state.bookmarks) == ["0.2"]


async def test_cancel_unwinds_an_idle_instance() -> None:
    world, host = await begin()
    assert (await verdict(world, host, "cancel"))[0] == "applied"
    assert world.state.outcome == "cancelled"
    assert ran == ["first", "unwinding"]
    assert await who(world, "CancelRequested") == ("tester", "because")


async def test_cancel_unwinds_a_suspended_instance() -> None:
    world, host = await begin()
    await host.command(world.instance_id, "suspend")
    assert (await verdict(world, host, "cancel"))[0] == "applied"
    assert (world.state.outcome, world.state.is_suspended) == ("cancelled", False)
    assert ran == ["first", "unwinding"]


@pytest.mark.parametrize("is_suspended", [False, True])
async def test_cancel_undoes_what_was_done(is_suspended: bool) -> None:  # noqa: FBT001  By name.
    world = World(app)
    host = await world.host()
    await host.deliver(Booked(key="kay"), "m1")
    if is_suspended:
        await host.command(world.instance_id, "suspend")
    await host.command(world.instance_id, "cancel")
    assert ran == ["booking", "undoing"]
    assert world.state.outcome == "cancelled"


@pytest.mark.parametrize("is_suspended", [False, True])
async def test_terminate_ends_an_instance_without_unwinding(is_suspended: bool) -> None:  # noqa: FBT001  By name.
    world, host = await begin()
    if is_suspended:
        await host.command(world.instance_id, "suspend")
    assert (await verdict(world, host, "terminate"))[0] == "applied"
    assert world.state.outcome == "terminated"
    assert ran == ["first"]
    assert await who(world, "InstanceTerminated") == ("tester", "because")


@pytest.mark.parametrize(("command", "outcome"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_one_that_was_suspended_before_its_first_persistence_point_is_ended(command: str, outcome: str) -> None:
    failing.add("first")
    world, host = await begin()
    assert (world.row.is_suspended, world.row.is_initialized) == (True, False)
    assert (await verdict(world, host, command))[0] == "applied"
    assert world.state.outcome == outcome
    assert ran == ["first"]
    assert world.verdict("m1") == ("applied", None)
    assert (await world.types())[0] == "InstanceStarted"


@pytest.mark.parametrize(("command", "outcome"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_one_whose_start_is_tried_again_and_again_is_ended(command: str, outcome: str) -> None:
    failing.add("first")
    world = World(app, max_attempts=3)
    host = await world.host()
    await host.deliver(Tried(key="kay"), "m1")
    await world.advance(60)
    assert world.verdict("m1") == ("dead_lettered", "unhandled_exception")
    assert (await verdict(world, host, command))[0] == "applied"
    assert world.state.outcome == outcome
    assert len(ran) == 3


async def test_one_whose_start_is_tried_again_and_again_is_suspended() -> None:
    failing.add("first")
    world = World(app, max_attempts=3)
    host = await world.host()
    await host.deliver(Tried(key="kay"), "m1")
    await world.advance(60)
    assert (await verdict(world, host, "suspend"))[0] == "applied"
    assert (world.row.is_suspended, world.row.suspension_reason) == (True, "requested")
    assert len(ran) == 3


@pytest.mark.parametrize(
    ("before", "command", "detail"),
    [
        (None, "resume", "'resume' makes no sense for an instance that is not suspended"),
        (None, "resolve", "'resolve' makes no sense for an instance that is not suspended"),
        (None, "dance", "'dance' makes no sense for an instance that is not suspended"),
        ("suspend", "suspend", "'suspend' makes no sense for an instance that is suspended"),
        ("suspend", "resolve", "no activity of the instance is in doubt"),
    ],
)
async def test_what_makes_no_sense_is_refused_for_good(before: str | None, command: str, detail: str) -> None:
    world, host = await begin()
    if before is not None:
        await host.command(world.instance_id, before)
    version = world.state.version
    assert await verdict(world, host, command) == ("rejected", "not_applicable", detail)
    assert world.state.version == version


@pytest.mark.parametrize("command", ["suspend", "resume", "cancel", "terminate"])
async def test_a_command_for_a_closed_instance_comes_too_late(command: str) -> None:
    world, host = await begin()
    await host.deliver(Came(key="kay"), "m2")
    assert (await verdict(world, host, command))[:2] == ("rejected", "completed")
    assert world.state.outcome == "completed"


def test_a_command_that_cannot_be_read_is_one_that_nobody_knows() -> None:
    for body in (b"{", b"[]", b'{"by": "ann"}', b'{"command": "resume", "colour": "red"}'):
        assert Command.of(Envelope(message_id="c", type="control", key="", body=body)) == Command(command="")


def test_a_command_is_read_as_it_was_written() -> None:
    command = Command(command="resolve", by="ann", why="it was", call="k", decision="done", result={"number": 1})
    assert Command.of(command.envelope("c", "kay")) == command
