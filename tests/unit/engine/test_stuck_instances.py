"""What could leave an instance standing still for good, or running in circles."""

import asyncio
from datetime import timedelta

import pytest

from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, receive
from holdfast.schemas.errors import StorageError
from holdfast.schemas.message import Message
from tests.support.simulation import SimulatedHost, World

app = App("stuck")
calls: list[str] = []
broken: set[str] = set()
deadly: set[str] = set()
victims: list[SimulatedHost] = []


class Began(Message, correlation="key"):
    key: str


class Gave(Message, correlation="key"):
    key: str


class Postponed(Message, correlation="key"):
    key: str


class Asked(Message, correlation="key"):
    key: str


class Went(Message, correlation="key"):
    key: str


class StrayError(BaseException):
    """Not an ``Exception``."""


@app.activity
async def first(key: str) -> None:
    calls.append(f"first {key}")


@app.activity(retry=Retry(attempts=1))
async def second(key: str) -> None:
    calls.append(f"second {key}")
    if key in deadly:
        for host in victims:
            host.engine.stopping = True
        await asyncio.get_running_loop().create_future()
    if key in broken:
        raise ValueError(key)


@app.activity(retry=Retry(attempts=1))
async def stray(key: str) -> None:
    if key == "cancelled":
        raise asyncio.CancelledError
    if key == "stray":
        raise StrayError(key)


@app.workflow(start=Began)
async def careful(start: Began) -> str:
    await first(start.key)
    await second(start.key)
    return start.key


@app.workflow(start=Gave, on_unhandled="abandon")
async def given_up(start: Gave) -> str:
    await second(start.key)
    await receive(Went, start.key)
    return start.key


@app.workflow(start=Postponed)
async def postponed(start: Postponed) -> str:
    try:
        await delay(timedelta.max)
    except OverflowError:
        return "out of reach"
    return "never"


@app.workflow(start=Asked)
async def asking(start: Asked) -> str:
    try:
        await stray(start.key)
    except BaseException as error:  # noqa: BLE001  Python lets it be caught so.
        return type(error).__name__
    return "went well"


@pytest.fixture(autouse=True)
def _whole() -> None:
    calls.clear()
    broken.clear()
    deadly.clear()
    victims.clear()


async def test_an_instance_that_fails_again_after_a_resume_stays_suspended() -> None:
    world = World(app)
    host = await world.host()
    broken.add("k")
    await host.deliver(Began(key="k"), "m0")
    await host.command(world.instance_id, "resume")
    for _ in range(3):
        await world.advance(10)
        await host.detect()
    assert calls == ["first k", "second k", "second k"]
    assert world.row.is_suspended
    assert (await world.types())[-3:] == ["InstanceResumed", "InstanceSuspended", "Persisted"]
    broken.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.result == "k"


@pytest.mark.parametrize(("key", "raised"), [("cancelled", "CancelledError"), ("stray", "StrayError")])
async def test_an_activity_may_raise_what_is_no_exception(key: str, raised: str) -> None:
    world = World(app)
    host = await world.host()
    asked = await host.deliver(Asked(key=key), "m0")
    assert asked.acked
    assert world.state.result == raised


async def test_a_time_out_of_reach_is_an_error_at_its_await() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Postponed(key="k"), "m0")
    assert world.state.result == "out of reach"


async def test_a_takeover_that_fails_behind_the_lock_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(app)
    host, deadly_host = await world.host(), await world.host()
    deadly.add("k")
    await deadly_host.deliver(Began(key="k"), "m0")
    await deadly_host.die()
    world.store.tables.hosts.pop(deadly_host.runtime.host_id)
    deadly.clear()
    load = host.runtime.load._serve
    failed: list[object] = []

    async def lock_and_fail(instance_ids: object) -> object:
        answers = await load(instance_ids)  # type: ignore[arg-type]  # Handed through as it comes.
        if not failed:
            failed.append(answers)
            raise StorageError("gone")
        return answers

    monkeypatch.setattr(host.runtime.load, "_serve", lock_and_fail)
    await host.detect()
    assert failed
    await world.advance(10)
    assert world.state.result == "k"


async def test_a_burst_that_meets_a_bug_is_tried_again_without_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(app)
    host, dead = await world.host(), await world.host()
    deadly.add("k")
    await dead.deliver(Began(key="k"), "m0")
    await dead.die()
    world.store.tables.hosts.pop(dead.runtime.host_id)
    deadly.clear()
    commit = host.runtime.commit._serve
    failed: list[object] = []

    async def explode(batches: object) -> object:
        if not failed:
            failed.append(batches)
            raise RuntimeError("bug")
        return await commit(batches)  # type: ignore[arg-type]  # Handed through as it comes.

    monkeypatch.setattr(host.runtime.commit, "_serve", explode)
    await host.detect()
    assert failed
    await world.advance(10)
    await host.detect()
    assert world.state.result == "k"
