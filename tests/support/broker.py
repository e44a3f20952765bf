"""A broker's connections, queues and consumers for a test, and what came out of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from aiormq.abc import AbstractChannel

from holdfast.processor.broker.channel import Channel
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.delivery import Delivery
from holdfast.processor.broker.publisher import Fate, Publisher
from holdfast.processor.broker.topology import Topology, declare
from holdfast.schemas.message import Envelope

PATIENCE = 180.0
"""Seconds after which a test gives up waiting for a signal."""


def dice(seed: int = 1) -> Random:
    """Give the same randomness on every run."""
    return Random(seed)  # noqa: S311 - it spreads waits and guards nothing


def connect(url: str, *, patience: float | None = PATIENCE) -> Connection:
    """Describe a connection; entering it opens it."""
    return Connection(url, name="test", heartbeat=10, random=dice(), patience=patience)


def message(number: int, *, key: str = "k", body: bytes = b"{}", prefix: str = "m") -> Envelope:
    """Give a message that is told apart by its number."""
    return Envelope(message_id=f"{prefix}-{number}", type="Paid", key=key, body=body)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.001)


@dataclass
class Inbox:
    """What a consumer handed over, oldest first; settled at once if ``settles``."""

    settles: bool = True
    deliveries: list[Delivery] = field(default_factory=list)
    consumer: Consumer | None = None
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.settles and self.consumer:
            self.consumer.settle(delivery)
        self._more.set()

    @property
    def ids(self) -> list[str | None]:
        """The message ids."""
        return [delivery.properties.message_id for delivery in self.deliveries]

    async def until(self, count: int) -> list[Delivery]:
        """Wait for that many deliveries in all and return them."""
        async with asyncio.timeout(PATIENCE):
            while len(self.deliveries) < count:
                self._more.clear()
                await self._more.wait()
        return self.deliveries


@dataclass
class Broker:
    """A declared app, a connection to consume on and a publisher on another one."""

    connection: Connection
    topology: Topology
    publisher: Publisher

    def consume(
        self, inbox: Inbox, partition: int = 0, *, connection: Connection | None = None, prefetch: int = 400
    ) -> Consumer:
        """Describe a consumer of a partition; entering it consumes."""
        inbox.consumer = Consumer(
            connection or self.connection,
            self.topology.queue(partition),
            inbox,
            random=dice(),
            partition=partition,
            prefetch=prefetch,
        )
        return inbox.consumer

    def consume_queue(self, inbox: Inbox, queue: str) -> Consumer:
        """Describe a consumer of any queue; entering it consumes."""
        inbox.consumer = Consumer(self.connection, queue, inbox, random=dice())
        return inbox.consumer

    async def publish(self, messages: Iterable[Envelope]) -> None:
        """Publish messages to the app; each must be confirmed."""
        sent = [await self.publisher.send(self.topology.exchange, "", message) for message in messages]
        async with asyncio.timeout(PATIENCE):
            assert {(await receipt).fate for receipt in sent} <= {Fate.CONFIRMED}

    async def waiting(self, queue: str) -> int:
        """Count the messages of a queue that no consumer has."""
        async with library(self.connection) as channel:
            return (await channel.queue_declare(queue, passive=True)).message_count or 0


@asynccontextmanager
async def library(connection: Connection) -> AsyncIterator[AbstractChannel]:
    """Give a channel of the AMQP library."""
    channel = await connection.open(Channel(), confirms=True)
    try:
        yield channel.library
    finally:
        await channel.close()


@asynccontextmanager
async def running_broker(
    url: str, app: str, partitions: int = 1, activities: tuple[str, ...] = ()
) -> AsyncIterator[Broker]:
    """Give a declared app, and remove it at the end."""
    topology = Topology(app, partitions, activities)
    async with connect(url) as connection, connect(url) as publishing:
        try:
            await declare(connection, topology)
            yield Broker(connection, topology, Publisher(publishing))
        finally:
            await remove(connection, topology)


async def remove(connection: Connection, topology: Topology) -> None:
    """Remove an app's queues and exchanges."""
    async with asyncio.timeout(PATIENCE), library(connection) as channel:
        activities = map(topology.activity_queue, topology.activities)
        for queue in (*topology.queues, topology.dead, topology.control, *activities):
            await channel.queue_delete(queue)
        for exchange in (
            topology.exchange,
            topology.hash_exchange,
            topology.dead,
            topology.out,
            topology.events,
            topology.activity_exchange,
        ):
            await channel.exchange_delete(exchange)
