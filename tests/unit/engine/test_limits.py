"""What a host takes on at a time: bursts, of one workflow and of all, and loaded instances."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.backlogs import LONG_AGO
from holdfast.processor.engine.slots import Slots
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message

app = App("bounded")


class Common(Message, correlation="key"):
    key: str


class Few(Message, correlation="key"):
    key: str


class Waiting(Message, correlation="key"):
    key: str


class Item(Message, correlation="key"):
    key: str
    number: int = 0


running: Counter[str] = Counter()
most: Counter[str] = Counter()
order: list[str] = []
gates: dict[str, asyncio.Event] = {}


@contextmanager
def counted(name: str) -> Iterator[None]:
    running[name] += 1
    most[name] = max(most[name], running[name])
    most["all"] = max(most["all"], running.total())
    try:
        yield
    finally:
        running[name] -= 1


@app.activity
async def work(name: str, key: str) -> None:
    with counted(name):
        order.append(key)
        await gates["all"].wait()


@app.workflow(start=Common)
async def unlimited(started: Common) -> None:
    await work("unlimited", started.key)


@app.workflow(start=Few, max_bursts=2)
async def limited(started: Few) -> None:
    await work("limited", started.key)


@app.workflow(start=Waiting)
async def waiting(started: Waiting) -> int:
    taken = 0
    while taken < 5:
        item = await receive(Item, started.key)
        order.append(f"{started.key}{item.number}")
        taken += 1
    return taken


@pytest.fixture(autouse=True)
def _fresh() -> None:
    gates["all"] = asyncio.Event()
    for each in (running, most, order):
        each.clear()


async def test_no_more_instances_run_at_a_time_than_may() -> None:
    world = World(app, max_bursts=3)
    host = await world.host()
    starts = [host.put(Common(key=f"k{number}").envelope(f"m{number}")) for number in range(10)]
    await world.rest()
    assert order == ["k0", "k1", "k2"]
    gates["all"].set()
    for _ in range(5):
        await world.rest()
    assert most["all"] == 3
    assert order == [f"k{number}" for number in range(10)]
    assert all(start.acked for start in starts)


async def test_a_workflow_at_its_limit_holds_up_no_other() -> None:
    world = World(app, max_bursts=4)
    host = await world.host()
    for number in range(6):
        host.put(Few(key=f"few{number}").envelope(f"f{number}"))
    await world.rest()
    host.put(Common(key="any").envelope("a"))
    await world.rest()
    assert order == ["few0", "few1", "any"]
    gates["all"].set()
    for _ in range(5):
        await world.rest()
    assert most["limited"] == 2
    assert all(row.is_completed for row in world.store.tables.instances.values())


async def test_an_instance_with_much_to_do_keeps_nobody_waiting() -> None:
    world = World(app, max_bursts=1)
    host = await world.host()
    for key in ("a", "b"):
        await host.deliver(Waiting(key=key), key)
    for key in ("a", "b"):
        for number in range(3):
            host.put(Item(key=key, number=number).envelope(f"{key}{number}"))
    await world.rest()
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_a_slot_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    slots = Slots(1, ())
    await slots.take("w")
    first, second = asyncio.create_task(slots.take("w")), asyncio.create_task(slots.take("w"))
    await asyncio.sleep(0)
    first.cancel()
    slots.give_back("w")
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert not second.cancelled()


async def test_beyond_max_loaded_the_instance_idle_for_longest_is_let_go_of() -> None:
    world = World(app, max_loaded=3)
    host = await world.host()
    for key in "abc":
        await host.deliver(Waiting(key=key), key)
    await host.deliver(Item(key="a"), "a0")
    await host.deliver(Waiting(key="d"), "d")
    held = {holding.instance.loaded.correlation_key for holding in host.engine.held.values()}
    assert held == {"c", "a", "d"}
    await host.deliver(Item(key="b"), "b0")
    assert order == ["a0", "b0"]
    assert len(host.engine.held) == 3


async def test_what_has_no_place_waits_unacked_and_then_in_the_inbox() -> None:
    world = World(app, max_loaded=1, ack_deadline=60)
    host = await world.host()
    busy = await host.deliver(Common(key="busy"), "m0")
    late = await host.deliver(Common(key="late"), "m1")
    await world.advance(59)
    assert late.count == 0
    await world.advance(2)
    assert late.acked
    assert world.verdict("m1") == ("buffered", None)
    await host.detect()
    assert order == ["busy"]
    hints: list[None] = []
    host.runtime.hint = lambda: hints.append(None)
    gates["all"].set()
    await world.rest()
    assert busy.acked
    assert hints == [None]
    await host.detect()
    assert order == ["busy", "late"]
    assert world.verdict("m1") == ("applied", None)


async def test_what_waited_long_in_its_queue_waits_for_a_place_all_the_same() -> None:
    world = World(app, max_loaded=1, ack_deadline=60)
    host = await world.host()
    await host.deliver(Common(key="busy"), "m0")
    now = host.runtime.now()
    host.engine.deliver(
        Arrival(envelope=Common(key="late").envelope("m1"), received_at=LONG_AGO, delivered_at=now, from_backlog=True)
    )
    await world.advance(59)
    assert world.verdict("m1") is None
    await world.advance(2)
    assert world.verdict("m1") == ("buffered", None)


async def test_a_message_that_waits_for_a_place_does_not_hold_up_the_detection_of_what_can_run() -> None:
    world = World(app, max_loaded=1, ack_deadline=60)
    host = await world.host()
    await host.deliver(Waiting(key="w"), "w")
    instance_id = world.instance_id
    await host.engine.unload_idle(0)
    await host.deliver(Common(key="busy"), "m0")
    late = await host.deliver(Item(key="w", number=7), "i0")
    commanding = asyncio.create_task(host.command(instance_id, "persist"))
    for _ in range(3):
        await world.rest()
    assert commanding.done()
    assert late.count == 0
    gates["all"].set()
    await world.rest()
    assert late.acked
    assert order == ["busy", "w7"]
    assert world.verdict(await commanding) == ("applied", "not_loaded")


async def test_who_waits_for_a_place_gets_that_of_one_that_becomes_idle() -> None:
    world = World(app, max_loaded=1)
    host = await world.host()
    await host.deliver(Common(key="busy"), "m0")
    starts = [host.put(Waiting(key=f"w{number}").envelope(f"w{number}")) for number in range(3)]
    await world.rest()
    gates["all"].set()
    for _ in range(5):
        await world.rest()
    assert all(start.acked for start in starts)
    assert len(host.engine.held) == 1
    for number in range(3):
        await host.deliver(Item(key=f"w{number}"), f"i{number}")
    assert order == ["busy", "w00", "w10", "w20"]


async def test_a_thousand_starts_at_once_all_finish_within_the_limits() -> None:
    world = World(app, max_bursts=20, max_loaded=50)
    host = await world.host()
    gates["all"].set()
    starts = [host.put(Common(key=f"k{number}").envelope(f"m{number}")) for number in range(1000)]
    most_held = 0
    while not all(start.acked for start in starts):
        await asyncio.sleep(0)
        most_held = max(most_held, len(host.engine.held))
    assert most["all"] <= 20
    assert most_held <= 50
    assert host.engine.held == {}


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_bursts_that_lets_nothing_run_is_refused(limit: int) -> None:
    with pytest.raises(AppError):
        App("nonsense").workflow(start=Few, max_bursts=limit)(limited)
