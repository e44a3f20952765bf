"""Messages that wait too long, or in too great a number, go into the inbox; rows M5 to M8 of the protocol."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.engine.ack_deadline import look_after_unacked
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.backlogs import LONG_AGO
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import StorageError
from holdfast.schemas.message import Message

app = App("slow")


class Begun(Message, correlation="key"):
    key: str
    items: int = 3


class Forgetful(Message, correlation="key"):
    key: str


class Item(Message, correlation="key"):
    key: str
    number: int


gates: dict[str, asyncio.Event] = {}
worked: list[str] = []


@app.activity
async def work(key: str, number: int) -> None:
    gate = gates.get(key)
    if gate is not None:
        await gate.wait()
    worked.append(f"{key}{number}")


@app.workflow(start=Begun)
async def collect(begun: Begun) -> list[int]:
    numbers: list[int] = []
    await work(begun.key, 0)
    while len(numbers) < begun.items:
        item = await receive(Item, begun.key)
        await work(begun.key, item.number)
        numbers.append(item.number)
    return numbers


@app.workflow(start=Forgetful, on_idle="none", time_to_unload=timedelta(days=1))
async def forgetful(begun: Forgetful) -> list[int]:
    return [(await receive(Item, begun.key)).number, (await receive(Item, begun.key)).number]


@pytest.fixture(autouse=True)
def _open_gates() -> None:
    gates.clear()
    worked.clear()


def item(number: int, key: str = "k") -> Item:
    return Item(key=key, number=number)


async def settle(world: World, host: SimulatedHost, seconds: float) -> None:
    await world.advance(seconds)
    look_after_unacked(host.engine)
    await world.rest()


async def end_as_killed(world: World, host: SimulatedHost) -> SimulatedHost:
    await host.die()
    world.store.tables.hosts[host.runtime.host_id].expiration = world.time
    successor = await world.host()
    await successor.detect()
    return successor


async def test_what_a_long_burst_has_taken_is_stored_and_its_commit_settles_it() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    gates["k"] = asyncio.Event()
    start = await host.deliver(Begun(key="k", items=0), "m0")
    await settle(world, host, 59)
    assert start.count == 0
    await settle(world, host, 2)
    assert start.acked
    assert world.verdict("m0") == ("buffered", None)
    gates["k"].set()
    await world.rest()
    assert world.verdict("m0") == ("applied", None)
    assert world.state.result == []
    assert worked == ["k0"]


async def test_a_message_that_waited_long_in_its_queue_has_its_time_from_the_delivery_on() -> None:
    world = World(app)
    host = await world.host()
    gates["k"] = asyncio.Event()
    envelope = Begun(key="k").envelope("m")
    host.engine.deliver(Arrival(envelope=envelope, received_at=LONG_AGO, delivered_at=host.runtime.now()))
    await settle(world, host, 200)
    assert world.verdict("m") is None
    await settle(world, host, 200)
    assert world.verdict("m") == ("buffered", None)


async def test_what_waited_long_in_its_queue_is_stored_as_of_now_and_as_of_its_partition() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    gates["k"] = asyncio.Event()
    host.engine.deliver(
        Arrival(
            envelope=Begun(key="k", items=0).envelope("m"),
            received_at=LONG_AGO,
            delivered_at=host.runtime.now(),
            from_backlog=True,
            partition=0,
        )
    )
    await settle(world, host, 61)
    assert world.verdict("m") == ("buffered", None)
    row = world.store.tables.inbox["m"]
    assert row.received_at == world.time
    assert (row.message.received_at, row.message.partition) == (LONG_AGO, 0)
    gates["k"].set()
    await world.rest()
    assert world.verdict("m") == ("applied", None)
    assert world.state.result == []


async def test_what_a_long_burst_has_taken_survives_its_host() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    gates["k"] = asyncio.Event()
    start = await host.deliver(Begun(key="k", items=1), "m0")
    await settle(world, host, 61)
    assert start.acked
    gates["k"].set()
    await end_as_killed(world, host)
    assert world.verdict("m0") == ("applied", None)
    assert worked == ["k0"]


async def test_what_waits_behind_a_long_burst_is_stored_in_order() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    await host.deliver(Begun(key="k", items=4), "m0")
    gates["k"] = asyncio.Event()
    items = [host.put(item(number).envelope(f"m{9 - number}")) for number in (1, 2, 3)]
    await world.rest()
    await settle(world, host, 61)
    assert all(each.acked for each in items)
    assert [world.verdict(f"m{number}") for number in (8, 7, 6)] == [("buffered", None)] * 3
    items.append(await host.deliver(item(4), "m9"))
    gates["k"].set()
    await world.rest()
    assert world.state.result == [1, 2, 3, 4]
    assert all(each.acked for each in items)


async def test_a_message_stored_late_counts_from_when_it_came() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    await host.deliver(Begun(key="k"), "m0")
    gates["k"] = asyncio.Event()
    came = world.time
    for number in (1, 2):
        host.put(item(number).envelope(f"m{number}"))
    await settle(world, host, 61)
    assert world.store.tables.inbox["m2"].message.received_at == came


async def test_a_flood_for_one_slow_instance_leaves_half_of_the_prefetch_to_others() -> None:
    world = World(app, prefetch=20)
    host = await world.host()
    await host.deliver(Begun(key="k", items=100), "s")
    gates["k"] = asyncio.Event()
    unacked: list[Delivered] = []
    for number in range(100):
        unacked.append(await host.deliver(item(number), f"m{number:03}"))
        assert sum(not each.acked for each in unacked) <= 12
    await host.deliver(Begun(key="other", items=0), "o")
    assert worked[-1] == "other0"
    gates["k"].set()
    for _ in range(30):
        await world.rest()
    (_, row), _ = world.store.tables.instances.items()
    assert row.is_completed
    assert [w for w in worked if w.startswith("k")] == [f"k{n}" for n in (0, *range(100))]
    assert all(each.acked for each in unacked)
    assert host.engine.backlog.total() == 0


async def test_slow_bursts_hold_no_more_than_half_of_the_prefetch() -> None:
    world = World(app, prefetch=20)
    host = await world.host()
    starts = []
    for number in range(20):
        gates[f"k{number}"] = asyncio.Event()
        starts.append(await host.deliver(Begun(key=f"k{number}", items=0), f"s{number}"))
    assert not any(each.acked for each in starts)
    await settle(world, host, 6)
    assert [each.acked for each in starts] == [True] * 10 + [False] * 10
    for gate in gates.values():
        gate.set()
    await world.rest()
    assert all(each.acked for each in starts)
    assert all(row.is_completed for row in world.store.tables.instances.values())


async def test_what_idles_unpersisted_keeps_its_messages_in_the_inbox_beyond_the_deadline() -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    deliveries = [await host.deliver(Forgetful(key="k"), "m0"), await host.deliver(item(1), "m1")]
    await settle(world, host, 61)
    assert all(each.acked for each in deliveries)
    assert await world.events() == []
    host.engine.look_after_unpersisted()
    await world.rest()
    assert await world.events() == []
    successor = await end_as_killed(world, host)
    await successor.deliver(item(2), "m2")
    assert world.state.result == [1, 2]
    assert [world.verdict(f"m{number}") for number in range(3)] == [("applied", None)] * 3


async def test_a_store_that_fails_meanwhile_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(app, ack_deadline=60)
    host = await world.host()
    await host.deliver(Begun(key="k"), "m0")
    gates["k"] = asyncio.Event()
    items = [host.put(item(number).envelope(f"m{number}")) for number in (1, 2, 3)]
    take_in: Callable[[Any], Awaitable[Any]] = world.store.take_in

    async def fail(intakes: Any) -> Any:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "take_in", fail)
        await settle(world, host, 61)
        await world.advance(2)
        assert [each.count for each in items[1:]] == [0, 0]
    assert world.store.take_in == take_in
    await world.advance(1)
    gates["k"].set()
    await world.rest()
    assert world.state.result == [1, 2, 3]
    assert [each.count for each in items] == [1, 1, 1]


async def test_a_full_mailbox_makes_dead_letters_that_can_be_seen() -> None:
    world = World(app, max_mailbox=3)
    host = await world.host()
    early = [await host.deliver(item(number), f"m{number}") for number in range(5)]
    assert all(each.acked for each in early)
    assert [world.verdict(f"m{number}") for number in range(5)] == [("buffered", None)] * 3 + [
        ("dead_lettered", "mailbox_full")
    ] * 2
    other = await host.deliver(item(1, key="other"), "o1")
    assert other.acked
    assert world.verdict("o1") == ("buffered", None)
    again = await host.deliver(item(0), "m0", redelivered=True)
    assert again.acked
    assert world.verdict("m0") == ("buffered", None)


async def test_what_is_stored_while_the_instance_looks_comes_before_what_came_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(app, prefetch=4)
    host = await world.host()
    await host.deliver(Begun(key="k", items=6), "m0")
    looking, go_on = asyncio.Event(), asyncio.Event()
    wakeups = world.store.wakeups

    async def look(*arguments: Any) -> Any:
        found = await wakeups(*arguments)
        looking.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "wakeups", look)
        host.put(item(1).envelope("m1"))
        await world.rest()
        assert looking.is_set()
        for number in (2, 3, 4, 5, 6):
            await host.deliver(item(number), f"m{number}")
        assert ("buffered", None) in {world.verdict(f"m{number}") for number in (2, 3, 4)}
    go_on.set()
    await world.rest()
    assert world.state.result == [1, 2, 3, 4, 5, 6]


async def test_what_is_stored_for_others_to_find_comes_behind_what_the_instance_has_taken() -> None:
    world = World(app, prefetch=4)
    host = await world.host()
    await host.deliver(Begun(key="k", items=5), "m0")
    gates["k"] = asyncio.Event()
    for number in (1, 2, 3, 4, 5):
        await host.deliver(item(number), f"m{number}")
    assert world.verdict("m2") == ("buffered", None)
    gates["k"].set()
    successor = await end_as_killed(world, host)
    for number in (1, 2, 3, 4, 5):
        await successor.deliver(item(number), f"m{number}", redelivered=True)
    assert world.state.result == [1, 2, 3, 4, 5]


async def test_what_another_host_stored_last_comes_before_what_this_one_is_given_next() -> None:
    world = World(app)
    host, other = await world.host(), await world.host()
    await host.deliver(Begun(key="k", items=2), "m0")
    await other.deliver(item(1), "m1")
    assert world.verdict("m1") == ("buffered", None)
    host.engine.look_again(0)
    await host.deliver(item(2), "m2")
    assert world.state.result == [1, 2]
