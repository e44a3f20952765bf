"""What idle instances cost a worker: its memory after some were created and let go of, and after many more were.

    ./dev bench --idle [--few 1000] [--many 100000]

They are orders of the order workload that wait for their second message.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import tempfile
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path

import aiormq
import psycopg

from benchmarks.measure import STALLED, BenchmarkError
from benchmarks.subjects import Holdfast
from benchmarks.workload import PLACED, order_ids, publish_all
from compose.local.services import Services

SETTINGS = {"HOLDFAST_TIME_TO_UNLOAD": "1", "HOLDFAST_MAX_LOADED": "500", "HOLDFAST_RUNNABLE_DETECTION": "1"}
"""Instances leave the memory soon, and as many are in it at a time while few are created as while many are."""

SETTLED = 5.0
"""Seconds after which the worker has nothing more to do for those that were let go of."""

LOOK = 1.0

UNLOADED = "select count(*) from holdfast.instances where execution_status = 'idle' and lock_owner is null"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Resident memory of a worker, in bytes, when so many instances were idle and none was loaded."""

    instances: int
    bytes: int


async def measure_idle(services: Services, *, few: int, many: int) -> list[Footprint]:
    """Have one worker create ``few`` instances, and then as many more as make ``many``, and measure it after each.

    Raises ``BenchmarkError`` if it ends or stalls before that.
    """
    subject = Holdfast("in_memory")
    name = f"holdfast_benchmark_{secrets.token_hex(4)}"
    database_url = services.new_database(name)
    broker = await aiormq.connect(services.amqp_url)
    channel = await broker.channel()
    try:
        await subject.prepare(database_url, services.amqp_url)
        addresses = {"HOLDFAST_DATABASE_URL": database_url, "HOLDFAST_AMQP_URL": services.amqp_url}
        with tempfile.TemporaryFile() as output:
            process = await asyncio.create_subprocess_exec(
                *subject.command(many),
                env=os.environ | addresses | subject.environment() | SETTINGS,
                stdout=output,
                stderr=output,
            )
            try:
                footprints = []
                for begin, end in ((0, few), (few, many)):
                    ids = itertools.islice(order_ids(many), begin, end)
                    await publish_all(services.amqp_url, subject.exchange, PLACED, ids)
                    await _until_unloaded(process, database_url, end)
                    await asyncio.sleep(SETTLED)
                    footprints.append(Footprint(instances=end, bytes=_resident(process.pid)))
                return footprints
            except BenchmarkError as error:
                output.seek(0)
                raise BenchmarkError(f"{error}; it wrote:\n{output.read()[-2000:].decode(errors='replace')}") from None
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
    finally:
        for queue in subject.queues:
            await channel.queue_delete(queue)
        for exchange in subject.exchanges:
            await channel.exchange_delete(exchange)
        await broker.close()
        services.drop_database(name)


async def _until_unloaded(process: Process, database_url: str, instances: int) -> None:
    clock = asyncio.get_running_loop().time
    found, since = 0, clock()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        while found < instances:
            await asyncio.sleep(LOOK)
            row = await (await connection.execute(UNLOADED)).fetchone()
            now = row[0] if row else 0
            if now > found:
                found, since = now, clock()
            elif process.returncode is not None:
                raise BenchmarkError(f"the process ended with {process.returncode} after {found} instances")
            elif clock() - since > STALLED:
                raise BenchmarkError(f"no instance was let go of for {STALLED:.0f} s after {found} of {instances}")


def _resident(pid: int) -> int:
    """Return the resident memory of a process, as Linux tells it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def table(footprints: list[Footprint]) -> str:
    """Return the footprints as a table."""
    first = footprints[0].bytes
    lines = [f"{'idle instances':>16}{'MB':>8}{'of the first':>16}"]
    lines += [f"{each.instances:16,}{each.bytes / 1e6:8.1f}{each.bytes / first:16.2f}" for each in footprints]
    return "\n".join(lines)
