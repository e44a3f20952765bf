"""What an instance does from being woken to being idle or closed, and what is durable when."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.engine.activities import activity_context
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import checkpoint, delay, first_of, receive, send
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import KeyInUse
from holdfast.schemas.message import Message

app = App("shop")
calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


class Placed(Message, correlation="order_id"):
    order_id: str
    fate: str = ""


class Paid(Message, correlation="order_id"):
    order_id: str
    amount: int = 0


class Walked(Message, correlation="key"):
    key: str


class Hurried(Message, correlation="key"):
    key: str


class Clumsy(Message, correlation="key"):
    key: str


class Rivalry(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="order_id"):
    order_id: str


@dataclass
class Parcel:
    items: list[str]


@app.activity
async def pick(order_id: str) -> Parcel:
    calls.append(activity_context().idempotency_key)
    return Parcel([order_id])


@app.activity
async def weigh(parcel: Parcel) -> int:
    calls.append(parcel)
    return len(parcel.items)


@app.activity(retry=Retry(attempts=3, delay=timedelta(seconds=1)))
async def shaky(successful_attempt: int) -> int:
    calls.append((activity_context().idempotency_key, activity_context().attempt))
    if activity_context().attempt < successful_attempt:
        raise ConnectionError("shaken")
    return activity_context().attempt


@app.activity(timeout=timedelta(milliseconds=1))
async def endless() -> None:
    await asyncio.get_running_loop().create_future()


@app.activity
async def book(tx: Transaction, order_id: str) -> None:
    await tx.execute("insert into bookings values (%s)", (order_id,))


@app.workflow(start=Placed)
async def order(placed: Placed) -> int:
    parcel = await pick(placed.order_id)
    weight = await weigh(parcel)
    paid = await receive(Paid, placed.order_id)
    parcel.items.append(str(paid.amount))
    await book(placed.order_id)
    await send(Shipped(order_id=placed.order_id))
    return weight + len(parcel.items)


@app.workflow(start=Hurried, persistence="in_memory")
async def hurried(start: Hurried) -> int:
    parcel = await pick(start.key)
    weight = await weigh(parcel)
    await checkpoint()
    return weight + await weigh(parcel)


@app.workflow(start=Walked)
async def walk(start: Walked) -> str:
    result = await shaky(3)
    try:
        await endless()
    except TimeoutError as error:
        calls.append(str(error))
    await delay(timedelta(minutes=1))
    try:
        await receive(Paid, start.key, timeout=timedelta(seconds=30))
    except TimeoutError as error:
        calls.append(str(error))
    outcome = await first_of(paid=receive(Paid, start.key), late=delay(timedelta(hours=1)))
    return f"{result} {outcome.name}"


@app.workflow(start=Clumsy)
async def clumsy(start: Clumsy) -> None:
    parcel = await pick(start.key)
    lock = asyncio.Lock()
    await weigh(parcel)
    await receive(Paid, start.key)
    del lock


@app.workflow(start=Rivalry)
async def rivalry(start: Rivalry) -> str:
    try:
        await receive(Paid, "contested")
    except KeyInUse:
        return start.key + " lost"
    return start.key + " won"


async def test_regular_mode_commits_each_activity_before_the_next_one_starts() -> None:
    world = World(app)
    host = await world.host()
    placed = await host.deliver(Placed(order_id="7"), "m1")
    assert await world.commits() == ["activity_completed", "idle"]
    assert placed.acked
    paid = await host.deliver(Paid(order_id="7", amount=5), "m2")
    assert paid.acked
    assert await world.commits() == ["activity_completed", "idle", "completed"]
    assert world.state.result == 3
    assert world.sql == [("insert into bookings values (%s)", ("7",))]
    assert [(m.message_id, m.type, m.key) for m in world.published] == [(f"{world.instance_id}:7:0", "Shipped", "7")]


async def test_in_memory_mode_commits_a_burst_at_once_and_at_checkpoints() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Hurried(key="1"), "m1")
    assert await world.commits() == ["checkpoint", "completed"]
    assert (await world.types())[:4] == ["InstanceStarted", "ActivityCompleted", "ActivityCompleted", "Persisted"]
    assert world.state.result == 2


async def test_an_instance_is_registered_before_its_first_burst() -> None:
    world = World(app)
    host = await world.host()
    seen: list[bool] = []
    commit = world.store.commit

    async def look(batches: Any) -> Any:
        seen.append(world.row.is_initialized)
        return await commit(batches)

    host.runtime.commit._serve = look
    await host.deliver(Placed(order_id="7"), "m1")
    assert seen == [False, True]


async def test_an_activity_is_tried_again_under_the_same_key_and_fails_at_its_await() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Walked(key="1"), "m1")
    assert len(calls) == 1
    await world.advance(1)
    await world.advance(2)
    assert [attempt for _, attempt in calls[:3]] == [1, 2, 3]
    assert len({key for key, _ in calls[:3]}) == 1


async def test_timers_fire_by_the_clock_of_the_store() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Walked(key="1"), "m1")
    await world.advance(3.001)
    assert calls[-1] == "activity endless took longer than 0:00:00.001000"
    await host.detect()
    assert list(world.state.bookmarks) == ["0.3"]
    await world.advance(60)
    await host.detect()
    assert list(world.state.bookmarks) == ["0.4", "0.4:timeout"]
    await world.advance(30)
    await host.detect()
    assert calls[-1] == "no message came for Paid with key '1' within 0:00:30"
    assert list(world.state.bookmarks) == ["0.5/paid", "0.5/late"]
    await host.deliver(Paid(order_id="1"), "m2")
    assert world.state.result == "3 paid"
    assert world.state.bookmarks == {}


async def test_a_message_that_came_after_the_timer_was_due_loses_against_it() -> None:
    world = World(app, lease=1000)
    host = await world.host()
    await host.deliver(Rivalry(key="a"), "m0")
    await host.deliver(Walked(key="1"), "m1")
    (walker,) = (i for i in world.store.tables.instances if i != next(iter(world.store.tables.instances)))
    await world.advance(3.001)
    assert calls[-1] == "activity endless took longer than 0:00:00.001000"
    for seconds in (60, 30):
        await world.advance(seconds)
        await host.detect()
    await host.die()
    await world.advance(7200)
    other = await world.host()
    await other.deliver(Paid(order_id="1"), "m2")
    await other.detect()
    recorded = await world.events(walker)
    assert type(recorded[-3].event).__name__ == "TimerFired"


async def test_a_variable_that_cannot_be_persisted_suspends_with_its_name_and_line() -> None:
    world = World(app)
    host = await world.host()
    delivered = await host.deliver(Clumsy(key="1"), "m1")
    row = world.row
    assert (row.is_initialized, row.is_suspended, row.suspension_reason) == (False, True, "not_persistable")
    assert row.suspension_exception_name == "NotPersistable"
    assert delivered.acked
    assert world.verdict("m1") == ("buffered", None)


# Protocol: C3.
async def test_a_key_belongs_to_one_instance_and_the_other_can_catch_that() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Rivalry(key="a"), "m1")
    await host.deliver(Rivalry(key="b"), "m2")
    first, second = world.store.tables.instances.values()
    assert first.status == "idle"
    assert second.status == "closed"
    await host.deliver(Paid(order_id="contested"), "m3")
    assert first.status == "closed"


async def test_the_snapshot_survives_a_reload_with_aliases_and_changes_in_place() -> None:
    world = World(app, time_to_unload=0)
    host = await world.host()
    await host.deliver(Placed(order_id="7"), "m1")
    await host.engine.unload_idle(0)
    assert host.engine.held == {}
    assert world.row.owner is None
    await host.deliver(Paid(order_id="7", amount=5), "m2")
    assert world.state.result == 3
