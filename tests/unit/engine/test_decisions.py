"""What was decided about a call in doubt stays decided, whatever follows."""

import asyncio
from typing import Any

import pytest

from holdfast import ActivityInDoubt, App, Message, gather, routine
from holdfast.events.types import ActivityResolved
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.control import Command

app = App("decided")
ran: list[str] = []
gates: dict[str, asyncio.Event] = {}
refusing: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    gates.clear()
    refusing.clear()


class Begun(Message, correlation="key"):
    key: str


class Guarded(Begun): ...


class Separate(Begun): ...


@app.activity
async def note(what: str) -> None:
    if what in refusing:
        raise ValueError(what)


@app.activity(repeatable=False)
async def charge(what: str) -> int:
    ran.append(f"charge {what}")
    if what in gates:
        await gates[what].wait()
    return len(what)


@app.workflow(start=Begun)
async def begun(start: Begun) -> int:
    number = await charge(start.key)
    await note("after")
    return number


@routine
async def charge_in_full(what: str) -> int:
    return await charge(what)


@app.workflow(start=Guarded)
async def guarded(start: Guarded) -> int:
    return await charge_in_full(start.key)


@routine
async def charge_if_possible(what: str) -> int:
    try:
        return await charge_in_full(what)
    except ActivityInDoubt:
        return -1


@app.workflow(start=Separate)
async def separate(_start: Separate) -> list[int]:
    return [*await gather(charge_if_possible("left"), charge_if_possible("right"))]


async def fallen(message: Message, *charged: str) -> tuple[World, SimulatedHost]:
    """Return a world in which a host fell while it charged, and another one that has taken over."""
    world = World(app, lease=30, host_lock_renewal=10)
    first = await world.host()
    for what in charged:
        gates[what] = asyncio.Event()
    await first.deliver(message, "m1")
    assert ran == [f"charge {what}" for what in charged]
    await first.die()
    gates.clear()
    await world.advance(31)
    other = await world.host()
    await other.detect()
    return world, other


async def resolutions(world: World) -> list[tuple[str, str, str | None]]:
    """Return what was decided, by whom and why, as the history has it."""
    events = [recorded.event for recorded in await world.events()]
    return [(each.decision, each.by, each.why) for each in events if isinstance(each, ActivityResolved)]


def resolve(decision: Any, result: Any = None, call: str | None = None) -> Command:
    return Command(command="resolve", by="ann", why="the bank said so", decision=decision, result=result, call=call)


async def test_a_failure_that_nobody_catches_stays_decided_and_is_raised_again() -> None:
    world, host = await fallen(Guarded(key="kay"), "kay")
    await host.command(world.instance_id, resolve("fail"))
    assert await resolutions(world) == [("fail", "ann", "the bank said so")]
    for _ in range(2):
        state = world.state
        assert (state.suspension_reason, dict(state.calls)) == ("unhandled_exception", {})
        assert state.suspension_exception_name == "holdfast.schemas.errors.ActivityInDoubt"
        assert "given up as failed by ann: the bank said so" in (state.suspension_detail or "")
        await host.command(world.instance_id, "resume")
    again = world.store.tables.inbox[await host.command(world.instance_id, resolve("done", 7))]
    assert (again.verdict, again.detail) == ("rejected", "no activity of the instance is in doubt")
    assert (await resolutions(world), ran.count("charge kay")) == ([("fail", "ann", "the bank said so")], 1)


@pytest.mark.parametrize("decision", ["done", "retry", "fail"])
async def test_a_decision_stays_when_a_host_dies_right_after_it(decision: str) -> None:
    world, host = await fallen(Guarded(key="kay"), "kay")
    commit = world.store.commit

    async def last(batches: Any) -> Any:
        answers = await commit(batches)
        await asyncio.gather(host.die(), return_exceptions=True)
        return answers

    world.store.commit = last  # type: ignore[method-assign]  # It stands in for it.
    await host.command(world.instance_id, resolve(decision, 7 if decision == "done" else None))
    world.store.commit = commit  # type: ignore[method-assign]  # Back to what it was.
    assert (world.state.execution_status, world.state.is_suspended) == ("executing", False)
    await world.advance(31)
    await (await world.host()).detect()
    ends = {"done": (7, None), "retry": (3, None), "fail": (None, "unhandled_exception")}
    assert (world.state.result, world.state.suspension_reason) == ends[decision]
    assert await resolutions(world) == [(decision, "ann", "the bank said so")]
    assert ran.count("charge kay") == (2 if decision == "retry" else 1)


async def test_a_decision_stays_when_something_else_fails_in_the_burst_that_follows() -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    refusing.add("after")
    await host.command(world.instance_id, resolve("retry"))
    assert world.state.suspension_reason == "unhandled_exception"
    assert await resolutions(world) == [("retry", "ann", "the bank said so")]
    refusing.clear()
    await host.command(world.instance_id, "resume")
    assert (world.state.result, ran.count("charge kay")) == (3, 2)


async def test_when_one_failed_and_was_caught_the_others_are_still_in_doubt() -> None:
    world, host = await fallen(Separate(key="kay"), "left", "right")
    left, right = world.state.calls
    await host.command(world.instance_id, resolve("fail", call=left))
    assert (world.state.suspension_reason, list(world.state.calls)) == ("in_doubt", [right])
    await host.command(world.instance_id, resolve("done", 7))
    assert world.state.result == [-1, 7]
    assert [decision for decision, _, _ in await resolutions(world)] == ["fail", "done"]
