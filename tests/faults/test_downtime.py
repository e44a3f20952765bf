"""While all workers are down a message comes and then a timer falls due: whoever came first wins when they are back."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.faults.patience import Answered, Asked
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-patience"
ANSWERED = 100
LATE = 5
PATIENCE = timedelta(seconds=6)

IDLE: LiteralString = "select count(*) from holdfast.instances where execution_status = 'idle' and version > 0"
NOT_DUE: LiteralString = "select count(*) from holdfast.bookmarks where kind = 'timer' and due > clock_timestamp()"
OPEN: LiteralString = "select count(*) from holdfast.instances where not is_completed"
RESULTS: LiteralString = "select data ->> 'result' from holdfast.events where type = 'InstanceCompleted'"


@pytest.fixture(params=[1, 4])
def env(request: pytest.FixtureRequest, database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    """The environment of the app's workers, for each number of partitions."""
    remove_app(amqp_url, APP)
    yield environment(database_url, amqp_url, partitions=request.param, lease=6, host_lock_renewal=2, prefetch=20)
    remove_app(amqp_url, APP)


def raw(message: Asked | Answered) -> Raw:
    name = f"{message.message_type}-{message.key}"
    return Raw(type=message.message_type, message_id=name, key=message.key, body=message.model_dump_json().encode())


def count(database_url: str, query: LiteralString) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


# Protocol: I19.
def test_a_message_that_came_while_the_workers_were_down_wins_against_a_timer_that_fell_due_later(
    env: dict[str, str], database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    everybody = ANSWERED + LATE
    with Workers("tests.faults.patience:app", env, tmp_path) as workers:
        before = workers.start()
        await_hosts(database_url, 1)
        publish(amqp_url, APP, [raw(Asked(key=f"k-{k}", patience=PATIENCE)) for k in range(everybody)])
        eventually("all instances wait", lambda: count(database_url, IDLE) == everybody)
        # One that ends on purpose gives its locks back, so that nothing but the rule keeps the timers.
        assert before.stop() == 0
        assert count(database_url, NOT_DUE) == everybody
        publish(amqp_url, APP, [raw(Answered(key=f"k-{k}")) for k in range(ANSWERED)])
        eventually("all timers are due", lambda: count(database_url, NOT_DUE) == 0)
        workers.start()
        eventually("all instances are closed", lambda: count(database_url, OPEN) == 0)
    with psycopg.connect(database_url) as connection:
        results = Counter(row[0] for row in connection.execute(RESULTS).fetchall())
    assert results == {"answered": ANSWERED, "late": LATE}
