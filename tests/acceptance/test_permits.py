"""The real event log of a permit process runs through four partitions while its workers are killed and replaced."""

import asyncio
import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from examples.permits.check import facts
from holdfast import Client
from tests.support.commands import ROOT, holdfast
from tests.support.length import length
from tests.support.mining import mine
from tests.support.rabbitmq import remove_app, waiting
from tests.support.workers import Worker, Workers, await_hosts, environment, eventually

EVENT_LOG = Path(os.environ.get("HOLDFAST_PERMITS_CSV") or ROOT.parent / "shared" / "data" / "receipt.csv")

pytestmark = [
    pytest.mark.skipif(
        not EVENT_LOG.exists(), reason="the permit event log is not here; HOLDFAST_PERMITS_CSV names it"
    ),
    # With the installation of what reads the exported traces, on a machine that is busy.
    pytest.mark.timeout(1800),
]

CASES = 1434
TASKS = 8577
AGAIN = length(150, long=CASES)
"""How many cases are published a second time."""

APPLIED: LiteralString = (
    "select count(*) from holdfast.inbox where app = 'permits' and type = 'TaskDone' and verdict = 'applied'"
)
CLOSED: LiteralString = "select count(*) from holdfast.instances where app = 'permits' and is_completed"
ACTIVE: LiteralString = """
select h.process_id
from holdfast.hosts h
join holdfast.instance_rows i on i.lock_owner = h.host_id
group by h.process_id
order by count(*) desc
limit 1
"""
HOSTS: LiteralString = "select count(distinct metadata ->> 'host') from holdfast.events"
VARIANTS: LiteralString = "select path, instances from permits_traces.variants where outcome = 'completed'"
MOST_FREQUENT = ["Confirmation of receipt", "T02", "T04", "T05", "T06", "T10"]
FACTS = {
    "instances": CASES,
    "instances completed": CASES,
    "tasks applied": TASKS,
    "distinct task messages applied": TASKS,
    "task messages with the verdict applied": TASKS,
    "task messages counted as applied": TASKS,
    "messages with another verdict": 0,
    "cases whose trace equals the file's": CASES,
    "cases counted under a trace of the file": CASES,
    "distinct traces": 116,
    "cases with the most frequent trace": 713,
}


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, "permits")
    yield environment(database_url, amqp_url, partitions=4, lease=6, runnable_detection=1)
    remove_app(amqp_url, "permits")


def publish(env: dict[str, str], path: Path = EVENT_LOG) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "examples.permits.publish", path], env=env, cwd=ROOT)


def some_cases(path: Path) -> Path:
    """Write some of the cases, whole, to a file, and return it."""
    with EVENT_LOG.open(newline="", encoding="utf-8") as whole, path.open("w", newline="", encoding="utf-8") as part:
        rows = csv.DictReader(whole)
        copy = csv.DictWriter(part, rows.fieldnames or ())
        copy.writeheader()
        known: set[str] = set()
        for row in rows:
            case = row["case:concept:name"]
            if case in known or len(known) < AGAIN:
                known.add(case)
                copy.writerow(row)
    return path


def ask(database_url: str, query: LiteralString) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else 0


def test_the_permit_log_is_followed_exactly_while_the_active_worker_is_killed(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    with Workers("examples.permits.app:app", env, tmp_path) as workers:
        both = [workers.start(), workers.start()]
        await_hosts(database_url, 2)
        publisher = publish(env)
        eventually("half of the tasks are applied", lambda: ask(database_url, APPLIED) >= TASKS // 2, 300)
        active = by_process_id(both, ask(database_url, ACTIVE))
        active.kill()
        assert ask(database_url, CLOSED) < CASES
        workers.start()
        assert publisher.wait(120) == 0
        eventually("every case is closed", lambda: ask(database_url, CLOSED) >= CASES, 300)

        assert found(database_url) == FACTS
        assert ask(database_url, HOSTS) > 1
        verified = holdfast("verify", "--app", "permits", env=env)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        process_mining_agrees(database_url, env, tmp_path / "permits.xes")

        # Published again, every message is a duplicate.
        assert publish(env, some_cases(tmp_path / "again.csv")).wait(120) == 0
        eventually("the queues are empty", lambda: waiting(amqp_url, "permits") == 0)
        assert [worker.stop() for worker in workers.all if worker.is_running] == [0, 0]
        assert found(database_url) == FACTS


def process_mining_agrees(database_url: str, env: dict[str, str], out: Path) -> None:
    """See that a tool of process mining finds what the file is known to have, and what the projection counted."""
    options = ["--label", "examples.permits.app:Traces", "--case", "key", "--app", "permits"]
    exported = holdfast("export", "--format", "xes", "--out", str(out), *options, env=env)
    assert exported.returncode == 0, exported.stderr
    mined = mine(out)
    variants = [(tuple(path), count) for path, count in mined["variants"]]
    assert (mined["cases"], mined["events"], len(variants)) == (CASES, TASKS, FACTS["distinct traces"])
    path, count = max(variants, key=lambda variant: variant[1])
    assert count == FACTS["cases with the most frequent trace"]
    assert all(task.startswith(name) for task, name in zip(path, MOST_FREQUENT, strict=True))
    assert dict(variants)["Confirmation of receipt",] == 116
    assert all(path.count("Confirmation of receipt") == 1 for path, _ in variants)
    with psycopg.connect(database_url) as connection:
        assert sorted(variants) == sorted((tuple(path), count) for path, count in connection.execute(VARIANTS))


def found(database_url: str) -> dict[str, int]:
    asyncio.run(up_to_date(database_url))
    return {fact.name: fact.found for fact in facts(database_url, EVENT_LOG)}


async def up_to_date(database_url: str) -> None:
    async with Client(database_url, app="permits") as client:
        await client.projections.wait_until("traces")


def by_process_id(workers: list[Worker], process_id: int) -> Worker:
    (worker,) = [worker for worker in workers if worker.process.pid == process_id]
    return worker
