"""What is measured: the engine-less ceiling, and Holdfast in both persistence modes."""

from __future__ import annotations

import sys
from random import SystemRandom
from typing import Protocol

import aiormq
import psycopg

from benchmarks import ceiling
from benchmarks.order import PERSISTENCE_VARIABLE, app
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, declare
from holdfast.processor.language.options import Persistence
from holdfast.schemas.postgres.migrate import migrate


class Subject(Protocol):
    """A program that drains the order workload, and what it needs around it."""

    name: str
    schema: str
    """The schema that holds its tables, which have the columns of Holdfast's own."""
    exchange: str
    """Where the workload is published to."""
    out_exchange: str
    """Where the messages go that it sends."""
    queues: tuple[str, ...]
    """Its queues, to be removed after a run."""
    exchanges: tuple[str, ...]
    """Its exchanges, likewise."""
    ends_by_itself: bool
    """Whether its process ends when the orders are done, or works on until it is told to stop."""

    async def prepare(self, database_url: str, amqp_url: str) -> None:
        """Create its tables in an empty database, and its exchanges and queues."""
        ...

    def command(self, orders: int) -> list[str]:
        """Return the command that runs it."""
        ...

    def environment(self) -> dict[str, str]:
        """Return what it finds in its environment beside the servers' addresses."""
        ...


class Ceiling:
    """The engine-less loop."""

    name = "ceiling"
    schema = "ceiling"
    exchange = "ceiling"
    out_exchange = ceiling.OUT_EXCHANGE
    queues: tuple[str, ...] = (ceiling.QUEUE,)
    exchanges: tuple[str, ...] = (exchange, out_exchange)
    ends_by_itself = True

    async def prepare(self, database_url: str, amqp_url: str) -> None:
        await migrate(database_url)
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(ceiling.ddl())
        broker = await aiormq.connect(amqp_url)
        channel = await broker.channel()
        await channel.exchange_declare(self.exchange, exchange_type="fanout", durable=True)
        await channel.exchange_declare(self.out_exchange, exchange_type="topic", durable=True)
        await channel.queue_declare(
            ceiling.QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True}
        )
        await channel.queue_bind(ceiling.QUEUE, self.exchange)
        await broker.close()

    def command(self, orders: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.ceiling", str(orders)]

    def environment(self) -> dict[str, str]:
        return {}


class Holdfast:
    """A Holdfast worker, in one of its persistence modes."""

    schema = "holdfast"
    ends_by_itself = False

    def __init__(self, persistence: Persistence) -> None:
        self._topology = Topology(app.name)
        self.name = str(persistence)
        self.exchange = self._topology.exchange
        self.out_exchange = self._topology.out
        self.queues: tuple[str, ...] = (*self._topology.queues, self._topology.dead, self._topology.control)
        self.exchanges: tuple[str, ...] = (
            self.exchange,
            self.out_exchange,
            self._topology.dead,
            self._topology.events,
        )

    async def prepare(self, database_url: str, amqp_url: str) -> None:
        await migrate(database_url)
        connection = Connection(amqp_url, name="benchmark", heartbeat=60, random=SystemRandom(), patience=60)
        async with connection:
            await declare(connection, self._topology)

    def command(self, orders: int) -> list[str]:  # noqa: ARG002  A worker works until it is told to stop.
        return [sys.executable, "-m", "holdfast.processor.cli", "worker", "benchmarks.order:app"]

    def environment(self) -> dict[str, str]:
        return {PERSISTENCE_VARIABLE: self.name}


SUBJECTS: tuple[Subject, ...] = (Ceiling(), Holdfast("in_memory"), Holdfast("regular"))
"""In the order in which a round runs them."""
