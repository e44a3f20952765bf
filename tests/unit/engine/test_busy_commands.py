"""Control commands for an instance that is busy: which cut its burst short, which are followed in the middle of it."""

import asyncio
from uuid import UUID

import pytest

from holdfast import App, Message, gather, no_persist, receive, transaction
from holdfast.events.types import InstanceAbandoned, Persisted, PersistRequested, UnloadRequested
from holdfast.processor.engine.wakeups import Wakeups
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World

app = App("busy")
ran: list[str] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    gates.clear()


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Scoped(Begun): ...


class Transacted(Begun): ...


class Sided(Begun): ...


class Steady(Begun): ...


class Lazy(Begun): ...


@app.activity
async def work(what: str) -> str:
    ran.append(what)
    if what in gates:
        await gates[what].wait()
    return what


@app.activity
async def stubborn() -> None:
    ran.append("stubborn")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ran.append("will not go")


@app.activity(repeatable=False)
async def once(what: str) -> None:
    ran.append(what)
    await gates[what].wait()


@app.workflow(start=Begun, persistence="in_memory")
async def begun(start: Begun) -> str:
    await work("first")
    await receive(Came, start.key)
    await work("second")
    await work("third")
    return "done"


@app.workflow(start=Scoped, persistence="in_memory")
async def scoped(start: Scoped) -> None:
    async with no_persist():
        await work("inside")
    await work("outside")


@app.workflow(start=Transacted, persistence="in_memory")
async def transacted(start: Transacted) -> None:
    async with transaction():
        await work("inside")
    await work("outside")


@app.workflow(start=Sided)
async def sided(start: Sided) -> None:
    await gather(once("once"), work("beside"))


@app.workflow(start=Steady)
async def steady(start: Steady) -> None:
    await stubborn()


@app.workflow(start=Lazy, on_idle="none")
async def lazy(start: Lazy) -> None:
    await work("first")
    await receive(Came, start.key)


async def begin(message: Message, *closed: str) -> tuple[World, SimulatedHost]:
    """Start an instance in a world where these activities wait at a gate."""
    gates.update((what, asyncio.Event()) for what in closed)
    world = World(app)
    host = await world.host()
    await host.deliver(message, "m1")
    return world, host


async def in_a_burst() -> tuple[World, SimulatedHost]:
    """Have an instance that has been idle do the second of its three activities."""
    world, host = await begin(Begun(key="kay"), "second")
    delivered = await host.deliver(Came(key="kay"), "m2")
    assert ran == ["first", "second"]
    assert not delivered.acked
    return world, host


async def open_gate(world: World, what: str) -> None:
    gates[what].set()
    await world.rest()


async def test_terminate_cuts_a_burst_short() -> None:
    world, host = await in_a_burst()
    command = await host.command(world.instance_id, "terminate")
    assert world.verdict(command) == ("applied", None)
    assert world.state.outcome == "terminated"
    assert world.verdict("m2") == ("rejected", "completed")
    await open_gate(world, "second")
    assert ran == ["first", "second"]


async def test_abandon_goes_back_and_what_had_woken_the_instance_wakes_it_again() -> None:
    world, host = await in_a_burst()
    version = world.state.version
    command = await host.command(world.instance_id, "abandon")
    assert world.verdict(command) == ("applied", None)
    *_, abandoned, persisted = [recorded.event for recorded in await world.events()]
    assert abandoned == InstanceAbandoned(by="tester", why="because")
    assert isinstance(persisted, Persisted)
    assert world.state.version == version + 2
    assert (world.row.owner, world.verdict("m2")) == (None, ("buffered", None))
    gates.clear()
    await host.detect()
    assert ran == ["first", "second", "second", "third"]
    assert world.state.result == "done"


async def test_abandon_after_suspend_leaves_the_instance_suspended() -> None:
    world, host = await in_a_burst()
    await host.command(world.instance_id, "suspend")
    command = await host.command(world.instance_id, "abandon")
    assert world.state.suspension_reason == "requested"
    await host.detect()
    assert world.verdict(command) == ("applied", "not_loaded")
    assert ran == ["first", "second"]


async def test_abandon_before_the_first_persistence_point_has_it_begin_again() -> None:
    world, host = await begin(Begun(key="kay"), "first")
    command = await host.command(world.instance_id, "abandon")
    assert world.verdict(command) == ("applied", None)
    assert (world.row.owner, world.row.is_initialized, world.verdict("m1")) == (None, False, ("buffered", None))
    gates.clear()
    await host.detect()
    assert ran == ["first", "first"]
    assert (await world.types())[0] == "InstanceStarted"


async def test_persist_is_followed_between_two_activities() -> None:
    world, host = await in_a_burst()
    gates["third"] = asyncio.Event()
    command = await host.command(world.instance_id, "persist")
    assert world.verdict(command) == ("buffered", None)
    await open_gate(world, "second")
    assert world.verdict(command) == ("applied", None)
    assert await world.commits() == ["idle", "requested"]
    assert PersistRequested(by="tester", why="because") in [recorded.event for recorded in await world.events()]
    await host.die()
    assert world.state.execution_status == "executing"
    await open_gate(world, "third")
    assert ran == ["first", "second", "third"]


async def test_unload_is_followed_between_two_activities_and_another_host_goes_on() -> None:
    world, host = await in_a_burst()
    command = await host.command(world.instance_id, "unload")
    await open_gate(world, "second")
    assert world.verdict(command) == ("applied", None)
    assert (await world.commits(), world.row.owner) == (["idle", "unload"], None)
    assert UnloadRequested(by="tester", why="because") in [recorded.event for recorded in await world.events()]
    other = await world.host()
    await other.detect()
    assert ran == ["first", "second", "third"]
    assert world.state.result == "done"


async def test_a_command_that_is_heard_once_the_instance_was_let_go_of_is_for_its_next_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, host = await begin(Begun(key="kay"), "first")
    (holding,) = host.engine.held.values()
    heard, look = asyncio.Event(), host.runtime.look.put

    async def look_late(instance_id: UUID) -> Wakeups:
        wakeups = await look(instance_id)
        await heard.wait()
        return wakeups

    with monkeypatch.context() as patch:
        patch.setattr(host.runtime.look, "put", look_late)
        commanding = asyncio.create_task(host.command(world.instance_id, "persist"))
        await world.rest()
    holding.is_leaving = True
    await open_gate(world, "first")
    assert not host.engine.held
    assert await host.engine.hold(world.instance_id) is not holding
    heard.set()
    assert world.verdict(await commanding) == ("applied", "not_loaded")
    assert world.row.owner == host.runtime.host_id
    assert holding.task is None


async def test_several_requests_take_one_persistence_point() -> None:
    world, host = await in_a_burst()
    commands = [await host.command(world.instance_id, name) for name in ("persist", "unload")]
    await open_gate(world, "second")
    assert [world.verdict(command) for command in commands] == [("applied", None)] * 2
    assert await world.commits() == ["idle", "unload"]


@pytest.mark.parametrize("message", [Scoped(key="kay"), Transacted(key="kay")])
@pytest.mark.parametrize("name", ["persist", "unload"])
async def test_a_request_waits_for_the_end_of_a_scope(message: Message, name: str) -> None:
    world, host = await begin(message, "inside", "outside")
    command = await host.command(world.instance_id, name)
    await world.advance(29)
    assert world.verdict(command) == ("buffered", None)
    await open_gate(world, "inside")
    assert world.verdict(command) == ("applied", None)


@pytest.mark.parametrize("message", [Scoped(key="kay"), Transacted(key="kay")])
@pytest.mark.parametrize("name", ["persist", "unload"])
async def test_a_request_that_waits_for_a_scope_for_too_long_is_rejected(message: Message, name: str) -> None:
    world, host = await begin(message, "inside")
    command = await host.command(world.instance_id, name)
    await world.advance(31)
    assert world.verdict(command) == ("rejected", "in_scope")
    detail = world.store.tables.inbox[command].detail or ""
    assert detail.startswith("for 30 seconds it was in ")
    await host.detect()
    await open_gate(world, "inside")
    assert ran == ["inside", "outside"]
    assert "requested" not in await world.commits()


async def test_unload_waits_for_what_must_not_run_twice() -> None:
    world, host = await begin(Sided(key="kay"), "once", "beside")
    unload = await host.command(world.instance_id, "unload")
    await open_gate(world, "beside")
    assert world.verdict(unload) == ("buffered", None)
    persist = await host.command(world.instance_id, "persist")
    await open_gate(world, "once")
    assert (world.verdict(unload), world.verdict(persist)) == (("rejected", "completed"), ("rejected", "completed"))
    assert world.state.outcome == "completed"


async def test_terminate_does_not_ask_an_activity_that_will_not_go() -> None:
    world, host = await begin(Steady(key="kay"))
    await host.command(world.instance_id, "terminate")
    assert ran == ["stubborn", "will not go"]
    assert world.state.outcome == "terminated"


async def test_abandon_leaves_in_doubt_what_must_not_run_twice() -> None:
    world, host = await begin(Sided(key="kay"), "once", "beside")
    command = await host.command(world.instance_id, "abandon")
    assert world.verdict(command) == ("applied", None)
    await host.detect()
    assert world.state.suspension_reason == "in_doubt"


@pytest.mark.parametrize(("name", "reason"), [("persist", "requested"), ("unload", "unload")])
async def test_an_idle_instance_is_persisted_where_it_waits(name: str, reason: str) -> None:
    world, host = await begin(Begun(key="kay"))
    command = await host.command(world.instance_id, name)
    assert world.verdict(command) == ("applied", None)
    assert await world.commits() == ["idle", reason]
    assert world.state.execution_status == "idle"
    assert (world.row.owner is None) is (name == "unload")
    await host.deliver(Came(key="kay"), "m2")
    assert world.state.result == "done"


async def test_an_idle_instance_is_abandoned_and_wakes_when_it_is_needed() -> None:
    world, host = await begin(Begun(key="kay"))
    await host.command(world.instance_id, "abandon")
    assert (world.row.owner, world.state.execution_status) == (None, "idle")
    assert not host.engine.held
    await host.deliver(Came(key="kay"), "m2")
    assert world.state.result == "done"


@pytest.mark.parametrize("name", ["persist", "unload", "abandon"])
async def test_nothing_is_to_be_done_with_one_that_is_suspended(name: str) -> None:
    world, host = await begin(Begun(key="kay"))
    await host.command(world.instance_id, "suspend")
    version = world.state.version
    command = await host.command(world.instance_id, name)
    assert world.verdict(command) == ("applied", "not_loaded")
    assert (world.state.version, world.row.owner) == (version, None)


@pytest.mark.parametrize(("name", "reason"), [("persist", "requested"), ("unload", "unload")])
async def test_an_instance_that_is_idle_without_a_persistence_point_gets_one(name: str, reason: str) -> None:
    world, host = await begin(Lazy(key="kay"))
    assert not world.row.is_initialized
    command = await host.command(world.instance_id, name)
    assert world.verdict(command) == ("applied", None)
    assert await world.commits() == [reason]
    assert (world.state.execution_status, list(world.state.bookmarks)) == ("idle", ["0.2"])
    assert world.verdict("m1") == ("applied", None)


async def test_abandon_drops_what_was_not_persisted_of_an_idle_instance() -> None:
    world, host = await begin(Lazy(key="kay"))
    command = await host.command(world.instance_id, "abandon")
    assert world.verdict(command) == ("applied", None)
    assert (world.row.owner, world.row.is_initialized, world.verdict("m1")) == (None, False, ("buffered", None))
    await host.detect()
    assert ran == ["first", "first"]
