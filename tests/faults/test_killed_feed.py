"""Workers that publish the event feed are killed in the middle of it; who listens hears everything, in order."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.support.length import length
from tests.support.projections import rows
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-orders"
HEARD = "test-faulty-orders-events"
ORDERS = length(400, long=500)
KILLS = length(2, long=4)

CLOSED: LiteralString = "select count(*)::int from holdfast.instances where is_completed"
FED: LiteralString = "select coalesce(max(handled), 0)::int from holdfast.projections where name = 'holdfast.feed'"
BEHIND: LiteralString = "select events_behind::int from holdfast.projection_lag where name = 'holdfast.feed'"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, APP)
    bind_out(amqp_url, APP, HEARD, "events")
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    yield environment(database_url, amqp_url, lease=3, runnable_detection=0.5, event_feed=1, projection_poll=0.02)
    remove_app(amqp_url, APP)


def messages() -> Iterator[Raw]:
    for kind in ("PlacedInMemory", "Paid"):
        for number in range(ORDERS):
            body = json.dumps({"order_id": f"order-{number}"}).encode()
            yield Raw(body=body, type=kind, message_id=f"{number}/{kind}", key=f"order-{number}")


def has_fed(database_url: str, least: int) -> bool:
    return bool(rows(database_url, FED)[0][0] >= least)


# Protocol: D21.
def test_a_listener_hears_every_event_in_order_while_workers_are_killed(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    with Workers("tests.faults.orders:app", env, tmp_path) as workers:
        running = [workers.start(), workers.start()]
        await_hosts(database_url, 2)
        publish(amqp_url, APP, messages())
        for kill in range(1, KILLS + 1):
            eventually("more events are out", partial(has_fed, database_url, kill * ORDERS))
            assert rows(database_url, CLOSED) != [(ORDERS,)]
            running.pop(0).kill()
            running.append(workers.start())
        eventually("all orders are done", lambda: rows(database_url, CLOSED) == [(ORDERS,)], 120)
        eventually("all events are out", lambda: rows(database_url, BEHIND) == [(0,)])
        assert [worker.stop() for worker in running] == [0, 0]

    heard = [message.header.properties.message_id for message in take_all(amqp_url, HEARD)]
    written = rows(
        database_url, "select instance_id || ':' || version, instance_id::text from holdfast.events order by version"
    )
    once = dict.fromkeys(heard)
    assert set(once) == {event for event, _ in written}
    expected: dict[str, list[str]] = {}
    for event, instance in written:
        expected.setdefault(str(instance), []).append(event)
    found: dict[str, list[str]] = {}
    for event in once:
        found.setdefault(str(event).partition(":")[0], []).append(str(event))
    assert found == expected
