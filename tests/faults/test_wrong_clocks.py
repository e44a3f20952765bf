"""A worker whose clock is an hour off takes nothing over and fires no timer too early: the database's clock decides."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.faults.orders import Placed
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, environment, eventually

APP = "faulty-orders"
MODULE = "tests.faults.orders:app"
HOUR = 3600
LONG = 10


@pytest.fixture
def workers(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Workers]:
    remove_app(amqp_url, APP)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    env = environment(database_url, amqp_url, partitions=2, lease=3, runnable_detection=0.5)
    with Workers(MODULE, env, tmp_path) as workers:
        yield workers
    remove_app(amqp_url, APP)


def rows(database_url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


def place(amqp_url: str, key: str, patience: str) -> None:
    body = json.dumps({"order_id": key, "patience": patience}).encode()
    publish(amqp_url, APP, [Raw(body=body, type=Placed.__name__, message_id=f"{key}/placed", key=key)])


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["fast", "slow"])
def test_the_clock_of_the_database_decides(seconds: int, database_url: str, amqp_url: str, workers: Workers) -> None:
    healthy = workers.start()
    eventually("the healthy worker has started", lambda: '"started"' in healthy.output)
    for number in range(LONG):
        place(amqp_url, f"long-{number}", "PT30M")
    waits: LiteralString = """
        select execution_status, count(*) from holdfast.instances where correlation_key like 'long%' group by 1
    """
    eventually("the orders wait", lambda: rows(database_url, waits) == [("idle", LONG)])

    skewed = workers.run(sys.executable, "-m", "tests.faults.skewed_worker", str(seconds), MODULE)
    eventually("the other worker has started", lambda: '"started"' in skewed.output)
    # What it writes into its own lease is the database's time too.
    leases: LiteralString = "select lease_expiration - now() < '4 s' from holdfast.hosts where lease_expiration > now()"
    assert rows(database_url, leases) == [(True,), (True,)]
    renewed: LiteralString = "select host_id from holdfast.hosts where lease_expiration > started_at + interval '4 s'"
    eventually("both have renewed their leases", lambda: len(rows(database_url, renewed)) == 2)
    shared: LiteralString = "select partitions from holdfast.hosts order by 1"
    eventually("each has a partition", lambda: rows(database_url, shared) == [([0],), ([1],)])
    taken: LiteralString = """
        select count(*) filter (where i.partition <> all(h.partitions)), count(*) > 0
        from holdfast.instances i join holdfast.hosts h on h.host_id = i.lock_owner
    """
    assert rows(database_url, taken) == [(0, True)]

    healthy.kill()
    place(amqp_url, "short", "PT1S")
    late: LiteralString = "select outcome from holdfast.instances where correlation_key = 'short'"
    eventually("the short timer has fired", lambda: rows(database_url, late) == [("completed",)])
    # The time of an event is when it was written, which may be long after the burst that it tells of.
    fired: LiteralString = """
        select i.correlation_key, f.recorded_at >= (o.data ->> 'due')::timestamptz - interval '0.5 s',
            abs(extract(epoch from (o.data ->> 'due')::timestamptz - o.recorded_at)) < 600
        from holdfast.events f
        join holdfast.instances i using (instance_id)
        join holdfast.events o
            on o.instance_id = f.instance_id and o.type = 'BookmarkOpened' and o.data ->> 'kind' = 'timer'
        where f.type = 'TimerFired'
    """
    assert rows(database_url, fired) == [("short", True, True)]
    assert rows(database_url, waits) == [("idle", LONG)]
    assert skewed.is_running
