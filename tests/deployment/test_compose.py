"""`docker compose up` brings the orders example up; killing or replacing any container under load loses nothing."""

import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import LiteralString, Self

import psycopg
import pytest
from aiormq.exceptions import AMQPError

from compose.local.rabbitmq import free_ports
from tests.architecture.house import ROOT
from tests.support.compose import Compose, docker, inspect, is_healthy, state
from tests.support.rabbitmq import Raw, bind_out, publish, take_all
from tests.support.workers import eventually

pytestmark = pytest.mark.timeout(1200)

OUT = "test-compose-out"
COMPLETED: LiteralString = "select count(*) from holdfast.instances where outcome = 'completed'"
TAKEN_IN: LiteralString = "select count(*) from holdfast.inbox"
LIVING: LiteralString = "select count(*) from holdfast.hosts where lease_expiration > now()"
LOCKED: LiteralString = "select count(*) from holdfast.instance_rows where lock_owner is not null"
SCRAPE = """
import socket, urllib.request
for *_, (address, _) in socket.getaddrinfo("worker", 9464, socket.AF_INET, socket.SOCK_STREAM):
    print(urllib.request.urlopen(f"http://{address}:9464/metrics", timeout=30).read().decode())
"""
SEND = """
import os, pathlib, signal, sys
(worker,) = (
    int(process.name) for process in pathlib.Path("/proc").glob("[0-9]*")
    if b"/holdfast\\0worker\\0" in (process / "cmdline").read_bytes()
)
os.kill(worker, getattr(signal, sys.argv[1]))
"""
"""Sends the worker of a container a signal, inside."""


class Development(Compose):
    """The development set-up, on ports of its own."""

    def __init__(self) -> None:
        ports = free_ports(3)
        names = ("POSTGRES_PORT", "RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT")
        variables = {name: f"{port}" for name, port in zip(names, ports, strict=True)}
        super().__init__(variables=variables | {"HOLDFAST_LEASE": "5"})
        self.database_url = f"postgresql://postgres:development@127.0.0.1:{ports[0]}/holdfast"
        self.amqp_url = f"amqp://holdfast:development@127.0.0.1:{ports[1]}/"

    def up(self, *options: str) -> None:
        self.run("up", "--detach", "--scale", "worker=3", *options)
        eventually("the workers are healthy", lambda: all(map(is_healthy, self.containers("worker"))), 180)

    def count(self, query: LiteralString) -> int:
        """Return what a query counts; -1 while the server is away."""
        try:
            with psycopg.connect(self.database_url, connect_timeout=5) as connection:
                row = connection.execute(query).fetchone()
        except psycopg.OperationalError:
            return -1
        return int(row[0]) if row else -1


class Load:
    """Orders, placed and paid one after the other for as long as the block lasts, whatever becomes of the servers."""

    def __init__(self, amqp_url: str) -> None:
        self.orders: list[str] = []
        self.messages = 0
        self._amqp_url = amqp_url
        self._numbers = count()
        self._end = Event()

    def __enter__(self) -> Self:
        self._end.clear()
        self._thread = Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            names = [f"order-{number}" for number in (next(self._numbers) for _ in range(5))]
            messages = [*map(placed, names), *map(paid, names)]
            # What the broker has not confirmed is published again: it is known by its id.
            eventually("they are published", partial(self._published, messages), 300)
            self.orders += names
            self.messages += len(messages)

    def _published(self, messages: list[Raw]) -> bool:
        try:
            publish(self._amqp_url, "orders", messages)
        except (OSError, AMQPError):
            return False
        return True


def placed(order_id: str) -> Raw:
    body = json.dumps({"order_id": order_id, "item": "chair", "amount": "7.99"}).encode()
    return Raw(body=body, type="OrderPlaced", message_id=f"{order_id}/placed", key=order_id)


def paid(order_id: str) -> Raw:
    body = json.dumps({"order_id": order_id, "reference": "transfer"}).encode()
    return Raw(body=body, type="PaymentReceived", message_id=f"{order_id}/paid", key=order_id)


@pytest.fixture(scope="module")
def development() -> Iterator[Development]:
    with Development() as development:
        development.up("--build")
        yield development


def test_what_the_page_shows_first_works_as_it_stands(development: Development) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    section = page.partition("## Try it in containers first")[2].partition("\n## ")[0]
    said = {}
    for line in re.findall(r"^    docker compose (.+?)(?:  +.*)?$", section, re.MULTILINE):
        # What is brought up already is not brought up again, and nobody sits at a terminal.
        if not line.startswith("up"):
            said[line] = development.run(*line.replace("exec ", "exec -T ").split())
    publishing, counting, shipping = said
    assert "published 300 orders" in said[publishing]
    eventually(
        "the orders are completed", lambda: "completed" in development.run(*counting.replace("exec", "exec -T").split())
    )
    eventually("240 orders are completed", lambda: development.count(COMPLETED) == 240)
    eventually("all messages are out", lambda: development.count("select count(*) from holdfast.outbox") == 0)
    eventually("they are shipped", lambda: development.run(*shipping.split()).count("shipped order-") == 240)


def test_killing_or_replacing_any_container_under_load_loses_nothing(development: Development) -> None:
    before = development.count(COMPLETED)
    bind_out(development.amqp_url, "orders", OUT)
    load = Load(development.amqp_url)
    known = development.count(TAKEN_IN)

    def is_open() -> bool:
        taken_in = development.count(TAKEN_IN) - known
        return 0 <= taken_in < load.messages

    first, second, _ = development.containers("worker")
    servers = [*development.containers("postgres"), *development.containers("rabbitmq")]
    for victim in (first, *servers, second):
        with load:
            eventually("some of the messages are on their way", is_open)
            docker("kill", victim)
            docker("start", victim)
            eventually("Postgres serves", lambda: development.count(TAKEN_IN) > 0, 180)
    for service in ("postgres", "rabbitmq"):
        with load:
            eventually("some of the messages are on their way", is_open)
            docker("rm", "--force", *development.containers(service))
            development.up()

    def is_done() -> bool:
        return development.count(COMPLETED) == before + len(load.orders)

    # A worker that is to stop ends its bursts, if it has not so many that they outlast its grace.
    eventually("all orders are completed", is_done, 300)
    with load:
        eventually("some of the messages are on their way", is_open)
        began = datetime.now(UTC).isoformat()
        development.run("stop", "worker")
    workers = development.containers("worker")
    assert [state(worker)["ExitCode"] for worker in workers] == [0, 0, 0]
    for worker in workers:
        log = docker("logs", "--since", began, worker)
        assert '"event": "stopped"' in log
        assert "cut short" not in log
    assert (development.count(LIVING), development.count(LOCKED)) == (0, 0)
    development.up()

    eventually("all orders are completed", is_done, 300)
    eventually("all messages are out", lambda: development.count("select count(*) from holdfast.outbox") == 0)
    shipped = {json.loads(message.body)["order_id"] for message in take_all(development.amqp_url, OUT)}
    assert shipped == {*load.orders}
    recorded = "select count(*) from worker.orders where order_id ~ '^order-[0-9]+$'"
    assert development.count(recorded) == len(load.orders)
    assert "no difference" in development.run("exec", "-T", "worker", "holdfast", "verify", "--app", "orders")


def test_the_metrics_of_every_worker_are_read_by_others(development: Development) -> None:
    read = development.run("exec", "-T", "warehouse", "python3", "-c", SCRAPE)
    assert len(re.findall(r"^holdfast_tenures_total\{", read, re.MULTILINE)) == 3
    for worker in development.containers("worker"):
        address = docker("port", worker, "9464").strip()
        assert address.startswith("127.0.0.1:")
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            assert "holdfast_tenures_total{" in answer.read().decode()


def test_workers_have_no_more_rights_than_they_need(development: Development) -> None:
    (postgres,) = development.containers("postgres")
    (rabbitmq,) = development.containers("rabbitmq")
    roles = "select count(*) from pg_roles where rolsuper or rolcreaterole or rolcreatedb or rolreplication"
    assert development.count(roles) == 1
    worker_url = development.database_url.replace("//postgres:", "//worker:")
    with psycopg.connect(worker_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("drop trigger events_are_append_only on holdfast.events")
    assert "holdfast\t[monitoring]" in docker("exec", rabbitmq, "rabbitmqctl", "--quiet", "list_users")
    assert docker("exec", postgres, "id", "--user", "postgres").strip() != "0"
    for container in development.containers("worker"):
        assert docker("exec", container, "id", "-u").strip() == "10001"
        assert docker("exec", container, "sh", "-c", "touch /app/x 2>&1 || true").endswith("Read-only file system\n")
        assert inspect(container)["HostConfig"]["CapDrop"] == ["ALL"]


def test_a_worker_whose_event_loop_stands_still_is_not_healthy(development: Development) -> None:
    worker, *_ = development.containers("worker")
    docker("exec", worker, "python3", "-c", SEND, "SIGSTOP")
    try:
        eventually("it is found out", lambda: state(worker)["Health"]["Status"] == "unhealthy")
    finally:
        docker("exec", worker, "python3", "-c", SEND, "SIGCONT")
    eventually("it is healthy again", lambda: is_healthy(worker))


def test_every_container_is_limited(development: Development) -> None:
    for container in development.containers():
        found = inspect(container)["HostConfig"]
        assert min(found["Memory"], found["NanoCpus"], found["PidsLimit"] or 0) > 0, found
        assert found["LogConfig"]["Type"] == "local"
    (rabbitmq,) = development.containers("rabbitmq")
    limit = docker("exec", rabbitmq, "rabbitmqctl", "--quiet", "eval", "vm_memory_monitor:get_total_memory().")
    assert int(limit) == inspect(rabbitmq)["HostConfig"]["Memory"]
    assert docker("exec", rabbitmq, "sh", "-c", "ulimit -Hn").strip() == "16384"
