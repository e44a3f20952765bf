"""The exchanges and queues of one app: their names, and how they come into being.

    publishers -> holdfast.<app>  (fanout) -> holdfast.<app>.00                            one partition
    publishers -> holdfast.<app>  (fanout) -> holdfast.<app>.hash -> holdfast.<app>.00…    more

    hosts -> holdfast.<app>.activities  (direct) -> holdfast.<app>.activity.<queue>        activities on queues

A key's messages stay in order only while its partition stays the same. The broker lays the partitions out on
a ring in the order in which they are bound, and again in the order of their names when it restarts, if it was
told to do one after the other (``configuration.ADVANCED``); so they are bound in the order of their names,
before the first message can come, and never anew: an app keeps the number of its partitions. Each partition
carries that number in its declaration, which the broker compares, so that of two workers that disagree the
second is refused, even if both start at once on an empty broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ConnectionCommandInvalid,
)
from pamqp.common import FieldTable

from holdfast.processor.broker.channel import Channel, broker_errors
from holdfast.processor.broker.connection import Connection
from holdfast.schemas.errors import AppError, BrokerError

log = structlog.get_logger("holdfast.broker")

AGAIN = 0.5
"""Seconds before what a broken connection interrupted is declared again."""

DELIVERY_LIMIT = 100
"""Deliveries after which the broker takes a message for poison; a backstop, workers count for themselves."""

ACTIVITY_DELIVERY_LIMIT = 20
"""Deliveries after which the broker takes a request for poison: so often its worker died of it, or with it."""

ACTIVITY_TIME_LIMIT = 86_400
"""Seconds that a worker may be busy with one request before newer brokers take it for dead (30 minutes by default)."""

WEIGHT = "1"
"""Points of a partition on the ring; the broker spreads keys evenly over points, however few."""

PLUGIN = "rabbitmq_consistent_hash_exchange"

_UNLIMITED_QUEUE: FieldTable = {
    "x-queue-type": "quorum",
    # A message here has no further place to go, and newer brokers drop one after 20 deliveries by default.
    "x-delivery-limit": 1_000_000_000,
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange as it is declared; ``source`` is the exchange that it is bound to."""

    name: str
    kind: str
    arguments: FieldTable = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue as it is declared; ``source`` is the exchange that it is bound to, None for the default one."""

    name: str
    arguments: FieldTable
    source: str | None = None
    routing_key: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """An app's exchanges and queues; ``AppError`` if it is to have no or over 100 partitions.

    ``activities`` are the names by which the app's activities call their queues.
    """

    app: str
    partitions: int = 1
    activities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= 100:
            raise AppError(f"an app has 1 to 100 partitions, not {self.partitions}")

    @property
    def exchange(self) -> str:
        """The fanout exchange that publishers publish to; the routing key is ignored."""
        return f"holdfast.{self.app}"

    @property
    def hash_exchange(self) -> str:
        """The exchange that spreads messages over the partitions by their correlation id."""
        return f"{self.exchange}.hash"

    @property
    def queues(self) -> tuple[str, ...]:
        """The queue of each partition; the names sort in the order of the numbers."""
        return tuple(self.queue(number) for number in range(self.partitions))

    def queue(self, partition: int) -> str:
        """Return the name of one partition's queue."""
        return f"{self.exchange}.{partition:02d}"

    @property
    def dead(self) -> str:
        """The queue, and the exchange before it, of messages that the broker gave up on."""
        return f"{self.exchange}.dead"

    @property
    def control(self) -> str:
        """The queue of control commands, reached through the default exchange."""
        return f"{self.exchange}.control"

    @property
    def out(self) -> str:
        """The topic exchange of what workflows send; the routing key is the message type."""
        return f"{self.exchange}.out"

    @property
    def events(self) -> str:
        """The topic exchange of committed events."""
        return f"{self.exchange}.events"

    @property
    def activity_exchange(self) -> str:
        """The direct exchange of requests to run activities; the routing key is the queue as the app calls it."""
        return f"{self.exchange}.activities"

    def activity_queue(self, name: str) -> str:
        """Return the full name of a queue of activities."""
        return f"{self.exchange}.activity.{name}"

    # How they are declared.

    @property
    def plain_exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges that every app has."""
        return (
            Exchange(self.exchange, "fanout"),
            Exchange(self.dead, "fanout"),
            Exchange(self.out, "topic"),
            self.feed,
        )

    @property
    def feed(self) -> Exchange:
        """The exchange of committed events."""
        return Exchange(self.events, "topic")

    @property
    def ring(self) -> Exchange | None:
        """The exchange with the ring; None with one partition, which needs none."""
        if self.partitions == 1:
            return None
        return Exchange(self.hash_exchange, "x-consistent-hash", {"hash-property": "correlation_id"}, self.exchange)

    def partition_queue(self, number: int) -> Queue:
        """Return a partition."""
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": self.dead,
            # At-least-once dead-lettering takes an overflow that rejects, though the queue has no limit.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            # The dead-letter exchange ignores it; here it makes the number of partitions part of the declaration.
            "x-dead-letter-routing-key": f"{number:02d} of {self.partitions:02d}",
        }
        if self.ring is None:
            return Queue(self.queue(number), arguments, self.exchange)
        return Queue(self.queue(number), arguments, self.ring.name, WEIGHT)

    @property
    def dead_queue(self) -> Queue:
        """The queue of messages that the broker gave up on."""
        return Queue(self.dead, _UNLIMITED_QUEUE, self.dead)

    @property
    def control_queue(self) -> Queue:
        """The queue of control commands."""
        return Queue(self.control, _UNLIMITED_QUEUE | {"x-single-active-consumer": True})

    @property
    def requests(self) -> Exchange | None:
        """The exchange of requests to run activities; None where no activity is on a queue."""
        return Exchange(self.activity_exchange, "direct") if self.activities else None

    @property
    def request_queues(self) -> tuple[Queue, ...]:
        """The queues of activities."""
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-delivery-limit": ACTIVITY_DELIVERY_LIMIT,
            "x-consumer-timeout": ACTIVITY_TIME_LIMIT * 1000,
            "x-dead-letter-exchange": self.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        return tuple(
            Queue(self.activity_queue(name), arguments, self.activity_exchange, name) for name in self.activities
        )


async def declare(connection: Connection, topology: Topology) -> None:
    """Bring an app's exchanges and queues into being; what is there already stays as it is.

    Safe when several workers do so at the same time. Raises ``BrokerError`` if the app has another number of
    partitions, if the broker lacks the plugin that more than one partition takes, or if something of the same
    name is there that differs.
    """
    if await _exists(connection, topology.queue(0)):
        # A broker that knows the app refuses another number of partitions here, before anything is touched.
        await _declare_partitions(connection, topology, 1)
    await _declare_exchanges(connection, topology)
    await _declare_partitions(connection, topology, topology.partitions)
    await _bind(connection, topology)
    await declare_activities(connection, topology)


async def declare_at_last(connection: Connection, topology: Topology) -> None:
    """Do as ``declare``, and begin again when the connection breaks meanwhile."""
    while True:
        try:
            await declare(connection, topology)
            return
        except BrokerError as error:
            # When the broker itself ends the connection, it says what is wrong, and trying again is no use.
            if not isinstance(error.__cause__, OSError) or isinstance(error.__cause__, ConnectionClosed):
                raise
            log.warning("not declared", app=topology.app, reason=str(error), next_try_in=AGAIN)
            await asyncio.sleep(AGAIN)


async def declare_activities(connection: Connection, topology: Topology) -> None:
    """Bring the queues of an app's activities into being; raises as ``declare``."""
    if topology.requests is None:
        return
    async with _channel(connection, f"cannot declare the activity queues of {topology.app}") as channel:
        await _declare_exchange(channel, topology.requests)
        for queue in topology.request_queues:
            await _declare_queue(channel, queue)
            await _bind_queue(channel, queue)


async def declare_events(connection: Connection, topology: Topology) -> None:
    """Bring the exchange of committed events into being; raises as ``declare``."""
    async with _channel(connection, f"cannot declare {topology.events}") as channel:
        await _declare_exchange(channel, topology.feed)


async def _declare_exchanges(connection: Connection, topology: Topology) -> None:
    async with _channel(connection, f"cannot declare the exchanges of {topology.app}") as channel:
        for exchange in topology.plain_exchanges:
            await _declare_exchange(channel, exchange)
    if topology.ring is not None:
        await _declare_ring(connection, topology, topology.ring)


async def _declare_ring(connection: Connection, topology: Topology, ring: Exchange) -> None:
    try:
        async with _channel(connection, f"cannot declare {ring.name}") as channel:
            await _declare_exchange(channel, ring)
    except BrokerError as error:
        # Depending on its version, the broker closes the connection or the channel over a type it does not know.
        if isinstance(error.__cause__, ConnectionCommandInvalid | ChannelPreconditionFailed):
            raise BrokerError(
                f"{topology.partitions} partitions take the exchange type x-consistent-hash, which RabbitMQ at "
                f"{connection.place} lacks: run 'rabbitmq-plugins enable {PLUGIN}' there, or use 1 partition "
                f"({error})"
            ) from error
        raise


async def _declare_partitions(connection: Connection, topology: Topology, count: int) -> None:
    try:
        async with _channel(connection, f"cannot declare the partitions of {topology.app}") as channel:
            for number in range(count):
                await _declare_queue(channel, topology.partition_queue(number))
    except BrokerError as error:
        if isinstance(error.__cause__, ChannelPreconditionFailed):
            existing = 0
            while await _exists(connection, topology.queue(existing)):
                existing += 1
            if existing != topology.partitions:
                raise BrokerError(
                    f"app {topology.app} has {existing} partitions on RabbitMQ at {connection.place}, but "
                    f"{topology.partitions} are asked for: keep {existing}, as its keys would change their partition"
                ) from error
        raise


async def count_consumers(connection: Connection, topology: Topology, partitions: Iterable[int]) -> dict[int, int]:
    """Return how many consumers each of these partitions has; ``BrokerError`` if the broker does not say.

    Whether those that wait for their turn are counted (single active consumer) depends on the broker's version.
    """
    async with _channel(connection, f"cannot look at the partitions of {topology.app}") as channel:
        return {
            number: (await channel.queue_declare(topology.queue(number), passive=True)).consumer_count or 0
            for number in partitions
        }


async def count_messages(connection: Connection, topology: Topology, partition: int) -> int:
    """Return how many messages of a partition no consumer has; ``BrokerError`` if the broker does not say."""
    async with _channel(connection, f"cannot look at the partitions of {topology.app}") as channel:
        return (await channel.queue_declare(topology.queue(partition), passive=True)).message_count or 0


async def _bind(connection: Connection, topology: Topology) -> None:
    async with _channel(connection, f"cannot bind the queues of {topology.app}") as channel:
        await _declare_queue(channel, topology.dead_queue)
        await _bind_queue(channel, topology.dead_queue)
        await _declare_queue(channel, topology.control_queue)
        for number in range(topology.partitions):
            await _bind_queue(channel, topology.partition_queue(number))
        # Last, so that no message meets a ring that lacks partitions.
        if topology.ring is not None and topology.ring.source is not None:
            await channel.exchange_bind(topology.ring.name, topology.ring.source)


async def _declare_exchange(channel: AbstractChannel, exchange: Exchange) -> None:
    await channel.exchange_declare(
        exchange.name, exchange_type=exchange.kind, durable=True, arguments=exchange.arguments or None
    )


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)


async def _bind_queue(channel: AbstractChannel, queue: Queue) -> None:
    if queue.source is not None:
        await channel.queue_bind(queue.name, queue.source, routing_key=queue.routing_key)


async def _exists(connection: Connection, queue: str) -> bool:
    try:
        async with _channel(connection, f"cannot look for {queue}") as channel:
            await channel.queue_declare(queue, passive=True)
    except BrokerError as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            return False
        raise
    return True


@asynccontextmanager
async def _channel(connection: Connection, doing: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel for one errand, as a refusal costs it its life."""
    channel = await connection.open(Channel())
    try:
        with broker_errors(doing):
            yield channel.library
    finally:
        await channel.close()
