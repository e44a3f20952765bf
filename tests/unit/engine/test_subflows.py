"""Subflows that are instances of their own, started or spawned, on simulated hosts."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Never
from uuid import UUID

import pytest

from holdfast import (
    App,
    Message,
    SubflowFailed,
    delay,
    gather,
    receive,
    routine,
    spawn,
    start,
    suspend,
)
from holdfast.events.types import Persisted
from holdfast.schemas.errors import InvalidMessage, KeyInUse
from holdfast.schemas.results import SubflowResult
from holdfast.testing import SimulatedInstance, Simulation, crash_prover

app = App("subflows")
said: list[str] = []


@pytest.fixture(autouse=True)
def _silence() -> None:
    said.clear()


class Refused(Exception): ...


class Unstorable:
    """Nothing that could be persisted."""


class Step(Message, correlation="key"):
    key: str


class Called(Step):
    how: str = ""


class Note(Step): ...


class Told(Step): ...


class Asked(Step):
    key: str


@app.activity
async def say(what: str) -> str:
    said.append(what)
    return what


@app.activity
async def fail(what: str) -> Never:
    raise Refused(what)


@app.workflow(start=Called, persistence="in_memory", on_unhandled="cancel")
async def child(called: Called) -> str:
    await say(f"{called.key} begins")
    match called.how:
        case "fail":
            await fail(called.key)
        case "wait":
            note = await receive(Note, called.key)
            await say(f"{called.key} got it")
            return note.key
        case "suspend":
            await suspend("for a while")
        case "suspend and wait":
            await suspend("for a while")
            await receive(Note, called.key)
        case "unstorable":
            return Unstorable()  # type: ignore[return-value]  # It cannot be handed over.
    return await say(f"{called.key} ends")


class CalledInSteps(Step): ...


@app.workflow(start=CalledInSteps)
async def child_in_steps(called: CalledInSteps) -> str:
    first = await say(f"{called.key} 1")
    return first + await say(f"{called.key} 2")


# What starts them.


class Started(Step):
    how: str = ""


class StartedInSteps(Started): ...


@app.workflow(start=Started, persistence="in_memory")
async def parent(started: Started) -> list[str]:
    first = await say("before")
    result = await start(child, Called(key="c", how=started.how))
    return [first, result, await say("after")]


@app.workflow(start=StartedInSteps)
async def parent_in_steps(started: StartedInSteps) -> list[str]:
    first = await say("before")
    result = await start(child_in_steps, CalledInSteps(key="c"))
    return [first, result, await say("after")]


class Spawned(Step): ...


class SpawnedInSteps(Step): ...


@app.workflow(start=Spawned, persistence="in_memory")
async def spawner(spawned: Spawned) -> tuple[str, UUID]:
    await say("before")
    name = await spawn(child, Called(key="c"))
    return await say("after"), name


@app.workflow(start=SpawnedInSteps)
async def spawner_in_steps(spawned: SpawnedInSteps) -> UUID:
    await say("before")
    name = await spawn(child_in_steps, CalledInSteps(key="c"))
    await say("after")
    return name


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


REQUEST = ("subflow", ["InstanceStarted", "ActivityCompleted", "SubflowStarted", "BookmarkOpened"])
ONE_BURST = [("completed", ["InstanceStarted", "ActivityCompleted", "ActivityCompleted", "InstanceCompleted"])]


async def test_a_parent_that_starts_a_subflow_takes_two_transactions_and_an_in_memory_subflow_one() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p"))
        top, sub = world.instance("p"), world.instance("c")
        assert top.result == ["before", "c ends", "after"]
        assert await transactions(world, top) == [
            REQUEST,
            ("completed", ["SubflowEnded", "ActivityCompleted", "InstanceCompleted"]),
        ]
        assert await transactions(world, sub) == ONE_BURST
        assert (sub.state.parent, sub.state.subflow) == (str(top.instance_id), "start")
        assert top.state.subflows == {}


async def test_regular_ones_take_a_transaction_an_activity_besides() -> None:
    async with Simulation(app) as world:
        await world.deliver(StartedInSteps(key="p"))
        top, sub = world.instance("p"), world.instance("c")
        assert top.result == ["before", "c 1c 2", "after"]
        assert await transactions(world, top) == [
            REQUEST,
            ("completed", ["SubflowEnded", "ActivityCompleted", "InstanceCompleted"]),
        ]
        assert await transactions(world, sub) == [
            ("activity_completed", ["InstanceStarted", "ActivityCompleted"]),
            ("completed", ["ActivityCompleted", "InstanceCompleted"]),
        ]


@pytest.mark.parametrize("message", [Spawned(key="p"), SpawnedInSteps(key="p")], ids=["in_memory", "regular"])
async def test_who_spawns_a_subflow_takes_two_transactions_and_goes_on_with_its_id(message: Message) -> None:
    async with Simulation(app) as world:
        await world.deliver(message)
        top, sub = world.instance("p"), world.instance("c")
        result = top.result[1] if isinstance(top.result, tuple) else top.result
        assert result == sub.instance_id
        assert await transactions(world, top) == [
            ("subflow", ["InstanceStarted", "ActivityCompleted", "SubflowStarted"]),
            ("completed", ["ActivityCompleted", "InstanceCompleted"]),
        ]
        assert sub.outcome == "completed"
        assert (sub.state.parent, sub.state.subflow, top.state.subflows) == (str(top.instance_id), "spawn", {})
        results = [row for row in world.tables.inbox.values() if row.message.envelope.type == "holdfast.SubflowResult"]
        assert results == []


async def test_a_parent_waits_as_long_as_its_subflow() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p", how="wait"))
        top, sub = world.instance("p"), world.instance("c")
        assert (top.status, sub.status) == ("idle", "idle")
        assert top.waits_for == [f"holdfast.SubflowResult '{sub.instance_id}' (line {top.state.bookmarks['0.2'].line})"]
        assert [each.mode for each in top.state.subflows.values()] == ["start"]
        await world.deliver(Note(key="c"))
        assert world.instance("p").result == ["before", "c", "after"]
        assert said == ["before", "c begins", "c got it", "after"]


# How a subflow's failure reaches its parent.


class Caught(Step):
    how: str


@app.workflow(start=Caught, persistence="in_memory")
async def catcher(caught: Caught) -> str:
    try:
        return await start(child, Called(key="c", how=caught.how))
    except (Refused, SubflowFailed) as error:
        return f"{type(error).__name__}: {error}"


async def test_what_a_subflow_raises_is_raised_at_the_start_of_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="fail"))
        assert world.instance("c").outcome == "cancelled"
        assert world.instance("p").result == "Refused: c"


@pytest.mark.parametrize(("command", "outcome"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_a_subflow_that_somebody_stops_fails_at_the_start_of_it(command: str, outcome: str) -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="wait"))
        await world.command(world.instance("c"), command)
        assert world.instance("c").outcome == outcome
        assert world.instance("p").result == f"SubflowFailed: subflow child was {outcome}"


async def test_a_suspended_subflow_keeps_its_parent_waiting() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="suspend"))
        assert world.instance("c").is_suspended
        assert world.instance("p").status == "idle"
        await world.command(world.instance("c"), "resume")
        assert world.instance("p").result == "c ends"


async def test_a_result_that_cannot_be_handed_over_suspends_the_subflow() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="unstorable"))
        sub = world.instance("c")
        assert (sub.is_suspended, sub.suspension_reason) == (True, "not_persistable")
        assert world.instance("p").status == "idle"


async def test_nobody_else_can_say_how_a_subflow_ended() -> None:
    async with Simulation(app) as world:
        await world.deliver(Caught(key="p", how="wait"))
        sub = world.instance("c")
        forged = SubflowResult(
            instance_id=str(sub.instance_id), workflow="child", outcome="completed", result='"forged"'
        )
        delivery = await world.deliver(forged)
        assert world.verdict(delivery) == "dead_lettered: reserved_type"
        await world.deliver(Note(key="c"))
        assert world.instance("p").result == "c"


# Keys.


class Doubled(Step): ...


@app.workflow(start=Doubled, persistence="in_memory")
async def doubler(doubled: Doubled) -> list[str]:
    names = []
    try:
        await start(child, Called(key="c", how="wait"))
    except KeyInUse as error:
        names.append(error.message_type)
    try:
        await spawn(child, Called(key="c", how="wait"))
    except KeyInUse as error:
        names.append(error.message_type)
    await say("after")
    return names


async def test_a_key_in_use_is_raised_where_the_subflow_would_begin() -> None:
    async with Simulation(app) as world:
        await world.deliver(Called(key="c", how="wait"))
        await world.deliver(Doubled(key="d"))
        assert world.instance("d").result == ["Called", "Called"]
        assert await transactions(world, world.instance("d")) == [
            ("completed", ["InstanceStarted", "ActivityCompleted", "InstanceCompleted"])
        ]
        assert len(world.instances) == 2


class Misused(Step): ...


@app.workflow(start=Misused, persistence="in_memory")
async def misuser(misused: Misused) -> str:
    try:
        await spawn(child, Called(key="x" * 300))
    except InvalidMessage as error:
        await say(type(error).__name__)
    try:
        await start(child, Called(key="x" * 300))
    except InvalidMessage as error:
        return type(error).__name__
    return "nothing"


async def test_a_message_that_can_start_nothing_is_an_error_where_it_is_used() -> None:
    async with Simulation(app) as world:
        await world.deliver(Misused(key="m"))
        assert world.instance("m").result == "InvalidMessage"
        assert said == ["InvalidMessage"]


# Side by side.


class Gathered(Step):
    how: str = ""


@routine
async def two_steps(key: str) -> str:
    await say(f"{key} 1")
    return await say(f"{key} 2")


@app.workflow(start=Gathered, persistence="in_memory")
async def gatherer(gathered: Gathered) -> list[str]:
    try:
        return [
            *await gather(
                start(child, Called(key="c1", how=gathered.how)),
                start(child, Called(key="c2", how=gathered.how)),
                two_steps("r"),
            )
        ]
    finally:
        await say("finally")


class Broken(Step):
    how: str


@app.workflow(start=Broken, persistence="in_memory", on_unhandled="cancel")
async def breaker(broken: Broken) -> None:
    try:
        await gather(start(child, Called(key="c", how="wait")), receive(Told, broken.key), await_note(broken.how))
    finally:
        if broken.how == "slowly":
            await delay(timedelta(hours=1))


@routine
async def await_note(how: str) -> str:
    await receive(Asked, how)
    return await fail(how)


async def test_subflows_of_one_gather_start_in_one_commit_while_the_rest_goes_on() -> None:
    async with Simulation(app) as world:
        await world.deliver(Gathered(key="p"))
        top = world.instance("p")
        assert top.result == ["c1 ends", "c2 ends", "r 2"]
        commits = await transactions(world, top)
        assert commits[0] == (
            "subflow",
            ["InstanceStarted", "SubflowStarted", "BookmarkOpened", "SubflowStarted", "BookmarkOpened"],
        )
        assert [reason for reason, _ in commits].count("subflow") == 1


@pytest.mark.parametrize("how", ["at once", "slowly"])
async def test_a_subflow_that_nobody_waits_for_any_more_is_cancelled(how: str) -> None:
    async with Simulation(app) as world:
        await world.deliver(Broken(key="p", how=how))
        assert world.instance("c").status == "idle"
        await world.deliver(Asked(key=how))
        assert world.instance("c").outcome == "cancelled"
        assert world.instance("p").state.subflows == {}
        await world.advance(timedelta(hours=1))
        assert world.instance("p").outcome == "cancelled"


# Commands.


async def test_a_cancelled_parent_cancels_the_subflow_that_it_waits_for() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p", how="wait"))
        await world.command(world.instance("p"), "cancel")
        assert [each.outcome for each in world.instances] == ["cancelled", "cancelled"]
        assert said == ["before", "c begins"]


async def test_a_terminated_parent_terminates_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p", how="wait"))
        await world.command(world.instance("p"), "terminate")
        assert [each.outcome for each in world.instances] == ["terminated", "terminated"]


async def test_a_suspended_parent_suspends_it_and_a_resumed_one_resumes_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p", how="wait"))
        await world.command(world.instance("p"), "suspend")
        assert [each.is_suspended for each in world.instances] == [True, True]
        await world.deliver(Note(key="c"))
        assert world.instance("c").outcome is None
        await world.command(world.instance("p"), "resume")
        assert world.instance("p").result == ["before", "c", "after"]


async def test_a_subflow_that_was_suspended_before_goes_on_with_its_parent() -> None:
    async with Simulation(app) as world:
        await world.deliver(Started(key="p", how="suspend and wait"))
        assert world.instance("c").is_suspended
        for command in ("suspend", "resume"):
            await world.command(world.instance("p"), command)
        await world.deliver(Note(key="c"))
        assert world.instance("p").result == ["before", "c ends", "after"]


# Hosts that die.


async def start_one(world: Simulation) -> None:
    await world.deliver(Started(key="p", how="wait"))
    await world.deliver(Note(key="c"))


async def start_in_steps(world: Simulation) -> None:
    await world.deliver(StartedInSteps(key="p"))


async def spawn_one(world: Simulation) -> None:
    await world.deliver(Spawned(key="p"))


async def gather_some(world: Simulation) -> None:
    await world.deliver(Gathered(key="p"))


async def break_off(world: Simulation) -> None:
    await world.deliver(Broken(key="p", how="at once"))
    await world.deliver(Asked(key="at once"))


# Protocol: D14, D15, I13, I14.
@pytest.mark.parametrize(
    "scenario", [start_one, start_in_steps, spawn_one, gather_some, break_off], ids=lambda s: s.__name__
)
async def test_a_host_that_dies_anywhere_starts_a_subflow_once_and_its_end_is_told_once(
    scenario: Callable[[Simulation], Awaitable[None]],
) -> None:
    await crash_prover(app, scenario)
