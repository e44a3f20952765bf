"""Instances that are cancelled, terminated or resolved while more than one thing is under way."""

import asyncio

import pytest

from holdfast import (
    ActivityInDoubt,
    App,
    Message,
    compensable,
    compensate,
    gather,
    receive,
    routine,
    run,
    start,
)
from holdfast.processor.testing.world import ROUNDS
from holdfast.testing import Simulation

app = App("unwinding")
ran: list[str] = []
banks: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    banks.clear()


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Grown(Begun): ...


class Within(Begun): ...


class Divided(Begun): ...


class Undone(Begun): ...


class Asked(Begun): ...


@app.activity
async def work() -> None:
    """Do nothing."""


@app.activity(repeatable=False)
async def charge(what: str) -> None:
    ran.append(what)
    if what in banks:
        await banks[what].wait()


@app.workflow(start=Grown)
async def child(grown: Grown) -> None:
    await receive(Came, grown.key)


@app.workflow(start=Within, persistence="in_memory")
async def within(begun: Within) -> None:
    await receive(Came, begun.key)


@app.workflow(start=Begun)
async def undo_by_charge(begun: Begun) -> None:
    async with compensable() as scope:
        scope.undo(charge, begun.key)
        await work()
    await compensate(scope)


@app.workflow(start=Divided)
async def divide(begun: Divided) -> str:
    try:
        await gather(charge(begun.key), start(child, Grown(key="child")), run(within, Within(key="within")))
    except ActivityInDoubt:
        await receive(Came, begun.key)
    return "caught"


@routine
async def undo_by_child() -> None:
    await start(child, Grown(key="child"))


@app.workflow(start=Undone)
async def undo(begun: Undone) -> None:
    async with compensable() as scope:
        scope.undo(undo_by_child)
        await work()
    await compensate(scope)


@app.workflow(start=Asked)
async def ask(begun: Asked) -> None:
    await run(within, Within(key="within"))


async def fall_while_charging(world: Simulation, message: Begun) -> None:
    """Deliver a message and have the host fall once a call has begun that must not run twice."""
    banks[message.key] = asyncio.Event()
    await world.deliver(message, rest=False)
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    assert message.key in ran
    await world.crash()
    banks.clear()
    await world.start()
    assert world.instance(message.key).suspension_reason == "in_doubt"


async def test_what_undoes_and_is_in_doubt_stays_so_when_the_instance_is_cancelled() -> None:
    async with Simulation(app) as world:
        await fall_while_charging(world, Begun(key="k"))
        await world.command(world.instance("k"), "cancel")
        assert ran == ["k"]
        assert world.instance("k").suspension_reason == "in_doubt"
        await world.command(world.instance("k"), "resolve", decision="done")
        assert ran == ["k"]
        assert world.instance("k").outcome == "cancelled"


async def test_the_subflows_beside_a_call_that_was_given_up_are_cancelled() -> None:
    async with Simulation(app) as world:
        await fall_while_charging(world, Divided(key="k"))
        await world.command(world.instance("k"), "resolve", decision="fail")
        assert world.instance("child").outcome == "cancelled"
        assert world.instance("within").outcome == "cancelled"
        await world.deliver(Came(key="k"))
        assert world.instance("k").result == "caught"


async def test_a_subflow_that_undoes_is_resumed_when_its_suspended_parent_is_cancelled() -> None:
    async with Simulation(app) as world:
        await world.deliver(Undone(key="k"))
        await world.command(world.instance("k"), "suspend")
        assert world.instance("child").is_suspended
        await world.command(world.instance("k"), "cancel")
        await world.deliver(Came(key="child"))
        assert world.instance("child").outcome == "completed"
        assert world.instance("k").outcome == "cancelled"


async def test_a_subflow_within_is_terminated_with_its_caller_by_a_host_that_only_loaded_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Asked(key="k"))
        await world.crash()
        await world.start()
        await world.command(world.instance("k"), "terminate")
        assert [each.outcome for each in world.instances] == ["terminated", "terminated"]
