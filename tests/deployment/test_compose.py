"""`docker compose up` brings the orders example up; killing any container under load loses nothing."""

import json
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from compose.local.rabbitmq import free_ports
from tests.support.compose import Compose, docker, state
from tests.support.rabbitmq import Raw, bind_out, publish, take_all
from tests.support.workers import eventually

pytestmark = pytest.mark.timeout(900)

ORDERS = 300
OUT = "test-compose-out"
COMPLETED: LiteralString = "select count(*) from holdfast.instances where outcome = 'completed'"
LIVING: LiteralString = "select count(*) from holdfast.hosts where lease_expiration > now()"


def placed(numbers: range) -> Iterator[Raw]:
    for number in numbers:
        body = json.dumps({"order_id": f"order-{number}", "item": "chair", "amount": "7.99"}).encode()
        yield Raw(body=body, type="OrderPlaced", message_id=f"{number}/placed", key=f"order-{number}")


def paid(numbers: range) -> Iterator[Raw]:
    for number in numbers:
        body = json.dumps({"order_id": f"order-{number}", "reference": "transfer"}).encode()
        yield Raw(body=body, type="PaymentReceived", message_id=f"{number}/paid", key=f"order-{number}")


def test_killing_any_container_under_load_loses_nothing() -> None:
    postgres_port, rabbitmq_port, management_port = free_ports(3)
    variables = {
        "POSTGRES_PORT": f"{postgres_port}",
        "RABBITMQ_PORT": f"{rabbitmq_port}",
        "RABBITMQ_MANAGEMENT_PORT": f"{management_port}",
        "HOLDFAST_LEASE": "5",
    }
    database_url = f"postgresql://holdfast:development@127.0.0.1:{postgres_port}/holdfast"
    amqp_url = f"amqp://holdfast:development@127.0.0.1:{rabbitmq_port}/"
    with Compose(["compose.yml", "compose.override.yml"], variables) as compose:
        compose.run("up", "--detach", "--build", "--scale", "worker=3")
        workers = compose.containers("worker")
        assert len(workers) == 3
        eventually("the workers are healthy", lambda: all(map(is_healthy, workers)), 120)
        bind_out(amqp_url, "orders", OUT)

        publish(amqp_url, "orders", placed(range(ORDERS)))
        victims = [workers[0], *compose.containers("postgres"), *compose.containers("rabbitmq"), workers[1]]
        share = ORDERS // len(victims)
        for number, victim in enumerate(victims):
            eventually("the broker serves", lambda: is_served(amqp_url), 180)
            publish(amqp_url, "orders", paid(range(number * share, (number + 1) * share)))
            docker("kill", victim)
            docker("start", victim)

        eventually("all orders are completed", lambda: count(database_url, COMPLETED) == ORDERS, 240)
        assert count(database_url, "select count(*) from orders") == ORDERS
        eventually("all messages are out", lambda: count(database_url, "select count(*) from holdfast.outbox") == 0)
        shipped = [json.loads(message.body)["order_id"] for message in take_all(amqp_url, OUT)]
        assert set(shipped) == {f"order-{number}" for number in range(ORDERS)}
        assert "no difference" in compose.run("run", "--rm", "migrate", "verify", "--app", "orders")

        compose.run("stop", "worker")
        assert [state(w)["ExitCode"] for w in workers] == [0, 0, 0]
        assert count(database_url, LIVING) == 0


def is_healthy(container: str) -> bool:
    return bool(state(container)["Health"]["Status"] == "healthy")


def count(database_url: str, query: LiteralString) -> int:
    """Return what a query counts; -1 while the server is away."""
    try:
        with psycopg.connect(database_url, connect_timeout=5) as connection:
            row = connection.execute(query).fetchone()
    except psycopg.OperationalError:
        return -1
    return int(row[0]) if row else -1


def is_served(amqp_url: str) -> bool:
    try:
        publish(amqp_url, "orders", [])
    except OSError:
        return False
    return True
