"""What could leave an instance standing still for good, or running in circles."""

import asyncio
from datetime import timedelta

import pytest

from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, receive
from holdfast.processor.store.memory_tables import settle
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import StorageError
from holdfast.schemas.message import Message

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
        raise ValueError(f"{key} \x00 \ud800")


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


async def test_what_is_given_back_twice_at_the_same_time_can_be_had_again() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Gave(key="k"), "m0")
    engine = host.engine
    (holding,) = engine.held.values()
    instance_id = holding.instance.instance_id
    engine.forget(holding)
    await asyncio.gather(engine.release([instance_id]), engine.release([instance_id]))
    assert await engine.hold(instance_id) is not None


async def test_a_state_that_cannot_be_read_here_is_left_to_others_and_harms_no_neighbour() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Gave(key="newer"), "m0")
    (row,) = world.store.tables.instances.values()
    await host.deliver(Gave(key="k"), "m1")
    await host.engine.unload_idle(0)
    stored = row.state
    row.state = b'{"format": 2}'
    newer, known = host.put(Went(key="newer").envelope("m2")), host.put(Went(key="k").envelope("m3"))
    await world.rest()
    assert known.acked
    assert newer.acked
    assert world.verdict("m2") == ("buffered", None)
    assert world.verdict("m3") == ("applied", None)
    assert row.owner is None
    row.state = stored
    await host.detect()
    assert row.is_completed


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


async def test_a_correlated_message_revives_an_instance_whose_start_message_was_given_up() -> None:
    world = World(app, max_attempts=1)
    host = await world.host()
    broken.add("k")
    await host.deliver(Gave(key="k"), "m0")
    assert world.verdict("m0") == ("dead_lettered", "unhandled_exception")
    await world.advance(60)
    await host.detect()
    assert calls == ["second k"]
    broken.clear()
    went = await host.deliver(Went(key="k"), "m1")
    assert went.acked
    assert world.state.result == "k"
    assert world.verdict("m0") == ("applied", None)
    assert world.verdict("m1") == ("applied", None)


async def test_a_start_message_that_was_dropped_starts_nothing_when_it_comes_again() -> None:
    world = World(app, max_attempts=1)
    host = await world.host()
    broken.add("k")
    await host.deliver(Gave(key="k"), "m0")
    settle(world.store.tables.inbox["m0"], "rejected", reason="dropped")
    broken.clear()
    for redelivered in (False, True):
        again = await host.deliver(Gave(key="k"), "m0", redelivered=redelivered)
        assert again.acked
    assert calls == ["second k"]
    assert not world.row.is_initialized


async def test_what_was_counted_of_a_burst_is_forgotten_once_it_committed() -> None:
    world = World(app)
    deadly.add("k")
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    for _ in range(2):
        await host.die()
        world.store.tables.hosts.pop(host.runtime.host_id)
        host = await world.host()
        await host.detect()
    assert world.store.tables.burst_attempts == {world.instance_id: {"taken_over": 2, "alone": 1}}
    await host.die()
    world.store.tables.hosts.pop(host.runtime.host_id)
    deadly.clear()
    await (await world.host()).detect()
    assert world.state.result == "k"
    assert world.store.tables.burst_attempts == {}


# Protocol: D13.
async def test_a_burst_that_takes_its_hosts_down_ends_in_suspension() -> None:
    world = World(app, max_attempts=3)
    deadly.add("bad")
    host = await world.host()
    await host.deliver(Began(key="bad"), "m0")
    for _ in range(10):
        await host.die()
        world.store.tables.hosts.pop(host.runtime.host_id)
        host = await world.host()
        await host.detect()
        await host.deliver(Began(key=f"good {world.new_id()}"), str(world.new_id()))
    assert 3 <= calls.count("second bad") <= 6
    bad = next(r for r in world.store.tables.instances.values() if r.registration.correlation_key == "bad")
    assert (bad.is_suspended, bad.suspension_reason) == (True, "attempts_exhausted")
    others = [r for r in world.store.tables.instances.values() if r is not bad]
    assert all(r.is_completed for r in others)
