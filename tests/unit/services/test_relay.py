"""What the relay publishes when, and what it makes of the broker's answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID

import pytest

from holdfast.processor.broker.frames import Publishable
from holdfast.processor.broker.publisher import Fate, Publisher, Receipt
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive, send
from holdfast.processor.services import relay
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("relayed")


class Asked(Message, correlation="key"):
    key: str


class More(Message, correlation="key"):
    key: str


class Answer(Message, correlation="key"):
    key: str
    number: int


@app.workflow(start=Asked)
async def answer(asked: Asked) -> None:
    await send(Answer(key=asked.key, number=1))
    await send(Answer(key=asked.key, number=2))
    await receive(More, asked.key)
    await send(Answer(key=asked.key, number=3))
    await receive(More, asked.key)


class Broker:
    """Takes what is published and answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()
        self._open: list[asyncio.Future[Receipt]] = []

    async def send(self, exchange: str, routing_key: str, message: Publishable) -> asyncio.Future[Receipt]:
        assert (exchange, routing_key) == ("holdfast.relayed.out", "Answer")
        found = Answer.model_validate_json(message.body)
        await self.is_ready.wait()
        self.sent.append((found.key, found.number))
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._open.append(receipt)
        return receipt

    def answer(self, *fates: Fate) -> None:
        """Answer the oldest messages that have no answer yet, one with each fate."""
        for fate in fates:
            self._open.pop(0).set_result(Receipt(fate, "because"))


@asynccontextmanager
async def relayed(world: World) -> AsyncIterator[tuple[SimulatedHost, Broker]]:
    """Start a host with a relay."""
    host, broker = await world.host(), Broker()
    found = relay.Relay(host.runtime, cast("Publisher", broker))
    host.runtime.publish = found.offer
    running = asyncio.create_task(found.run())
    # The first sweep is over before anything is committed.
    await world.advance(0.1)
    try:
        yield host, broker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def left(world: World) -> list[int]:
    """Return the numbers of the answers in the outbox."""
    return [Answer.model_validate_json(row.message.body).number for row in world.store.tables.outbox.values()]


# Protocol: I6.
async def test_what_a_new_instance_sends_goes_out_with_its_commit_and_leaves_the_outbox_with_its_confirm() -> None:
    world = World(app)
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        assert broker.sent == [("a", 1), ("a", 2)]
        assert left(world) == [1, 2]
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.rest()
        assert left(world) == []
        await world.advance(60)
        assert broker.sent == [("a", 1), ("a", 2)]


async def test_what_failed_goes_out_again_before_what_its_instance_sent_later() -> None:
    world = World(app)
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        broker.answer(Fate.FAILED, Fate.FAILED)
        await world.rest()
        await host.deliver(More(key="a"), "m2")
        await host.deliver(Asked(key="b"), "m3")
        assert broker.sent[2:] == [("b", 1), ("b", 2)]
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.advance(60)
        assert broker.sent[4:] == [("a", 1), ("a", 2), ("a", 3)]
        broker.answer(*[Fate.CONFIRMED] * 3)
        await world.rest()
        assert left(world) == []


# Protocol: D6, D7.
async def test_what_an_instance_sends_that_began_elsewhere_goes_out_behind_what_it_left_there() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    former = await world.host()
    await former.deliver(Asked(key="a"), "m1")
    await former.die()
    await world.advance(31)
    async with relayed(world) as (host, broker):
        assert broker.sent == [("a", 1), ("a", 2)]
        await host.deliver(More(key="a"), "m2")
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.advance(6)
        assert broker.sent == [("a", 1), ("a", 2), ("a", 3)]


async def test_an_unroutable_message_is_put_aside_and_holds_up_nobody() -> None:
    world = World(app)
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        broker.answer(Fate.UNROUTABLE, Fate.CONFIRMED)
        await world.rest()
        assert [row.dead_reason for row in world.store.tables.outbox.values()] == ["because"]
        await host.deliver(More(key="a"), "m2")
        await world.advance(60)
        assert broker.sent == [("a", 1), ("a", 2), ("a", 3)]


class SlowOutbox:
    """An outbox whose answer is on its way until the test lets it come."""

    def __init__(self, world: World) -> None:
        self._read = world.store.outbox
        self.is_slow = False
        self.answer = asyncio.Event()

    async def __call__(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        rows = await self._read(host_id, limit)
        if self.is_slow:
            await self.answer.wait()
        return rows


async def test_what_is_confirmed_while_the_outbox_is_read_does_not_go_out_twice() -> None:
    world = World(app)
    outbox = SlowOutbox(world)
    world.store.outbox = outbox  # type: ignore[method-assign]  # The test decides when it answers.
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        outbox.is_slow = True
        await world.advance(6)
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.rest()
        outbox.answer.set()
        await world.advance(6)
        assert broker.sent == [("a", 1), ("a", 2)]


# Protocol: I11.
async def test_what_is_sent_while_the_outbox_is_read_goes_out_behind_what_failed() -> None:
    world = World(app)
    outbox = SlowOutbox(world)
    world.store.outbox = outbox  # type: ignore[method-assign]  # The test decides when it answers.
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        broker.answer(Fate.FAILED, Fate.FAILED)
        outbox.is_slow = True
        await world.advance(6)
        await host.deliver(More(key="a"), "m2")
        outbox.answer.set()
        outbox.is_slow = False
        await world.advance(6)
        assert broker.sent[2:] == [("a", 1), ("a", 2), ("a", 3)]


async def test_what_is_sent_while_the_outbox_is_longer_than_one_look_goes_out_behind_what_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "SWEEP", 2)
    world = World(app)
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="b"), "m0")
        await host.deliver(Asked(key="a"), "m1")
        broker.answer(*[Fate.FAILED] * 4)
        await world.advance(5.0)
        assert broker.sent[4:] == [("b", 1), ("b", 2)]
        await host.deliver(More(key="a"), "m2")
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.advance(6)
        broker.answer(Fate.CONFIRMED, Fate.CONFIRMED)
        await world.advance(6)
        assert broker.sent[6:] == [("a", 1), ("a", 2), ("a", 3)]


# Protocol: I11.
async def test_what_is_left_to_the_outbox_while_it_is_read_goes_out_before_what_is_sent_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "QUEUE", 1)
    world = World(app)
    outbox = SlowOutbox(world)
    world.store.outbox = outbox  # type: ignore[method-assign]  # The test decides when it answers.
    async with relayed(world) as (host, broker):
        broker.is_ready.clear()
        await host.deliver(Asked(key="a"), "m1")
        await host.deliver(Asked(key="b"), "m2")
        broker.is_ready.set()
        await world.rest()
        assert broker.sent == [("a", 1), ("a", 2)]
        outbox.is_slow = True
        await world.advance(6)
        await host.deliver(Asked(key="c"), "m3")
        outbox.answer.set()
        outbox.is_slow = False
        await world.rest()
        await host.deliver(More(key="c"), "m4")
        await world.advance(6)
        assert [number for key, number in broker.sent if key == "c"] == [1, 2, 3]


# Protocol: I11.
async def test_what_waits_for_the_broker_goes_out_behind_what_failed() -> None:
    world = World(app)
    async with relayed(world) as (host, broker):
        await host.deliver(Asked(key="a"), "m1")
        broker.is_ready.clear()
        await host.deliver(Asked(key="b"), "m2")
        await host.deliver(More(key="a"), "m3")
        broker.answer(Fate.FAILED, Fate.FAILED)
        await world.advance(6)
        broker.is_ready.set()
        await world.advance(6)
        assert [number for key, number in broker.sent[2:] if key == "a"] == [1, 2, 3]
