"""Subflows that run within the transactions of their caller, on simulated hosts."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Never

import pytest

from holdfast import (
    App,
    Message,
    ScopeError,
    Transaction,
    checkpoint,
    continue_as_new,
    delay,
    gather,
    receive,
    run,
    send,
    spawn,
    start,
    suspend,
    transacted_receive,
    transaction,
)
from holdfast.events.types import Persisted
from holdfast.processor.language import awaitables
from holdfast.projections.instance import fold
from holdfast.testing import SimulatedInstance, Simulation, crash_prover

app = App("inner")
said: list[str] = []


@pytest.fixture(autouse=True)
def _silence() -> None:
    said.clear()


class Refused(Exception): ...


class Step(Message, correlation="key"):
    key: str
    how: str = ""


class Note(Step): ...


class Stop(Step): ...


class Told(Step): ...


class Called(Step): ...


class CalledBelow(Step): ...


class Persistent(Step): ...


@app.activity
async def say(what: str) -> str:
    said.append(what)
    return what


@app.activity
async def fail(what: str) -> Never:
    raise Refused(what)


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


def hidden(how: str, key: str) -> awaitables.Awaitable[Any]:
    """Return what no check of the app can see."""
    match how:
        case "start":
            return start(child, Called(key=key))
        case "spawn":
            return spawn(child, Called(key=key))
        case "checkpoint":
            return checkpoint()
        case "continue_as_new":
            return continue_as_new(Called(key=key))
        case "transacted_receive":
            return run(transacting, Transacted(key=key))
        case _:
            return run(persistent, Persistent(key=key))


@app.workflow(start=CalledBelow, persistence="in_memory")
async def below(called: CalledBelow) -> str:
    await say(f"{called.key} below")
    if called.how == "wait":
        note = await receive(Note, called.key)
        return f"{note.key} came"
    return "below"


@app.workflow(start=Called, persistence="in_memory")
async def child(called: Called) -> str:
    first = await say(f"{called.key} 1")
    await book(called.key)
    await send(Told(key=called.key))
    match called.how:
        case "fail":
            await fail(called.key)
        case "wait":
            await receive(Note, called.key)
            await delay(timedelta(hours=1))
        case "nest" | "nest and wait":
            return await run(below, CalledBelow(key=called.key, how=called.how.removeprefix("nest and ")))
        case "suspend":
            await suspend("for a while")
        case "":
            pass
        case misuse:
            await hidden(misuse, called.key)
    return first + await say(f"{called.key} 2")


@app.workflow(start=Persistent)
async def persistent(called: Persistent) -> str:
    return await say(called.key)


class Transacted(Step): ...


@app.workflow(start=Transacted, persistence="in_memory")
async def transacting(called: Transacted) -> None:
    async with transacted_receive(Note, called.key):
        pass


class Ran(Step): ...


@app.workflow(start=Ran, persistence="in_memory", on_unhandled="terminate")
async def parent(ran: Ran) -> list[str]:
    first = await say("before")
    result = await run(child, Called(key="c", how=ran.how))
    return [first, result, await say("after")]


class RanInSteps(Step): ...


@app.workflow(start=RanInSteps)
async def parent_in_steps(ran: RanInSteps) -> list[str]:
    first = await say("before")
    result = await run(child, Called(key="c", how=ran.how))
    return [first, result, await say("after")]


class Caught(Step): ...


@app.workflow(start=Caught, persistence="in_memory")
async def catcher(caught: Caught) -> str:
    try:
        return await run(child, Called(key="c", how=caught.how))
    except (Refused, ScopeError) as error:
        return f"{type(error).__name__}: {error}"


class Gathered(Step): ...


@app.workflow(start=Gathered, persistence="in_memory")
async def gatherer(gathered: Gathered) -> list[Any]:
    return [
        *await gather(
            run(child, Called(key="c1", how=gathered.how)),
            run(child, Called(key="c2", how=gathered.how)),
            receive(Stop, gathered.key),
        )
    ]


class Guarded(Step): ...


@app.workflow(start=Guarded)
async def guarded(guarded: Guarded) -> str:
    await say("before")
    try:
        async with transaction():
            await run(child, Called(key="c"))
            if guarded.how == "fail":
                await fail("late")
    except Refused:
        return "rolled back"
    return "committed"


async def transactions(world: Simulation, instance: SimulatedInstance) -> list[tuple[str, list[str]]]:
    """Return the reason and the other events of each transaction of an instance; each has one persistence point."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    for recorded in await world.history(instance):
        reasons, types = found.setdefault(recorded.cursor.xid, ([], []))
        event = recorded.event
        if isinstance(event, Persisted):
            reasons.append(event.reason)
        else:
            types.append(type(event).__name__)
    assert all(len(reasons) == 1 for reasons, _ in found.values())
    return [(reasons[0], types) for reasons, types in found.values()]


async def xids(world: Simulation, instance: SimulatedInstance) -> list[int]:
    """Return the transactions of an instance, in order."""
    return sorted({recorded.cursor.xid for recorded in await world.history(instance)})


async def check_folds(world: Simulation) -> None:
    """Check that each instance's stored state is what its stream says."""
    for instance in world.instances:
        assert fold(recorded.event for recorded in await world.history(instance)) == instance.state


WHOLE = ["InstanceStarted", "ActivityCompleted", "ActivityCompleted", "MessageSent", "ActivityCompleted"]


async def test_a_subflow_shares_the_one_transaction_of_its_caller_and_has_its_own_stream() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p"))
        top, sub = world.instance("p"), world.instance("c")
        assert top.result == ["before", "c 1c 2", "after"]
        assert await transactions(world, top) == [
            (
                "completed",
                [
                    "InstanceStarted",
                    "ActivityCompleted",
                    "SubflowStarted",
                    "SubflowEnded",
                    "ActivityCompleted",
                    "InstanceCompleted",
                ],
            )
        ]
        assert await transactions(world, sub) == [("completed", [*WHOLE, "InstanceCompleted"])]
        assert await xids(world, sub) == await xids(world, top)
        assert (sub.result, sub.state.parent, sub.state.subflow) == ("c 1c 2", str(top.instance_id), "run")
        assert [statement.instance_id for statement in world.sql] == [top.instance_id]
        await check_folds(world)


async def test_the_activities_of_a_subflow_never_commit_by_themselves() -> None:
    async with Simulation(app) as world:
        await world.deliver(RanInSteps(key="p"))
        top, sub = world.instance("p"), world.instance("c")
        assert await transactions(world, top) == [
            ("activity_completed", ["InstanceStarted", "ActivityCompleted"]),
            ("activity_completed", ["SubflowStarted", "SubflowEnded"]),
            ("completed", ["ActivityCompleted", "InstanceCompleted"]),
        ]
        assert await transactions(world, sub) == [("completed", [*WHOLE, "InstanceCompleted"])]


async def test_what_a_subflow_raises_reaches_its_caller() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="fail"))
        assert world.instance("p").result == "Refused: c"
        sub = world.instance("c")
        assert (sub.outcome, type(sub.error)) == ("faulted", Refused)
        assert await transactions(world, sub) == [
            ("faulted", [*WHOLE[:-1], "ActivityFailed", "InstanceFaulted"]),
        ]
        await check_folds(world)


async def test_a_caller_that_does_not_catch_it_ends_with_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="fail"))
        assert [each.outcome for each in world.instances] == ["faulted", "faulted"]
        assert isinstance(world.instance("p").error, Refused)


async def test_a_subflow_waits_as_part_of_its_caller() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="wait"))
        top, sub = world.instance("p"), world.instance("c")
        assert (top.status, sub.status, sub.waits_for) == ("idle", "idle", [])
        assert [waits.partition(" (")[0] for waits in top.waits_for] == ["Note 'c'"]
        await world.deliver(Note(key="c"))
        await world.crash()
        await world.start()
        await world.advance(timedelta(hours=1))
        assert world.instance("p").result == ["before", "c 1c 2", "after"]
        assert await transactions(world, world.instance("c")) == [
            ("subflow", WHOLE[:-1]),
            ("completed", ["ActivityCompleted", "InstanceCompleted"]),
        ]
        assert said == ["before", "c 1", "c 2", "after"]
        await check_folds(world)


async def test_subflows_run_subflows() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="nest and wait"))
        await world.crash()
        await world.start()
        await world.deliver(Note(key="c"))
        top, sub = world.instance("p"), world.instance("c", workflow="child")
        bottom = world.instance("c", workflow="below")
        assert top.result == ["before", "c came", "after"]
        assert bottom.state.parent == str(sub.instance_id)
        assert await transactions(world, sub) == [
            ("subflow", [*WHOLE[:-1], "SubflowStarted"]),
            ("completed", ["SubflowEnded", "InstanceCompleted"]),
        ]
        assert await transactions(world, bottom) == [
            ("subflow", ["InstanceStarted", "ActivityCompleted"]),
            ("completed", ["InstanceCompleted"]),
        ]
        assert await xids(world, bottom) == await xids(world, sub)
        await check_folds(world)


async def test_subflows_run_side_by_side_and_are_restored_each_in_its_place() -> None:
    async with Simulation(app) as world:
        await world.deliver(Gathered(key="p", how="wait"))
        await world.crash()
        await world.start()
        await world.deliver(Note(key="c2"))
        await world.deliver(Stop(key="p"))
        await world.advance(timedelta(hours=1))
        assert [each.outcome for each in world.instances] == [None, None, "completed"]
        await world.deliver(Note(key="c1"))
        await world.advance(timedelta(hours=1))
        assert world.instance("p").result[:2] == ["c1 1c1 2", "c2 1c2 2"]
        await check_folds(world)


async def test_a_subflow_is_cancelled_with_its_caller() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="nest and wait"))
        await world.command(world.instance("p"), "cancel")
        assert [each.outcome for each in world.instances] == ["cancelled", "cancelled", "cancelled"]
        await check_folds(world)


async def test_a_subflow_is_terminated_with_its_caller() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="nest and wait"))
        await world.command(world.instance("p"), "terminate")
        assert [each.outcome for each in world.instances] == ["terminated", "terminated", "terminated"]
        await check_folds(world)


async def test_a_subflow_that_suspends_itself_suspends_its_caller() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ran(key="p", how="suspend"))
        top = world.instance("p")
        assert top.is_suspended
        assert await transactions(world, top) == [
            ("suspended", ["InstanceStarted", "ActivityCompleted", "SubflowStarted", "InstanceSuspended"])
        ]
        await world.command(top, "resume")
        assert world.instance("p").result == ["before", "c 1c 2", "after"]
        assert said == ["before", "c 1", "c 2", "after"]
        await check_folds(world)


@pytest.mark.parametrize(
    ("how", "result", "booked", "told"),
    [("", "committed", ["c"], ["c"]), ("fail", "rolled back", [], [])],
    ids=["completes", "fails"],
)
async def test_a_subflow_inside_a_transaction_is_part_of_it(
    how: str, result: str, booked: list[str], told: list[str]
) -> None:
    async with Simulation(app) as world:
        await world.deliver(Guarded(key="p", how=how))
        assert world.instance("p").result == result
        assert [statement.parameters for statement in world.sql] == [(what,) for what in booked]
        assert [message.key for message in world.sent(Told)] == told
        sent = [event for _, types in await transactions(world, world.instance("c")) for event in types]
        assert sent.count("MessageSent") == len(told)
        await check_folds(world)


@pytest.mark.parametrize("how", ["start", "spawn", "checkpoint", "continue_as_new", "transacted_receive"])
async def test_what_needs_a_transaction_of_its_own_is_refused_in_a_subflow(how: str) -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how=how))
        result = world.instance("p").result
        assert result.startswith(f"ScopeError: {how}() inside a subflow that was called by run()"), result


async def test_a_subflow_with_transactions_of_its_own_is_refused() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="run persistent"))
        result = world.instance("p").result
        assert result.startswith("ScopeError: run() of persistent, which has transactions of its own"), result


async def one(world: Simulation) -> None:
    await world.deliver(Ran(key="p", how="wait"))
    await world.deliver(Note(key="c"))
    await world.advance(timedelta(hours=1))


async def nested(world: Simulation) -> None:
    await world.deliver(RanInSteps(key="p", how="nest and wait"))
    await world.deliver(Note(key="c"))


async def gathered(world: Simulation) -> None:
    await world.deliver(Gathered(key="p", how="wait"))
    for key in ("c2", "c1"):
        await world.deliver(Note(key=key))
    await world.advance(timedelta(hours=1))
    await world.deliver(Stop(key="p"))


@pytest.mark.parametrize("scenario", [one, nested, gathered], ids=lambda s: s.__name__)
async def test_a_host_that_dies_anywhere_changes_nothing(scenario: Callable[[Simulation], Awaitable[None]]) -> None:
    await crash_prover(app, scenario)
