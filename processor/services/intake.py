"""Brings deliveries of the partitions to the engine, and what the broker gave up on to the dead letters."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Self

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.dead import read_death
from holdfast.processor.broker.delivery import Delivery, salvage
from holdfast.processor.broker.topology import Topology
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.schemas.errors import InvalidMessage


class Intake:
    """The consumers of one host, one channel a partition, while the ``async with`` block lasts."""

    def __init__(self, engine: Engine, connection: Connection, topology: Topology, *, random: Random) -> None:
        self._engine = engine
        self._stack = AsyncExitStack()
        settings = engine.runtime.settings
        consume = partial(
            Consumer, connection, random=random, prefetch=settings.prefetch, max_body_bytes=settings.max_body_bytes
        )
        self._consumers: list[Consumer] = [
            consume(queue, self._deliver, partition=number) for number, queue in enumerate(topology.queues)
        ]
        self._dead = consume(topology.dead, self._bury)

    async def __aenter__(self) -> Self:
        for consumer in (*self._consumers, self._dead):
            await self._stack.enter_async_context(consumer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def consumed(self) -> int:
        """How many partitions this host consumes now."""
        return sum(consumer.is_consuming for consumer in self._consumers)

    @property
    def unsettled(self) -> int:
        """How many deliveries are not settled yet."""
        return sum(consumer.unsettled for consumer in (*self._consumers, self._dead))

    @property
    def waits_for(self) -> list[str]:
        """The queues that this host should consume and does not, as yet."""
        return [consumer.queue for consumer in (*self._consumers, self._dead) if not consumer.is_consuming]

    def pause(self) -> None:
        """Hand nothing further to the engine, while this host stays the active consumer."""
        for consumer in (*self._consumers, self._dead):
            consumer.pause()

    def _deliver(self, delivery: Delivery) -> None:
        consumer = self._consumers[delivery.partition or 0]
        self._engine.deliver(self._arrival(consumer, delivery, delivery.problem))

    def _bury(self, delivery: Delivery) -> None:
        death = read_death(delivery.properties)
        where = f" in {death.queue}" if death.queue else ""
        problem = InvalidMessage(death.reason, f"the broker gave the message up{where}")
        self._engine.deliver(self._arrival(self._dead, delivery, problem))

    def _arrival(self, consumer: Consumer, delivery: Delivery, problem: InvalidMessage | None) -> Arrival:
        envelope = delivery.envelope
        counts = self._engine.runtime.counts
        counts.deliveries += 1
        counts.redeliveries += delivery.redelivered
        return Arrival(
            envelope=salvage(delivery.properties, delivery.body) if envelope is None else envelope,
            received_at=self._engine.runtime.now(),
            partition=delivery.partition or 0,
            redelivered=delivery.redelivered,
            settle=partial(consumer.settle, delivery),
            problem=problem,
        )
