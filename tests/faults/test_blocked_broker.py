"""RabbitMQ runs short of memory and takes no messages: workers go on, and what they send waits in the outbox."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from compose.local.services import Services
from holdfast import Client
from holdfast.schemas.errors import BrokerError
from holdfast.schemas.postgres.migrate import migrate
from tests.faults.orders import Placed
from tests.faults.test_lost_servers import orders
from tests.support.rabbitmq import bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-orders"
OUT = "test-blocked-orders-out"
ORDERS = 300


@pytest.fixture
def own_database_url(own_services: Services) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = own_services.new_database(name)
    asyncio.run(migrate(url))
    with psycopg.connect(url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    yield url
    own_services.drop_database(name)


def count(database_url: str, query: LiteralString) -> int:
    with psycopg.connect(database_url) as connection:
        row: Any = connection.execute(query).fetchone()
    return int(row[0])


def test_a_blocked_broker_stops_no_worker_and_loses_nothing(
    own_services: Services, own_database_url: str, tmp_path: Path
) -> None:
    url = own_services.amqp_url
    assert own_services.rabbitmq
    remove_app(url, APP)
    workers = Workers("tests.faults.orders:app", environment(own_database_url, url, lease=30), tmp_path)
    with workers:
        first = workers.start()
        await_hosts(own_database_url, 1)
        bind_out(url, APP, OUT)
        assert first.stop() == 0
        publish(url, APP, orders(range(ORDERS)))
        own_services.rabbitmq.control("set_vm_memory_high_watermark", "0")
        try:
            worker = workers.start()
            eventually(
                "every order is completed",
                lambda: count(own_database_url, "select count(*) from holdfast.instances where is_completed") == ORDERS,
                120,
            )
            assert count(own_database_url, "select count(*) from holdfast.outbox") == ORDERS
            assert worker.is_running
            with pytest.raises(BrokerError, match="short of memory or disk"):
                asyncio.run(publish_one(url))
        finally:
            own_services.rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        eventually(
            "every message is out", lambda: count(own_database_url, "select count(*) from holdfast.outbox") == 0, 60
        )
        assert worker.is_running
    ids = {message.header.properties.message_id for message in take_all(url, OUT)}
    assert len(ids) == ORDERS
    remove_app(url, APP)


async def publish_one(url: str) -> None:
    async with Client(amqp_url=url, app=APP, publish_patience=3) as client:
        await client.publish(Placed(order_id="one-more"))
