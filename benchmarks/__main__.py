"""The first benchmark: the order workload through Holdfast in both modes, beside an engine-less loop.

    ./dev bench [--orders 5000] [--rounds 3] [--json FILE]
    ./dev bench --idle [--few 1000] [--many 100000]
    ./dev bench --log [--events 100000] [--rounds 3] [--json FILE]
    ./dev bench --queries [--instances 1000000] [--rounds 20] [--json FILE]

``README.md`` says what is measured and how.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import structlog

from benchmarks import history, queries
from benchmarks.idle import measure_idle, table
from benchmarks.measure import BenchmarkError, Run, measure
from benchmarks.subjects import SUBJECTS, Ceiling
from compose.local.services import Services, running_services

DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")


async def run_rounds(services: Services, *, orders: int, rounds: int) -> list[Run]:
    """Measure every subject once a round, in turns, so that what disturbs the machine disturbs all of them alike."""
    runs = []
    for number in range(1, rounds + 1):
        for subject in SUBJECTS:
            run = await measure(subject, orders, services)
            print(
                f"round {number} of {rounds}: {run.subject:10} {run.orders_per_second:7.0f} orders/s", file=sys.stderr
            )
            runs.append(run)
    return runs


def summary(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Return median, least and greatest orders per second of each subject, and its median's ratio to the ceiling's."""
    speeds: dict[str, list[float]] = {}
    for run in runs:
        speeds.setdefault(run.subject, []).append(run.orders_per_second)
    ceiling = median(speeds[Ceiling.name])
    return {
        subject: {"median": median(found), "min": min(found), "max": max(found), "ratio": median(found) / ceiling}
        for subject, found in speeds.items()
    }


def report(results: dict[str, dict[str, float]]) -> str:
    """Return the summary as a table."""
    lines = [f"{'':12}{'orders/s':>10}{'min':>8}{'max':>8}{'of the ceiling':>17}"]
    lines += [
        f"{subject:12}{found['median']:10.0f}{found['min']:8.0f}{found['max']:8.0f}{found['ratio']:17.2f}"
        for subject, found in results.items()
    ]
    return "\n".join(lines)


def server_settings(services: Services) -> dict[str, Any]:
    """Return the database server's version and the settings that say whether a commit survives a power cut."""
    with psycopg.connect(services.database_url) as connection:
        shown = connection.execute(
            "select name, setting from pg_settings where name = any(%s)", (["server_version", *DURABILITY],)
        )
        return dict(shown.fetchall())


def main() -> int:
    """Run the benchmark and print its table; the exit code says whether every run did the whole workload."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure the order workload, or the log.")
    parser.add_argument("--log", action="store_true", help="measure reading, folding and projecting the log instead")
    parser.add_argument("--events", type=int, default=100_000, help="with --log: events in the log (default: 100000)")
    parser.add_argument("--queries", action="store_true", help="measure queries of the instance store instead")
    parser.add_argument(
        "--instances", type=int, default=1_000_000, help="with --queries: instances in the store (default: 1000000)"
    )
    parser.add_argument("--orders", type=int, default=5000, help="orders a run (default: 5000)")
    parser.add_argument("--rounds", type=int, help="runs of each subject (default: 3, of each query 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and the summary there")
    parser.add_argument("--idle", action="store_true", help="measure a worker's memory with idle instances instead")
    parser.add_argument("--few", type=int, default=1000, help="idle instances to compare with (default: 1000)")
    parser.add_argument("--many", type=int, default=100_000, help="idle instances in all (default: 100000)")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    with running_services() as services:
        settings = server_settings(services)
        if any(settings[name] != "on" for name in DURABILITY):
            print(f"these numbers do not count, commits are not durable: {settings}", file=sys.stderr)
        try:
            if arguments.idle:
                print(table(asyncio.run(measure_idle(services, few=arguments.few, many=arguments.many))))
                return 0
            rounds = arguments.rounds or (20 if arguments.queries else 3)
            if arguments.queries:
                content = {"workload": "queries", "instances": arguments.instances}
                content |= {"summary": queries.run(services, instances=arguments.instances, rounds=rounds)}
            elif arguments.log:
                content = {"workload": "log", "events": arguments.events}
                content |= {"summary": history.run(services, events=arguments.events, rounds=rounds)}
            else:
                content = orders(services, orders=arguments.orders, rounds=rounds)
        except BenchmarkError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
    if arguments.json:
        content |= {"rounds": rounds, "server": settings}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def orders(services: Services, *, orders: int, rounds: int) -> dict[str, Any]:
    """Measure the order workload, print its table and return what came out."""
    runs = asyncio.run(run_rounds(services, orders=orders, rounds=rounds))
    results = summary(runs)
    print(report(results))
    return {
        "workload": "order",
        "orders": orders,
        "runs": [
            {"subject": run.subject, "seconds": run.seconds, "orders_per_second": run.orders_per_second} for run in runs
        ],
        "summary": results,
    }


if __name__ == "__main__":
    sys.exit(main())
