"""The idle policy: when an instance that waits is persisted and let go of, and what it hears meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, first_of, receive, send
from holdfast.processor.language.subflows import start
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import AppError, KeyInUse
from holdfast.schemas.message import Message

app = App("idlers")


class Begun(Message, correlation="key"):
    key: str


class Hasty(Message, correlation="key"):
    key: str


class Lazy(Message, correlation="key"):
    key: str


class Stranger(Message, correlation="key"):
    key: str


class Parent(Message, correlation="key"):
    key: str


class Part(Message, correlation="key"):
    key: str
    number: int


class Sum(Message, correlation="key"):
    key: str
    total: int


effects: list[str] = []
failing: dict[str, int] = {}


@app.activity
async def add(total: int, number: int) -> int:
    effects.append(f"{total}+{number}")
    if failing.get(f"{number}", 0) > 0:
        failing[f"{number}"] -= 1
        raise ValueError(number)
    return total + number


@app.workflow(start=Begun, persistence="in_memory", time_to_persist=timedelta(seconds=10), on_unhandled="abandon")
async def patient(begun: Begun) -> int:
    total = 0
    for _ in range(3):
        part = await receive(Part, begun.key)
        total = await add(total, part.number)
    await send(Sum(key=begun.key, total=total))
    return total


@app.workflow(start=Hasty, on_idle="unload")
async def hasty(begun: Hasty) -> int:
    part = await receive(Part, begun.key)
    return part.number


@app.workflow(start=Lazy, on_idle="none", time_to_unload=timedelta(hours=1))
async def lazy(begun: Lazy) -> str:
    outcome = await first_of(part=receive(Part, begun.key), late=delay(timedelta(minutes=20)))
    await delay(timedelta(seconds=30))
    return outcome.name


@app.workflow(start=Stranger, on_idle="none")
async def stranger(begun: Stranger) -> int:
    part = await receive(Part, f"{begun.key}-other")
    return part.number


@app.workflow(start=Parent)
async def parent(begun: Parent) -> str:
    return await start(lazy, Lazy(key=f"{begun.key}-child"))


@pytest.fixture(autouse=True)
def _clean() -> None:
    effects.clear()
    failing.clear()


@pytest.fixture
async def world() -> World:
    return World(app)


@pytest.fixture
async def host(world: World) -> SimulatedHost:
    return await world.host()


def part(number: int) -> Part:
    return Part(key="k", number=number)


async def test_an_instance_that_is_woken_in_time_needs_no_persistence_point(world: World, host: SimulatedHost) -> None:
    deliveries = [await host.deliver(Begun(key="k"), "m0")]
    for number in (1, 2):
        await world.advance(4)
        deliveries.append(await host.deliver(part(number), f"m{number}"))
    assert await world.events() == []
    assert [each.acked for each in deliveries] == [False] * 3
    deliveries.append(await host.deliver(part(3), "m3"))
    assert all(each.acked for each in deliveries)
    assert world.state.result == 6
    assert (await world.types()).count("BookmarkOpened") == 3
    assert [world.verdict(f"m{number}") for number in range(4)] == [("applied", None)] * 4


async def test_an_instance_persists_after_time_to_persist_and_messages_are_acked(
    world: World, host: SimulatedHost
) -> None:
    start = await host.deliver(Begun(key="k"), "m0")
    await world.advance(9.9)
    assert start.count == 0
    await world.advance(0.2)
    assert start.acked
    assert await world.commits() == ["idle"]
    assert world.state.execution_status == "idle"
    first = await host.deliver(part(1), "m1")
    await world.advance(10.1)
    assert first.acked
    assert await world.commits() == ["idle", "idle"]


async def test_on_idle_unload_persists_and_lets_go_at_once(world: World, host: SimulatedHost) -> None:
    await host.deliver(Hasty(key="k"), "m0")
    assert await world.commits() == ["unload"]
    assert world.state.execution_status == "idle"
    assert host.engine.held == {}
    assert world.row.owner is None
    await host.deliver(part(7), "m1")
    assert world.state.result == 7


async def test_what_lay_in_the_inbox_before_is_not_missed_by_what_unloads_at_once(
    world: World, host: SimulatedHost
) -> None:
    await host.deliver(part(7), "m1")
    await host.deliver(Hasty(key="k"), "m0")
    assert world.state.result == 7


async def test_on_idle_none_stays_in_memory_and_its_timers_fire_from_there(world: World, host: SimulatedHost) -> None:
    await host.deliver(Lazy(key="k"), "m0")
    await world.advance(19 * 60)
    assert not world.row.is_initialized
    await world.advance(2 * 60)
    assert world.state.result == "late"
    assert await world.commits() == ["completed"]
    assert (await world.types()).count("TimerFired") == 2


async def test_what_idles_unpersisted_hears_what_lay_in_the_inbox(world: World, host: SimulatedHost) -> None:
    early = [await host.deliver(part(number), f"m{number}") for number in (1, 2, 3)]
    assert all(each.acked for each in early)
    await host.deliver(Begun(key="k"), "m0")
    assert world.state.result == 6
    assert await world.commits() == ["completed"]


async def test_what_another_host_stored_is_found_at_the_next_look(world: World, host: SimulatedHost) -> None:
    await host.deliver(Begun(key="k"), "m0")
    other = await world.host()
    stored = await other.deliver(part(1), "m1")
    assert stored.acked
    assert effects == []
    host.engine.look_after_unpersisted()
    await world.rest()
    assert effects == ["0+1"]


async def test_hints_have_no_instance_that_idles_unpersisted_look_more_often(
    world: World, host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(host.engine, "look_after_unpersisted", lambda: looks.append(world.monotonic()))
    detecting = asyncio.create_task(host.detection.run())
    for _ in range(52):
        host.detection.hint()
        await world.advance(0.2)
    detecting.cancel()
    assert len(looks) == 3


async def test_a_timer_that_waits_for_a_backlog_keeps_no_instance_that_idles_unpersisted_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(app, timer_grace=3600)
    host = await world.host()
    await host.deliver(Lazy(key="k"), "m0")
    host.engine.backlogs.open(0)
    await world.advance(20 * 60 + 1)
    alarms, sleep = 0, world.sleep

    async def count(seconds: float) -> None:
        nonlocal alarms
        alarms += 1
        await sleep(seconds)

    monkeypatch.setattr(world, "sleep", count)
    await world.advance(10)
    assert 0 < alarms <= 11
    host.engine.backlogs.close(0)
    await world.advance(1)
    (holding,) = host.engine.held.values()
    assert holding.instance.waiting_for(Part.message_type, "k") is None


async def test_what_waits_for_another_key_than_its_own_persists_at_once(world: World, host: SimulatedHost) -> None:
    await host.deliver(Stranger(key="k"), "m0")
    assert await world.commits() == ["idle"]
    await host.deliver(Part(key="k-other", number=5), "m1")
    assert world.state.result == 5


@pytest.mark.parametrize("partitions", [1, 8])
async def test_a_child_whose_messages_may_come_to_another_host_persists_at_once(partitions: int) -> None:
    world = World(app, partitions=partitions)
    host = await world.host()
    await host.deliver(Parent(key="k"), "m0")
    await host.detect()
    (child,) = [row for row in world.store.tables.instances.values() if row.registration.workflow == "lazy"]
    assert child.is_initialized is (partitions > 1)


async def test_a_command_makes_a_persistence_point_of_what_idles_unpersisted(world: World, host: SimulatedHost) -> None:
    start = await host.deliver(Lazy(key="k"), "m0")
    await host.command(world.instance_id, "suspend")
    assert start.acked
    assert await world.commits() == ["requested", "suspended"]
    assert world.state.is_suspended
    assert set(world.state.bookmarks) == {"0.1/part", "0.1/late"}


@pytest.mark.parametrize("command", ["cancel", "terminate"])
async def test_what_idles_unpersisted_can_be_ended(world: World, host: SimulatedHost, command: str) -> None:
    start = await host.deliver(Lazy(key="k"), "m0")
    await host.command(world.instance_id, command)
    assert start.acked
    assert world.state.outcome == {"cancel": "cancelled", "terminate": "terminated"}[command]


async def test_a_double_of_what_was_taken_makes_a_persistence_point_and_is_a_duplicate(
    world: World, host: SimulatedHost
) -> None:
    starts = [await host.deliver(Begun(key="k"), "m0"), await host.deliver(Begun(key="k"), "m0", redelivered=True)]
    parts = [await host.deliver(part(1), "m1"), await host.deliver(part(1), "m1")]
    assert all(each.acked for each in (*starts, *parts))
    assert effects == ["0+1"]
    assert (await world.types()).count("MessageReceived") == 1
    assert len(world.store.tables.instances) == 1


async def test_a_dead_host_leaves_nothing_of_what_was_not_persisted(world: World, host: SimulatedHost) -> None:
    deliveries = [await host.deliver(Begun(key="k"), "m0"), await host.deliver(part(1), "m1")]
    assert not any(each.acked for each in deliveries)
    await host.die()
    world.store.tables.hosts[host.runtime.host_id].expiration = world.time
    successor = await world.host()
    again = [
        await successor.deliver(Begun(key="k"), "m0", redelivered=True),
        await successor.deliver(part(1), "m1", redelivered=True),
    ]
    assert all(each.acked for each in again)
    for number in (2, 3):
        await successor.deliver(part(number), f"m{number}")
    assert world.state.result == 6
    assert len(world.store.tables.instances) == 1


async def test_a_message_that_fails_takes_no_good_one_along(world: World, host: SimulatedHost) -> None:
    failing["2"] = 99
    good = [await host.deliver(Begun(key="k"), "m0"), await host.deliver(part(1), "m1")]
    bad = await host.deliver(part(2), "m2")
    await world.advance(60)
    assert bad.acked
    assert all(each.acked for each in good)
    assert world.verdict("m2") == ("dead_lettered", "unhandled_exception")
    assert world.verdict("m1") == ("applied", None)
    for number in (3, 4):
        await host.deliver(part(number), f"m{number}")
    assert world.state.result == 8


async def test_a_host_that_stops_persists_what_idles_unpersisted(world: World, host: SimulatedHost) -> None:
    start = await host.deliver(Lazy(key="k"), "m0")
    assert await host.engine.drain(5)
    assert start.acked
    assert await world.commits() == ["shutdown"]
    assert world.state.execution_status == "idle"


async def test_a_host_that_stops_while_the_store_fails_drops_it_unacked(
    world: World, host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await host.deliver(Lazy(key="k"), "m0")

    async def fail(batches: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr(host.runtime.commit, "_serve", fail)
    assert await host.engine.drain(5)
    assert not start.acked


async def test_what_is_unloaded_is_persisted_first(world: World, host: SimulatedHost) -> None:
    await host.deliver(Lazy(key="k"), "m0")
    await host.engine.unload_idle(0)
    await world.rest()
    assert await world.commits() == ["unload"]
    assert host.engine.held == {}
    assert world.state.execution_status == "idle"
    await host.deliver(part(1), "m1")
    await world.advance(31)
    assert world.state.result == "part"


async def test_a_stored_timer_that_a_message_overtook_in_memory_is_closed_in_the_store(
    world: World, host: SimulatedHost
) -> None:
    await host.deliver(Lazy(key="k"), "m0")
    await host.engine.unload_idle(0)
    await world.rest()
    await world.advance(20 * 60 - 5)
    await host.deliver(part(1), "m1")
    assert await world.commits() == ["unload"]
    await world.advance(6)
    await host.detect()
    assert await world.commits() == ["unload", "idle"]
    await world.advance(30)
    await host.detect()
    assert world.state.result == "part"


async def test_a_key_in_use_is_raised_at_the_await_when_the_bookmark_is_persisted() -> None:
    quarrel = App("quarrel")

    @quarrel.activity
    async def tell(part: Part) -> None: ...

    outcomes: list[str] = []

    @quarrel.activity
    async def note(what: str) -> None:
        outcomes.append(what)

    globals().update(note=note)
    quarrel.workflow(start=Begun, on_idle="none")(_quarrels)
    quarrel.workflow(start=Hasty)(_holds)
    world = World(quarrel)
    host = await world.host()
    await host.deliver(Begun(key="k"), "m0")
    await host.deliver(Hasty(key="k"), "m1")
    assert outcomes == []
    await host.engine.unload_idle(0)
    await world.rest()
    assert outcomes == ["KeyInUse"]


async def note(what: str) -> None:
    """Stand in for an activity until the test makes one."""


async def _quarrels(begun: Begun) -> None:
    try:
        await receive(Part, begun.key)
    except KeyInUse as error:
        await note(type(error).__name__)


async def _holds(begun: Hasty) -> None:
    await receive(Part, begun.key)


@pytest.mark.parametrize(
    "options",
    [
        {"time_to_persist": timedelta(seconds=-1)},
        {"time_to_unload": timedelta(seconds=-1)},
        {"on_idle": "sleep"},
        {"on_idle": "none", "time_to_persist": timedelta(seconds=1)},
        {"on_idle": "unload", "time_to_unload": timedelta(seconds=1)},
        {"on_idle": "unload", "time_to_persist": timedelta(seconds=1)},
        {"time_to_persist": timedelta(seconds=2), "time_to_unload": timedelta(seconds=1)},
    ],
)
def test_an_idle_policy_that_makes_no_sense_is_refused(options: Any) -> None:
    with pytest.raises(AppError):
        App("nonsense").workflow(start=Hasty, **options)(_holds)
