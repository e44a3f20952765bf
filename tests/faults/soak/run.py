"""One soak from its first order to its account."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psycopg

from compose.local.services import Services
from holdfast import Client
from holdfast.schemas.postgres.migrate import migrate
from tests.faults.soak.account import APP, Account
from tests.faults.soak.deaths import deaths
from tests.faults.soak.fleet import Fleet, running_fleet
from tests.faults.soak.progress import Progress
from tests.faults.soak.workload import Publisher, publish_orders
from tests.support.rabbitmq import bind_out, remove_app
from tests.support.workers import await_hosts

OUT = "test-soak-out"
PATIENCE = 60.0
"""Seconds that may pass without progress once everything is published, before the soak gives up waiting."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a soak is to go; times are in seconds."""

    seed: int
    seconds: float = 600.0
    every: float = 20.0
    """From one death to the next."""
    rate: float = 20.0
    """Orders a second."""
    workers: int = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a soak came to; it went well if there are no problems."""

    plan: Plan
    orders: int
    confirmed: int
    repeated: int
    deaths: Counter[str]
    longest: float
    since: dict[str, float]
    take_overs: int
    said: Counter[str]
    """What the workers logged as warnings and errors, and how often."""
    problems: Sequence[str]


def chance(plan: Plan, of_what: str) -> Random:
    """Return chance that comes out the same for the same plan."""
    return Random(f"{plan.seed}/{of_what}")  # noqa: S311  A seed is to give the same soak again.


async def soak(services: Services, plan: Plan, folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Run a soak on servers that can be restarted; ``folder`` takes the logs, ``tell`` hears of each death."""
    name = f"holdfast_soak_{secrets.token_hex(4)}"
    database_url = services.new_database(name)
    await migrate(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    await asyncio.to_thread(remove_app, services.amqp_url, APP)
    await asyncio.to_thread(bind_out, services.amqp_url, APP, OUT)
    try:
        async with running_fleet(services, database_url, plan.workers, folder) as fleet:
            return await _soak(fleet, plan, database_url, tell)
    finally:
        services.drop_database(name)
        await asyncio.to_thread(remove_app, services.amqp_url, APP)


async def _soak(fleet: Fleet, plan: Plan, database_url: str, tell: Callable[[str], None]) -> Outcome:
    amqp_url = fleet.services.amqp_url
    await asyncio.to_thread(await_hosts, database_url, plan.workers)
    progress = Progress(database_url)
    watching = asyncio.create_task(progress.watch())
    client = Client(amqp_url=amqp_url, app=APP)
    publisher = Publisher(client)
    died: Counter[str] = Counter()
    try:
        publishing = asyncio.create_task(
            publish_orders(publisher, chance(plan, "orders"), rate=plan.rate, seconds=plan.seconds)
        )
        began = asyncio.get_running_loop().time()
        async for kind, number in deaths(fleet, chance(plan, "deaths"), every=plan.every, seconds=plan.seconds):
            elapsed = asyncio.get_running_loop().time() - began
            tell(f"{elapsed:6.1f} s  {progress.closed:6} closed  {kind.replace('_', ' ')} (worker {number})")
            died[kind] += 1
            progress.latest = kind
        orders = await publishing
        tell(f"all is published: {len(orders)} orders")
        instances = len(orders) + sum(order.has_child for order in orders)
        finished = await progress.until_closed(instances, PATIENCE)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await client.close()
    account = Account(database_url, amqp_url, orders)
    if not finished:
        account.problems.append(f"{progress.closed} of {instances} instances closed, and no more for {PATIENCE:g} s")
    account.problems.extend([*fleet.problems, *fleet.ended])
    await asyncio.to_thread(account.close, OUT)
    return Outcome(
        plan=plan,
        orders=len(orders),
        confirmed=publisher.confirmed,
        repeated=publisher.repeated,
        deaths=died,
        longest=progress.longest,
        since=progress.since,
        take_overs=account.take_overs,
        said=_said(fleet.logs),
        problems=account.problems,
    )


def _said(logs: Sequence[Path]) -> Counter[str]:
    """Count what workers warned of."""
    found: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                found[f"not JSON: {line[:60]}"] += 1
                continue
            if entry.get("level") in ("warning", "error", "critical"):
                found[f"{entry['level']}: {entry['event']}"] += 1
    return found
