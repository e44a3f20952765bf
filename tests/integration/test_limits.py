"""What a host takes on at a time, on Postgres: floods, ten thousand bursts at once, an exhausted pool."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from holdfast import App, Message, Transaction, receive
from holdfast.processor.engine.arrival import Arrival
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("limits")
gates: dict[str, asyncio.Event] = {}
at_work: dict[str, asyncio.Event] = {}
running: Counter[str] = Counter()
most: Counter[str] = Counter()
watched: list[Callable[[], int]] = []
BURSTS = 10_000
FLOOD = 300


class Hurried(Message, correlation="key"):
    key: str


class Slow(Message, correlation="key"):
    key: str
    items: int


class Item(Message, correlation="key"):
    key: str
    number: int


class Booked(Message, correlation="key"):
    key: str


@app.activity
async def hurry(kind: str) -> None:
    running[kind] += 1
    most[kind] = max(most[kind], running[kind])
    for each in watched:
        most["held"] = max(most["held"], each())
    await asyncio.sleep(0)
    running[kind] -= 1


@app.activity
async def wait() -> None:
    at_work["slow"].set()
    await gates["slow"].wait()


@app.activity
async def book(tx: Transaction) -> None:
    running["book"] += 1
    most["book"] = max(most["book"], running["book"])
    await tx.execute("select 1")
    if running["book"] == 8:
        at_work["book"].set()
    await gates["book"].wait()
    running["book"] -= 1


@app.workflow(start=Hurried, persistence="in_memory")
async def hurried(started: Hurried) -> None:
    await hurry("hurried")


@app.workflow(start=Slow)
async def slow(started: Slow) -> list[int]:
    numbers: list[int] = []
    await wait()
    while len(numbers) < started.items:
        item = await receive(Item, started.key)
        numbers.append(item.number)
    return numbers


@app.workflow(start=Booked)
async def booked(started: Booked) -> None:
    await book()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for events in (gates, at_work):
        events.update(slow=asyncio.Event(), book=asyncio.Event())
    running.clear()
    most.clear()
    watched.clear()


class Sent:
    """A message that was delivered, and whether it was acked."""

    def __init__(self, host: Host, message: Message, message_id: str) -> None:
        self.acked = asyncio.Event()
        envelope = message.envelope(message_id)
        host.engine.deliver(Arrival(envelope=envelope, received_at=host.runtime.now(), settle=self.acked.set))

    @property
    def is_acked(self) -> bool:
        return self.acked.is_set()


async def all_acked(sent: Iterable[Sent]) -> None:
    for each in sent:
        await each.acked.wait()


async def completed(host: Host) -> int:
    return int((await host.ask("select count(*) from holdfast.instances where is_completed"))[0][0])


async def test_ten_thousand_bursts_at_once_all_finish_within_the_limits(database_url: str) -> None:
    settings = Settings(max_bursts=100, max_loaded=300, lease=600)
    async with running_host(app, database_url, settings) as host:
        held = host.engine.held
        watched.append(lambda: len(held))
        await all_acked([Sent(host, Hurried(key=f"k{number}"), f"m{number}") for number in range(BURSTS)])
        assert await completed(host) == BURSTS
    assert most["hurried"] <= 100
    assert most["held"] <= 300


async def test_a_flood_on_one_key_leaves_room_for_others_and_keeps_its_order(database_url: str) -> None:
    async with running_host(app, database_url, Settings(prefetch=100, lease=600)) as host:
        Sent(host, Slow(key="slow", items=FLOOD), "start")
        await at_work["slow"].wait()
        flood = [Sent(host, Item(key="slow", number=number), f"m{FLOOD - number:04}") for number in range(FLOOD)]
        await all_acked(flood[: FLOOD - 50])
        await all_acked([Sent(host, Hurried(key="other"), "other")])
        gates["slow"].set()
        await all_acked(flood)
        await host.rest()
        ((state,),) = await host.ask("select state from holdfast.instances where correlation_key = 'slow'")
    assert state["result"] == list(range(FLOOD))


async def test_a_pool_that_is_exhausted_has_bursts_wait_and_holds_up_nobody_else(database_url: str) -> None:
    async with running_host(app, database_url, Settings(user_connections=8, lease=600)) as host:
        waiting = [Sent(host, Booked(key=f"b{number}"), f"b{number}") for number in range(30)]
        await at_work["book"].wait()
        await all_acked([Sent(host, Hurried(key=f"k{number}"), f"m{number}") for number in range(20)])
        assert not any(each.is_acked for each in waiting)
        gates["book"].set()
        await all_acked(waiting)
        assert await completed(host) == 50
    assert most["book"] == 8
