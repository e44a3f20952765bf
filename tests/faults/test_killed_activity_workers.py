"""Activity workers die at any moment, and hosts with them; each call has one result, and none is lost."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.faults.letters import Written
from tests.support.commands import ROOT, holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-letters"
LETTERS = 600
KILLS = 6
SEED = 20260102
"""Of the moments at which an activity worker is killed; a moment is a number of results."""

COMPLETED: LiteralString = "select count(*) from holdfast.events where type = 'ActivityCompleted'"
CLOSED: LiteralString = "select count(*) from holdfast.instances where is_completed"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, APP, ("print", "post"))
    yield environment(database_url, amqp_url, lease=3, runnable_detection=0.5)
    remove_app(amqp_url, APP, ("print", "post"))


def letters(count: int) -> Iterator[Raw]:
    for number in range(count):
        body = json.dumps({"letter": f"letter-{number}"}).encode()
        yield Raw(body=body, type=Written.__name__, message_id=f"{number}/written", key=f"letter-{number}")


def rows(database_url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


def count(database_url: str, query: LiteralString) -> int:
    return int(rows(database_url, query)[0][0])


def test_killed_activity_workers_lose_no_call_and_no_call_has_two_results(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311 # A seed is to give the same moments again.
    with Workers("tests.faults.letters:app", env, tmp_path) as workers:
        host = workers.start()
        await_hosts(database_url, 1)
        running = [workers.start_activities(queue) for queue in ("print", "post", "post")]
        publish(amqp_url, APP, letters(LETTERS))
        for progress in sorted(chance.sample(range(4 * LETTERS), KILLS)):
            eventually(f"{progress} results", lambda at=progress: count(database_url, COMPLETED) >= at, 120)  # type: ignore[misc]
            place = chance.randrange(len(running))
            running[place].kill()
            running[place] = workers.start_activities("print" if place == 0 else "post")
        host.kill()
        host = workers.start()
        eventually("every letter is posted", lambda: count(database_url, CLOSED) == LETTERS, 120)
        for worker in running:
            eventually("it has begun", lambda at=worker: '"started"' in at.output)  # type: ignore[misc]
        assert [worker.stop() for worker in running] == [0, 0, 0]
        assert host.is_running
    check(database_url, "paper")
    verified = holdfast("verify", "--app", APP, env=env)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def check(database_url: str, material: str) -> None:
    """Each letter is one completed instance, and each call of an activity has one result."""
    results = rows(database_url, "select data -> 'result' from holdfast.events where type = 'InstanceCompleted'")
    wanted = {f"letter-{number} on {material}, folded, posted with 3" for number in range(LETTERS)}
    assert {posted for ((posted, copy),) in results if copy == "copy, folded"} == wanted
    assert len(results) == LETTERS
    assert count(database_url, COMPLETED) == 4 * LETTERS
    calls: LiteralString = (
        "select count(distinct data ->> 'idempotency_key') from holdfast.events where type = 'ActivityCompleted'"
    )
    assert count(database_url, calls) == 4 * LETTERS
    applied: LiteralString = (
        "select count(*) from holdfast.inbox where type = 'holdfast.ActivityResult' and verdict = 'applied'"
    )
    requested: LiteralString = "select count(*) from holdfast.events where type = 'ActivityRequested'"
    assert count(database_url, applied) == count(database_url, requested)
    others: LiteralString = (
        "select distinct concat_ws(': ', verdict, reason) from holdfast.inbox "
        "where type = 'holdfast.ActivityResult' and verdict <> 'applied'"
    )
    assert rows(database_url, others) in ([], [("rejected: late",)])


def test_a_worker_that_follows_the_document_alone_does_as_well(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    with Workers("tests.faults.letters:app", env, tmp_path) as workers:
        workers.start()
        await_hosts(database_url, 1)
        script = ROOT / "tests" / "faults" / "foreign_worker.py"
        workers.run(sys.executable, script, amqp_url, "holdfast.faulty-letters.activity.print")
        workers.start_activities("post")
        publish(amqp_url, APP, letters(20))
        eventually("every letter is posted", lambda: count(database_url, CLOSED) == 20, 60)
    results = rows(database_url, "select data -> 'result' -> 0 from holdfast.events where type = 'InstanceCompleted'")
    assert {result for (result,) in results} == {
        f"letter-{number} on parchment, folded, posted with 3" for number in range(20)
    }
    delayed: LiteralString = (
        "select distinct attempts::int, said like '%printers.OutOfPaper%load paper%' from holdfast.events, "
        "lateral (select data ->> 'error' as said, data ->> 'attempts' as attempts) d where type = 'ActivityDelayed'"
    )
    assert rows(database_url, delayed) == [(1, True)]
