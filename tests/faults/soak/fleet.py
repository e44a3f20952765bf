"""The workers of a soak, each behind wires of its own, and the servers behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from compose.local.services import Services
from tests.support.commands import HOLDFAST
from tests.support.wire import Wire, wire_to_postgres, wire_to_rabbitmq
from tests.support.workers import Worker, environment

LEASE = 5.0
PARTITIONS = 8


@dataclass(kw_only=True)
class Member:
    """One worker process, started again in its place whenever it has died."""

    number: int
    env: dict[str, str]
    folder: Path
    amqp: Wire
    postgres: Wire
    worker: Worker
    runs: int = 1

    def start_again(self) -> None:
        """Start the worker again, which has ended."""
        self.worker = _start(self.number, self.runs, self.env, self.folder)
        self.runs += 1


class Fleet:
    """All workers of a soak."""

    def __init__(self, services: Services, members: Sequence[Member], database_url: str) -> None:
        self.services = services
        self.members = members
        self.database_url = database_url
        self.problems: list[str] = []
        self._folder = members[0].folder

    @property
    def ended(self) -> list[str]:
        """Workers that ended although nobody had them end."""
        return [f"worker {m.number} ended by itself: {m.worker.log}" for m in self.members if not m.worker.is_running]

    @property
    def logs(self) -> list[Path]:
        return sorted(self._folder.glob("worker-*.log"))


@asynccontextmanager
async def running_fleet(services: Services, database_url: str, workers: int, folder: Path) -> AsyncIterator[Fleet]:
    """Run workers while the block lasts; at its end they are killed."""
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        for number in range(workers):
            amqp, amqp_url = await stack.enter_async_context(wire_to_rabbitmq(services.amqp_url))
            postgres, postgres_url = await stack.enter_async_context(wire_to_postgres(database_url))
            env = environment(
                postgres_url,
                amqp_url,
                partitions=PARTITIONS,
                lease=LEASE,
                runnable_detection=1,
                time_to_unload=5,
            )
            worker = _start(number, 0, env, folder)
            members.append(Member(number=number, env=env, folder=folder, amqp=amqp, postgres=postgres, worker=worker))
        try:
            yield Fleet(services, members, database_url)
        finally:
            for member in members:
                if member.worker.is_running:
                    await asyncio.to_thread(member.worker.kill)


def _start(number: int, run: int, env: dict[str, str], folder: Path) -> Worker:
    return Worker((HOLDFAST, "worker", "tests.faults.soak.app:app"), env, folder / f"worker-{number}-{run:02}.log")
