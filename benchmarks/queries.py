"""The query benchmark: how long the first page takes of what each criterion finds among very many instances.

    ./dev bench --queries [--instances 1000000] [--rounds 20] [--json FILE]

``README.md`` says what is measured and how.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.measure import BenchmarkError
from compose.local.services import Services
from holdfast import Client
from holdfast.schemas.postgres.migrate import migrate
from holdfast.schemas.postgres.statements import parse

PAGE = 50
"""Instances of a page, as many as the command line lists by default."""
GOAL = 20.0
"""Milliseconds that a first page may take."""

NOW = datetime.now(UTC)

CASES: dict[str, dict[str, Any]] = {
    "all, newest first": {},
    "all, oldest first": {"ascending": True},
    "app, common": {"app": "shop"},
    "app, 0.5 %, long ago": {"app": "office"},
    "workflow, common": {"workflow": "order"},
    "workflow, 3 %, long ago": {"workflow": "yearly"},
    "workflow, rare": {"workflow": "audit"},
    "workflow, none": {"workflow": "refund"},
    "program, common": {"program_hash": "order"},
    "program, rare": {"program_hash": "audit"},
    "key, one": {"correlation_key": "k-12345"},
    "key, 0.1 %": {"correlation_key": "again"},
    "executing": {"execution_status": "executing"},
    "executing, and no more": {"execution_status": "executing", "is_suspended": False, "is_initialized": True},
    "idle": {"execution_status": "idle"},
    "idle, not suspended": {"execution_status": "idle", "is_suspended": False},
    "closed": {"execution_status": "closed"},
    "living": {"is_completed": False},
    "ended": {"is_completed": True},
    "completed": {"outcome": "completed"},
    "faulted, 2.5 %": {"outcome": "faulted"},
    "cancelled, 0.5 %": {"outcome": "cancelled"},
    "terminated, long ago": {"outcome": "terminated"},
    "suspended": {"is_suspended": True},
    "not suspended": {"is_suspended": False},
    "non-persisted": {"is_initialized": False},
    "persisted": {"is_initialized": True},
    "older than 1 hour": {"older_than": timedelta(hours=1)},
    "older than 80 days": {"older_than": timedelta(days=80)},
    "younger than 1 hour": {"younger_than": timedelta(hours=1)},
    "younger than 80 days": {"younger_than": timedelta(days=80)},
    "created before a moment": {"created_before": NOW - timedelta(days=45)},
    "created since a moment": {"created_since": NOW - timedelta(days=45)},
    "ended, by last update": {"is_completed": True, "sort": "updated"},
    "ended before a moment": {"is_completed": True, "updated_before": NOW - timedelta(days=45)},
    "ended since a moment": {"is_completed": True, "updated_since": NOW - timedelta(days=45)},
    "faulted, by last update": {"outcome": "faulted", "sort": "updated"},
    "promoted, common": {"promoted": {"stage": "paid"}},
    "promoted, half, new ones": {"promoted": {"campaign": "autumn"}},
    "promoted, half, long ago": {"promoted": {"campaign": "spring"}},
    "promoted, rare": {"promoted": {"customer": "c-7"}},
    "promoted, none": {"promoted": {"customer": "nobody"}},
    "waits for a type, common": {"waits_for": "PaymentReceived"},
    "waits for a type, rare": {"waits_for": "Approved"},
    "waits for type and key": {"waits_for": "PaymentReceived", "waits_for_key": "k-999700"},
    "waits for a message": {"waits_for_kind": "message"},
    "waits for a timer": {"waits_for_kind": "timer"},
    "waits for a subflow": {"waits_for_kind": "child"},
    "waits for an activity": {"waits_for_kind": "activity"},
    "waits at, common": {"waits_at": "0.3/paid"},
    "waits at, rare": {"waits_at": "0.9/approved"},
}
"""What is asked for, by what it is called."""


def fill(url: str, instances: int) -> None:
    """Make so many instances, with states and bookmarks, and let the server look at them as it does of itself."""
    statements = dict(parse(files("benchmarks").joinpath("queries.sql").read_text(encoding="utf-8")))
    with psycopg.connect(url, autocommit=True) as connection:
        for name, statement in statements.items():
            print(f"filling: {name}", file=sys.stderr)
            connection.execute(statement.encode(), {"instances": instances})
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


@dataclass(frozen=True)
class Look:
    """Milliseconds of one look by the clock, and those of processors: here, and in the server if it is here too."""

    clock: float
    own: float


async def measure(url: str, rounds: int) -> dict[str, list[Look]]:
    """Return what each first page took, and what the counts did; the first look at each is not among them."""
    found: dict[str, list[Look]] = {}
    programs = await _programs(url)
    for name, case in CASES.items():
        criteria = dict(case)
        if "program_hash" in criteria:
            criteria["program_hash"] = programs[criteria["program_hash"]]
        async with Client(url, app=criteria.pop("app", None)) as client:
            found[name] = await _looks(url, partial(client.instances, **criteria, limit=PAGE), rounds)
    async with Client(url) as client:
        found["counts"] = await _looks(url, client.tally, rounds)
    return found


async def _programs(url: str) -> dict[str, str]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("select workflow, min(program_hash) from holdfast.tally group by workflow")
        return dict(await cursor.fetchall())


async def _looks(url: str, ask: Callable[[], Awaitable[list[Any]]], rounds: int) -> list[Look]:
    await ask()
    backend = await _backend(url)
    looks = []
    for _ in range(rounds):
        clock, own = time.perf_counter(), time.process_time() + _spent(backend)
        await ask()
        spent = time.process_time() + _spent(backend) - own
        looks.append(Look((time.perf_counter() - clock) * 1000, spent * 1000))
    return looks


async def _backend(url: str) -> int:
    """Return the process id of the server's end of the one connection that the client has."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            """select max(pid) from pg_stat_activity
            where datname = current_database() and application_name = 'holdfast' and pid <> pg_backend_pid()"""
        )
        return int((await cursor.fetchone() or (0,))[0] or 0)


def _spent(process_id: int) -> float:
    """Return the seconds of processor time of a process; 0 where it runs elsewhere, as in a container."""
    try:
        return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def summary(found: dict[str, list[Look]]) -> dict[str, dict[str, float]]:
    """Return the median, least and greatest milliseconds of each by the clock, and the median of processor time."""
    return {
        name: {
            "median": median(look.clock for look in looks),
            "min": min(look.clock for look in looks),
            "max": max(look.clock for look in looks),
            "own": median(look.own for look in looks),
        }
        for name, looks in found.items()
    }


def report(results: dict[str, dict[str, float]]) -> str:
    """Return the summary as a table."""
    lines = [f"{'first page of 50':28}{'ms':>8}{'min':>8}{'max':>8}{'processor':>11}  under {GOAL:.0f} ms"]
    for name, it in results.items():
        verdict = "yes" if it["median"] < GOAL else "by processor" if it["own"] < GOAL else "NO"
        lines.append(f"{name:28}{it['median']:8.1f}{it['min']:8.1f}{it['max']:8.1f}{it['own']:11.1f}  {verdict}")
    return "\n".join(lines)


def run(services: Services, *, instances: int, rounds: int) -> dict[str, dict[str, float]]:
    """Run the benchmark, print its table and return the summary."""
    if instances < 1000:
        raise BenchmarkError("with fewer than 1000 instances there is nothing rare among them")
    name = f"holdfast_benchmark_{secrets.token_hex(4)}"
    url = services.new_database(name)
    try:
        asyncio.run(migrate(url))
        fill(url, instances)
        results = summary(asyncio.run(measure(url, rounds)))
    finally:
        services.drop_database(name)
    print(report(results))
    return results
