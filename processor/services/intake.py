"""Brings deliveries of the partitions to the engine, and what the broker gave up on to the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from random import Random
from typing import Self

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.dead import read_death
from holdfast.processor.broker.delivery import Delivery, refuse_replayed, salvage
from holdfast.processor.broker.topology import Topology
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.hand_over import hand_over
from holdfast.schemas.errors import InvalidMessage


class Intake:
    """The consumers of one host, one channel a partition that it takes, while the ``async with`` block lasts.

    ``consumed`` has the partitions that the broker has this host as a consumer of, each since when; ``changed`` is
    told when it is another than before.
    """

    def __init__(self, engine: Engine, connection: Connection, topology: Topology, *, random: Random) -> None:
        self.consumed: dict[int, datetime] = {}
        self.changed: Callable[[], None] = lambda: None
        self._engine = engine
        self._topology = topology
        settings = engine.runtime.settings
        self._consume = partial(
            Consumer, connection, random=random, prefetch=settings.prefetch, max_body_bytes=settings.max_body_bytes
        )
        self._consumers: dict[int, Consumer] = {}
        self._dead = self._consume(topology.dead, self._bury)
        for partition in range(topology.partitions):
            engine.backlogs.open(partition)

    async def __aenter__(self) -> Self:
        await self._dead.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        consumers, self._consumers = list(self._consumers.values()), {}
        await asyncio.gather(*(consumer.close() for consumer in (*consumers, self._dead)))

    @property
    def taken(self) -> frozenset[int]:
        """The partitions that this host consumes, or tries to."""
        return frozenset(self._consumers)

    @property
    def unsettled(self) -> int:
        """How many deliveries are not settled yet."""
        return sum(consumer.unsettled for consumer in (*self._consumers.values(), self._dead))

    @property
    def waits_for(self) -> list[str]:
        """The queues that this host should consume and does not, as yet."""
        return [consumer.queue for consumer in (*self._consumers.values(), self._dead) if not consumer.is_consuming]

    def pause(self) -> None:
        """Hand nothing further to the engine, while this host stays the consumer that it is."""
        for consumer in (*self._consumers.values(), self._dead):
            consumer.pause()

    async def take(self, partition: int) -> None:
        """Consume a partition, that this host has not taken yet, from now on."""
        self._consumers[partition] = consumer = self._consume(
            self._topology.queue(partition),
            self._deliver,
            partition=partition,
            on_consuming=lambda _: self._began(partition),
            on_lost=lambda _: self._ended(partition),
        )
        await consumer.__aenter__()

    async def leave(self, partition: int) -> bool:
        """Give a partition up: what is under way ends, the rest goes back to the broker in order.

        False if some of it went on after ``shutdown_grace`` seconds.
        """
        consumer = self._consumers[partition]
        consumer.pause()
        try:
            return await hand_over(self._engine, partition, self._engine.runtime.settings.shutdown_grace)
        finally:
            await consumer.close()
            self._consumers.pop(partition, None)
            self.changed()

    def delivered(self, partition: int) -> int:
        """Return how many deliveries of a partition have come since this host consumes it."""
        return self._consumers[partition].delivered if partition in self._consumers else 0

    def settled_up_to(self, partition: int) -> int:
        """Return how many of them came before the first that is not settled."""
        return self._consumers[partition].settled_up_to if partition in self._consumers else 0

    def _began(self, partition: int) -> None:
        self._engine.backlogs.open(partition)
        self.consumed[partition] = self._engine.runtime.now()
        self.changed()

    def _ended(self, partition: int) -> None:
        self._engine.backlogs.open(partition)
        self.consumed.pop(partition, None)
        self.changed()

    def _deliver(self, delivery: Delivery) -> None:
        partition = delivery.partition or 0
        consumer = self._consumers[partition]
        if consumer.delivered == 1:
            # Who consumed the partition before has stored its last message; the instances here may not know of it yet.
            self._engine.look_again(partition)
        self._engine.deliver(self._arrival(consumer, delivery, delivery.problem))

    def _bury(self, delivery: Delivery) -> None:
        try:
            refuse_replayed(delivery.properties)
            death = read_death(delivery.properties)
            where = f" in {death.queue}" if death.queue else ""
            problem = InvalidMessage(death.reason, f"the broker gave the message up{where}")
        except InvalidMessage as error:
            problem = error
        self._engine.deliver(self._arrival(self._dead, delivery, problem))

    def _arrival(self, consumer: Consumer, delivery: Delivery, problem: InvalidMessage | None) -> Arrival:
        envelope, now = delivery.envelope, self._engine.runtime.now()
        counts = self._engine.runtime.counts
        counts.deliveries += 1
        counts.redeliveries += delivery.redelivered
        return Arrival(
            envelope=salvage(delivery.properties, delivery.body) if envelope is None else envelope,
            received_at=self._engine.backlogs.arrival(delivery.partition, delivery.properties.timestamp, now),
            delivered_at=now,
            partition=delivery.partition,
            from_backlog=delivery.partition is not None and self._engine.backlogs.is_open(delivery.partition),
            redelivered=delivery.redelivered,
            settle=partial(consumer.settle, delivery),
            problem=problem,
        )
