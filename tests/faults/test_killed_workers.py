"""Workers die at any moment, again and again; nothing is lost, and nothing that was persisted is done twice."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.faults.orders import Paid, Placed, PlacedInMemory, Settled
from tests.support.commands import holdfast
from tests.support.length import length
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-orders"
OUT = "test-faulty-orders-out"
ORDERS = length(1000, long=2000)
KILLS = length(5, long=10)
SEED = 20260101
"""Of the moments at which a worker is killed and of the choice which one; a moment is a number of messages applied."""

APPLIED: LiteralString = "select count(*) from holdfast.inbox where verdict = 'applied'"
CLOSED: LiteralString = "select count(*) from holdfast.instances where is_completed"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, APP)
    bind_out(amqp_url, APP, OUT)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    yield environment(database_url, amqp_url, partitions=2, lease=3, runnable_detection=0.5)
    remove_app(amqp_url, APP)


def is_paid(number: int) -> bool:
    return number % 10 != 9


PAID = sum(map(is_paid, range(ORDERS)))
MESSAGES = ORDERS + PAID


def starts() -> Iterator[Raw]:
    """Every other order runs in memory; one in ten is not paid and waits half a second for that."""
    for number in range(ORDERS):
        kind = Placed if number % 2 else PlacedInMemory
        body = {"order_id": f"order-{number}"} | ({} if is_paid(number) else {"patience": "PT0.5S"})
        yield Raw(
            body=json.dumps(body).encode(), type=kind.__name__, message_id=f"{number}/placed", key=f"order-{number}"
        )


def payments() -> Iterator[Raw]:
    for number in filter(is_paid, range(ORDERS)):
        body = json.dumps({"order_id": f"order-{number}"}).encode()
        yield Raw(body=body, type=Paid.__name__, message_id=f"{number}/paid", key=f"order-{number}")


def rows(database_url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


def count(database_url: str, query: LiteralString) -> int:
    return int(rows(database_url, query)[0][0])


def test_killed_workers_lose_nothing_and_repeat_nothing(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311 # A seed is to give the same moments again.
    with Workers("tests.faults.orders:app", env, tmp_path) as workers:
        running = [workers.start(), workers.start()]
        await_hosts(database_url, 2)
        publish(amqp_url, APP, starts())
        publish(amqp_url, APP, payments())
        busy = 0
        for progress in sorted(chance.sample(range(MESSAGES), KILLS)):
            await_applied(database_url, progress)
            busy += count(database_url, CLOSED) < ORDERS
            running.pop(chance.randrange(len(running))).kill()
            running.append(workers.start())
        assert busy > KILLS // 2
        eventually("every order is closed", lambda: count(database_url, CLOSED) == ORDERS, 300)
        eventually("every message is out", lambda: count(database_url, "select count(*) from holdfast.outbox") == 0)
        assert all(worker.is_running for worker in running)

    expected = {f"order-{number}": "paid" if is_paid(number) else "late" for number in range(ORDERS)}
    check_log(database_url)
    check_records(database_url, expected)
    check_sent(amqp_url, expected)
    verified = holdfast("verify", "--app", APP, env=env)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def await_applied(database_url: str, messages: int) -> None:
    eventually(f"{messages} messages are applied", lambda: count(database_url, APPLIED) >= messages, 120)


def check_log(database_url: str) -> None:
    """Each order is one instance; each message was applied once, and each activity's result persisted once."""
    statuses = rows(database_url, "select outcome, is_suspended, count(*) from holdfast.instances group by 1, 2")
    assert statuses == [("completed", False, ORDERS)]
    verdicts = rows(database_url, "select type, verdict, count(*) from holdfast.inbox group by 1, 2 order by 1")
    assert verdicts == [
        ("Paid", "applied", PAID),
        ("Placed", "applied", ORDERS // 2),
        ("PlacedInMemory", "applied", ORDERS // 2),
    ]
    events = dict(rows(database_url, "select type, count(*) from holdfast.events group by 1"))
    assert events["InstanceStarted"] == ORDERS
    assert events["MessageReceived"] == PAID
    assert events["TimerFired"] == ORDERS - PAID
    assert events["ActivityCompleted"] == 4 * ORDERS
    assert events["MessageSent"] == ORDERS
    assert events["InstanceCompleted"] == ORDERS
    assert (
        count(
            database_url,
            "select count(distinct data ->> 'idempotency_key') from holdfast.events where type = 'ActivityCompleted'",
        )
        == 4 * ORDERS
    )
    gaps = "select count(*) from (select 1 from holdfast.events group by instance_id having max(version) <> count(*)) g"
    assert count(database_url, gaps) == 0


def check_records(database_url: str, expected: dict[str, str]) -> None:
    """The record activities' rows are there once, and none for what did not happen."""
    found = Counter(rows(database_url, "select order_id, step from records"))
    wanted = Counter((order_id, "placed") for order_id in expected) + Counter(expected.items())
    assert found == wanted


def check_sent(amqp_url: str, expected: dict[str, str]) -> None:
    """Every order sent one message; the broker may have it twice, under the same id."""
    sent: dict[str | None, Settled] = {}
    for message in take_all(amqp_url, OUT):
        settled = Settled.model_validate_json(message.body)
        assert sent.setdefault(message.header.properties.message_id, settled) == settled
    assert len(sent) == ORDERS
    assert {settled.order_id: settled.outcome for settled in sent.values()} == expected
