"""What is measured: the engine-less ceiling, and Holdfast in both persistence modes."""

from __future__ import annotations

import sys
from typing import Protocol

import psycopg
from aiormq.abc import AbstractChannel

from benchmarks import ceiling


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
    """What it consumes, to be removed after a run."""

    async def prepare(self, database_url: str, channel: AbstractChannel) -> None:
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

    async def prepare(self, database_url: str, channel: AbstractChannel) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(ceiling.ddl())
        await channel.exchange_declare(self.exchange, exchange_type="fanout", durable=True)
        await channel.exchange_declare(self.out_exchange, exchange_type="topic", durable=True)
        await channel.queue_declare(
            ceiling.QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True}
        )
        await channel.queue_bind(ceiling.QUEUE, self.exchange)

    def command(self, orders: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.ceiling", str(orders)]

    def environment(self) -> dict[str, str]:
        return {}


SUBJECTS: tuple[Subject, ...] = (Ceiling(),)
"""In the order in which a round runs them."""
