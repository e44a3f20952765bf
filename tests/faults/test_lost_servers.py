"""Servers go away and come back, and a pooler too: a worker waits for them, loses nothing and repeats nothing."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from compose.local.pgbouncer import PgBouncer
from compose.local.services import Services
from holdfast.schemas.postgres.migrate import migrate
from tests.faults.orders import Paid, Placed, Settled
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-orders"
OUT = "test-faulty-orders-out"
ORDERS = 1000

CLOSED: LiteralString = "select count(*) from holdfast.instances where is_completed"


@pytest.fixture
def own_database_url(own_services: Services) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = own_services.new_database(name)
    asyncio.run(migrate(url))
    with psycopg.connect(url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    yield url
    own_services.drop_database(name)


@pytest.fixture
def workers(own_services: Services, own_database_url: str, tmp_path: Path) -> Iterator[Workers]:
    remove_app(own_services.amqp_url, APP)
    env = environment(own_database_url, own_services.amqp_url, lease=3, runnable_detection=0.5)
    yield Workers("tests.faults.orders:app", env, tmp_path)
    remove_app(own_services.amqp_url, APP)


def rows(database_url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


def closed(database_url: str) -> int:
    return int(rows(database_url, CLOSED)[0][0])


def _are_closed(database_url: str, count: int) -> bool:
    return closed(database_url) >= count


def orders(numbers: range) -> Iterator[Raw]:
    for kind in (Placed, Paid):
        for number in numbers:
            key = f"order-{number}"
            body = json.dumps({"order_id": key}).encode()
            yield Raw(body=body, type=kind.__name__, message_id=f"{key}/{kind.__name__}", key=key)


def check(database_url: str, amqp_url: str, count: int) -> None:
    """Every order is completed once, recorded once a step, and sent its message."""
    statuses = rows(database_url, "select outcome, is_suspended, count(*) from holdfast.instances group by 1, 2")
    assert statuses == [("completed", False, count)]
    verdicts = rows(database_url, "select verdict, count(*) from holdfast.inbox group by 1")
    assert verdicts == [("applied", 2 * count)]
    wanted = Counter((f"order-{number}", step) for number in range(count) for step in ("placed", "paid"))
    assert Counter(rows(database_url, "select order_id, step from records")) == wanted
    empty = [(0,)]
    eventually("every message is out", lambda: rows(database_url, "select count(*) from holdfast.outbox") == empty)
    sent = {
        message.header.properties.message_id: Settled.model_validate_json(message.body).order_id
        for message in take_all(amqp_url, OUT)
    }
    assert Counter(sent.values()) == Counter(f"order-{number}" for number in range(count))


def test_a_worker_that_finds_no_rabbitmq_waits_for_it(
    own_services: Services, own_database_url: str, workers: Workers
) -> None:
    assert own_services.rabbitmq
    with workers:
        own_services.rabbitmq.stop("orderly")
        try:
            worker = workers.start()
            eventually("the worker says that it waits for RabbitMQ", lambda: "cannot connect" in worker.output)
            assert worker.is_running
        finally:
            own_services.rabbitmq.start()
        await_hosts(own_database_url, 1)
        bind_out(own_services.amqp_url, APP, OUT)
        publish(own_services.amqp_url, APP, orders(range(10)))
        eventually("every order is closed", lambda: closed(own_database_url) == 10)
        assert "Traceback" not in worker.output
        check(own_database_url, own_services.amqp_url, 10)


@pytest.mark.parametrize("mode", ["orderly", "kill"])
def test_rabbitmq_goes_away_in_mid_run(
    mode: Any, own_services: Services, own_database_url: str, workers: Workers
) -> None:
    assert own_services.rabbitmq
    with workers:
        worker = workers.start()
        await_hosts(own_database_url, 1)
        bind_out(own_services.amqp_url, APP, OUT)
        publish(own_services.amqp_url, APP, orders(range(ORDERS)))
        eventually("a part of the orders is closed", lambda: closed(own_database_url) >= 20)
        own_services.rabbitmq.stop(mode)
        assert closed(own_database_url) < ORDERS
        own_services.rabbitmq.start()
        eventually("every order is closed", lambda: closed(own_database_url) == ORDERS, 300)
        assert worker.is_running
        check(own_database_url, own_services.amqp_url, ORDERS)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_is_restarted_in_mid_run(
    mode: Any, own_services: Services, own_database_url: str, workers: Workers
) -> None:
    assert own_services.postgres
    with workers:
        worker = workers.start()
        await_hosts(own_database_url, 1)
        bind_out(own_services.amqp_url, APP, OUT)
        publish(own_services.amqp_url, APP, orders(range(ORDERS)))
        eventually("a part of the orders is closed", lambda: closed(own_database_url) >= 20)
        own_services.postgres.restart(mode)
        assert closed(own_database_url) < ORDERS
        eventually("every order is closed", lambda: closed(own_database_url) == ORDERS, 300)
        assert worker.is_running
        check(own_database_url, own_services.amqp_url, ORDERS)


def test_pgbouncer_dies_in_mid_run(own_services: Services, own_database_url: str, tmp_path: Path) -> None:
    remove_app(own_services.amqp_url, APP)
    with closing(PgBouncer(own_database_url)) as pgbouncer:
        pgbouncer.start()
        env = environment(pgbouncer.url, own_services.amqp_url, lease=3, runnable_detection=0.5, partitions=2)
        with Workers("tests.faults.orders:app", env, tmp_path) as workers:
            running = [workers.start(), workers.start()]
            await_hosts(own_database_url, 2)
            bind_out(own_services.amqp_url, APP, OUT)
            publish(own_services.amqp_url, APP, orders(range(ORDERS)))
            for part in (20, ORDERS // 2):
                eventually(f"{part} orders are closed", partial(_are_closed, own_database_url, part))
                pgbouncer.kill()
                assert closed(own_database_url) < ORDERS
                pgbouncer.start()
            eventually("every order is closed", lambda: closed(own_database_url) == ORDERS, 300)
            assert all(worker.is_running for worker in running)
            check(own_database_url, own_services.amqp_url, ORDERS)
    remove_app(own_services.amqp_url, APP)
