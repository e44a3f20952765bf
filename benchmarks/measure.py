"""One measured run: an empty database, empty queues, the messages published, one process to drain them."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from asyncio.subprocess import Process
from dataclasses import dataclass
from typing import LiteralString

import aiormq
import psycopg
from aiormq.abc import AbstractChannel

from benchmarks.subjects import Subject
from benchmarks.workload import publish
from compose.local.services import Services

OUT_QUEUE = "benchmark.out"
STALLED = 60.0
"""Seconds without a further order after which a run is given up."""

LOOK = 0.2
"""Seconds between two looks at how many messages came out; RabbitMQ is asked, not the database."""

TIMES: dict[str, LiteralString] = {
    "ceiling": """
        select
            extract(epoch from max(e.recorded_at) filter (where e.type = 'InstanceCompleted')
                - least(min(e.recorded_at), (select min(creation_time) from ceiling.instance_rows)))::float8,
            count(*) filter (where e.type = 'InstanceCompleted'),
            (select count(*) from ceiling.outbox)
        from ceiling.events e
    """,
    "holdfast": """
        select
            extract(epoch from max(e.recorded_at) filter (where e.type = 'InstanceCompleted')
                - least(min(e.recorded_at), (select min(creation_time) from holdfast.instances)))::float8,
            count(*) filter (where e.type = 'InstanceCompleted'),
            (select count(*) from holdfast.outbox)
        from holdfast.events e
    """,
}
"""By schema: seconds from the first commit to the last completion, completed orders, messages left in the outbox."""


class BenchmarkError(Exception):
    """A run did not do the whole workload, so there is nothing to report."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a subject came to."""

    subject: str
    orders: int
    seconds: float

    @property
    def orders_per_second(self) -> float:
        """Completed orders per second."""
        return self.orders / self.seconds


async def measure(subject: Subject, orders: int, services: Services) -> Run:
    """Let one process of ``subject`` drain ``orders`` orders that were published beforehand.

    Raises ``BenchmarkError`` if it ends or stalls before every order is completed and its message is out.
    """
    name = f"holdfast_benchmark_{secrets.token_hex(4)}"
    database_url = services.new_database(name)
    broker = await aiormq.connect(services.amqp_url)
    channel = await broker.channel()
    try:
        await subject.prepare(database_url, services.amqp_url)
        await channel.queue_declare(OUT_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await channel.queue_bind(OUT_QUEUE, subject.out_exchange, routing_key="#")
        await publish(services.amqp_url, subject.exchange, orders)
        _settle(services)
        await _drain(subject, orders, channel, database_url, services.amqp_url)
        return await _read(subject, orders, database_url)
    finally:
        for queue in (*subject.queues, OUT_QUEUE):
            await channel.queue_delete(queue)
        for exchange in subject.exchanges:
            await channel.exchange_delete(exchange)
        await broker.close()
        services.drop_database(name)


def _settle(services: Services) -> None:
    """Write out what earlier runs left to be written, so that it is not charged to this one."""
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute("checkpoint")


async def _drain(subject: Subject, orders: int, channel: AbstractChannel, database_url: str, amqp_url: str) -> None:
    addresses = {"HOLDFAST_DATABASE_URL": database_url, "HOLDFAST_AMQP_URL": amqp_url}
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *subject.command(orders), env=os.environ | addresses | subject.environment(), stdout=output, stderr=output
        )
        try:
            await _all_out(process, orders, channel)
            if subject.ends_by_itself:
                await process.wait()
        except BenchmarkError as error:
            output.seek(0)
            raise BenchmarkError(f"{error}; it wrote:\n{output.read()[-2000:].decode(errors='replace')}") from None
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _all_out(process: Process, orders: int, channel: AbstractChannel) -> None:
    """Wait until the messages of all orders are out."""
    clock = asyncio.get_running_loop().time
    out, since = 0, clock()
    while out < orders:
        await asyncio.sleep(LOOK)
        declared = await channel.queue_declare(OUT_QUEUE, passive=True)
        if (declared.message_count or 0) > out:
            out, since = declared.message_count or 0, clock()
        elif process.returncode is not None:
            raise BenchmarkError(f"the process ended with {process.returncode} after {out} of {orders} orders")
        elif clock() - since > STALLED:
            raise BenchmarkError(f"no order was completed for {STALLED:.0f} s after {out} of {orders}")


async def _read(subject: Subject, orders: int, database_url: str) -> Run:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute(TIMES[subject.schema])).fetchone()
    if row is None or row[1:] != (orders, 0):
        raise BenchmarkError(f"{orders} orders were published; completed orders and messages not sent: {row}")
    return Run(subject=subject.name, orders=orders, seconds=row[0])
