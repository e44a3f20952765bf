"""What dies during a soak, each kind in a function of its own, and who chooses."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

from tests.faults.soak.fleet import LEASE, Fleet, Member

STALL = LEASE + 3.0
"""Seconds that something stands still, so that the lease of whoever needs it lapses."""

PATIENCE = 90.0
"""Seconds that a worker may take to end in order: twice its grace, and what a busy machine adds."""

SETTLING = 3.0
"""Seconds that RabbitMQ gets to know a queue well enough to be killed."""

Death = Callable[[Fleet, Member], Awaitable[None]]


async def worker_killed(_: Fleet, member: Member) -> None:
    """Kill a worker, and start another one in its place."""
    await asyncio.to_thread(member.worker.kill)
    member.start_again()


async def worker_ended(fleet: Fleet, member: Member) -> None:
    """Ask a worker to end in order, and start another one in its place."""
    try:
        await asyncio.to_thread(member.worker.stop, PATIENCE)
    except subprocess.TimeoutExpired:
        fleet.problems.append(f"worker {member.number} did not end within {PATIENCE:g} s: {member.worker.log}")
        await asyncio.to_thread(member.worker.kill)
    member.start_again()


async def worker_stalled(_: Fleet, member: Member) -> None:
    """Stop a worker until its lease has lapsed, and let it go on."""
    member.worker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STALL)
    member.worker.process.send_signal(signal.SIGCONT)


async def rabbitmq_cut(_: Fleet, member: Member) -> None:
    """Break a worker's connections to RabbitMQ."""
    member.amqp.cut()


async def postgres_cut(_: Fleet, member: Member) -> None:
    """Break a worker's connections to Postgres."""
    member.postgres.cut()


async def postgres_silent(_: Fleet, member: Member) -> None:
    """Let nothing through between a worker and Postgres until the worker's lease has lapsed."""
    member.postgres.silence()
    await asyncio.sleep(STALL)
    member.postgres.restore()


async def rabbitmq_silent(_: Fleet, member: Member) -> None:
    """Let nothing through between a worker and RabbitMQ until its heartbeats are missed."""
    member.amqp.silence()
    await asyncio.sleep(STALL)
    member.amqp.restore()


async def postgres_restarted(fleet: Fleet, _: Member) -> None:
    """Restart Postgres as if its machine had failed."""
    assert fleet.services.postgres is not None
    await asyncio.to_thread(fleet.services.postgres.restart, "immediate")


async def rabbitmq_restarted(fleet: Fleet, _: Member) -> None:
    """Kill RabbitMQ and start it again."""
    assert fleet.services.rabbitmq is not None
    await asyncio.sleep(SETTLING)
    await asyncio.to_thread(fleet.services.rabbitmq.stop, "kill")
    await asyncio.to_thread(fleet.services.rabbitmq.start)


KINDS: tuple[Death, ...] = (
    worker_killed,
    rabbitmq_cut,
    postgres_restarted,
    worker_stalled,
    rabbitmq_restarted,
    postgres_cut,
    worker_ended,
    postgres_silent,
    rabbitmq_silent,
)


async def deaths(fleet: Fleet, random: Random, *, every: float, seconds: float) -> AsyncIterator[tuple[str, int]]:
    """Have something die every so many seconds, for so many seconds; yield what it is and of which worker.

    Each kind has its turn before any of them comes again.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    left: list[Death] = []
    number = 0
    while (number + 1) * every < seconds:
        number += 1
        await asyncio.sleep(max(0.0, started + number * every - loop.time()))
        if not left:
            left = random.sample(KINDS, len(KINDS))
        death, member = left.pop(), random.choice(fleet.members)
        yield death.__name__, member.number
        await death(fleet, member)
