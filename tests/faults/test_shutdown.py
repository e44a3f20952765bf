"""A worker that is told to stop frees its locks and ends in the time that it is given, whatever holds it up."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from compose.local.services import Services
from tests.support.commands import HOLDFAST
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.silence import Silence, silence_before
from tests.support.workers import Worker, Workers, environment, eventually

APP = "shutdowns"
OUT = "test-shutdowns-out"
GRACE = 6.0
SHORT = [f"short-{number}" for number in range(20)]
LONG = [f"long-{number}" for number in range(3)]

WITHIN = 1.9
"""Of the grace, for all that a worker does: two graces one after the other would be more than that."""


class Desk:
    """The workers of the app, its messages, and what the database says."""

    def __init__(self, workers: Workers, database_url: str, amqp_url: str, folder: Path) -> None:
        self.workers = workers
        self.database_url = database_url
        self.amqp_url = amqp_url
        self.folder = folder

    def start(self) -> Worker:
        worker = self.workers.start()
        eventually("the worker has started", lambda: '"event": "started"' in worker.output)
        return worker

    def publish(self, *keys: str, **values: bool) -> None:
        for key in keys:
            self._brake(key).touch()
        bodies = {key: json.dumps({"key": key, **values}).encode() for key in keys}
        publish(
            self.amqp_url,
            APP,
            [Raw(body=body, type="Ordered", message_id=f"{key}/ordered", key=key) for key, body in bodies.items()],
        )

    def finish(self, *keys: str) -> None:
        for key in keys:
            self._brake(key).unlink()

    def ask(self, query: LiteralString) -> int:
        with psycopg.connect(self.database_url) as connection:
            row: Any = connection.execute(query).fetchone()
        return int(row[0])

    @property
    def held(self) -> int:
        return self.ask("select count(*) from holdfast.instances where lock_owner is not null")

    @property
    def hosts(self) -> int:
        return self.ask("select count(*) from holdfast.hosts")

    @property
    def unconfirmed(self) -> int:
        return self.ask("select count(*) from holdfast.outbox")

    @property
    def completed(self) -> int:
        return self.ask("select count(*) from holdfast.instances where outcome = 'completed'")

    def _brake(self, key: str) -> Path:
        return self.folder / f"{key}-takes-long"


@pytest.fixture
def silence(own_services: Services) -> Iterator[Silence]:
    with silence_before(own_services.amqp_url) as silence:
        yield silence


@pytest.fixture
def desk(own_services: Services, silence: Silence, database_url: str, tmp_path: Path) -> Iterator[Desk]:
    amqp_url = own_services.amqp_url
    remove_app(amqp_url, APP)
    # No lease lapses meanwhile, so what frees the locks is the worker.
    env = environment(database_url, silence.url, shutdown_grace=GRACE, host_lock_renewal=60, runnable_detection=0.5)
    with Workers("tests.faults.shutdowns:app", env | {"SHUTDOWNS_FOLDER": str(tmp_path)}, tmp_path) as workers:
        yield Desk(workers, database_url, amqp_url, tmp_path)
    remove_app(amqp_url, APP)


def seconds_to_end(worker: Worker) -> float:
    """Tell the worker to stop, and return after how long it has ended, with success."""
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10 * GRACE) == 0
    return time.monotonic() - began


@contextmanager
def blocked(services: Services, silence: Silence) -> Iterator[None]:
    """Have RabbitMQ take no messages, as if it were short of memory."""
    del silence
    assert services.rabbitmq
    services.rabbitmq.control("set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        services.rabbitmq.control("set_vm_memory_high_watermark", "0.4")


@contextmanager
def silent(services: Services, silence: Silence) -> Iterator[None]:
    """Have RabbitMQ answer nothing, on connections that stay open."""
    del services
    silence.kept = True
    try:
        yield
    finally:
        silence.kept = False


@pytest.mark.parametrize("held_up", [blocked, silent])
def test_bursts_and_messages_that_do_not_end_share_one_grace(
    desk: Desk, own_services: Services, silence: Silence, held_up: Callable[..., AbstractContextManager[None]]
) -> None:
    bind_out(desk.amqp_url, APP, OUT)
    worker = desk.start()
    desk.publish(*SHORT, *LONG)
    eventually("all are under way", lambda: desk.held == len(SHORT) + len(LONG))
    with held_up(own_services, silence):
        desk.finish(*SHORT)
        eventually("the short ones are completed", lambda: desk.completed == len(SHORT))
        assert desk.unconfirmed == len(SHORT)

        taken = seconds_to_end(worker)

        assert GRACE <= taken < WITHIN * GRACE
        assert desk.hosts == 0
        assert desk.unconfirmed == len(SHORT)
    desk.start()
    desk.finish(*LONG)
    eventually("every order is completed", lambda: desk.completed == len(SHORT) + len(LONG))
    eventually("every message is out", lambda: desk.unconfirmed == 0)
    sent = Counter(
        (message.header.properties.message_id, json.loads(message.body)["key"])
        for message in take_all(desk.amqp_url, OUT)
    )
    assert sorted(key for _, key in sent) == sorted([*SHORT, *LONG])


@pytest.mark.parametrize("kind", ["stubborn", "in_thread"])
def test_code_that_heeds_no_cancellation_holds_up_no_end(desk: Desk, kind: str) -> None:
    worker = desk.start()
    desk.publish(*LONG, **{kind: True})
    eventually("all are under way", lambda: desk.held == len(LONG))

    assert GRACE <= seconds_to_end(worker) < WITHIN * GRACE

    assert desk.hosts == 0
    desk.start()
    desk.finish(*LONG)
    eventually("every order is completed", lambda: desk.completed == len(LONG))


def test_bursts_and_messages_that_end_take_no_more_of_the_grace_than_they_need(desk: Desk) -> None:
    bind_out(desk.amqp_url, APP, OUT)
    worker = desk.start()
    desk.publish(*SHORT)
    eventually("all are under way", lambda: desk.held == len(SHORT))
    worker.process.send_signal(signal.SIGTERM)
    desk.finish(*SHORT)
    assert worker.process.wait(10 * GRACE) == 0
    assert (desk.completed, desk.unconfirmed, desk.hosts) == (len(SHORT), 0, 0)
    assert len(take_all(desk.amqp_url, OUT)) == len(SHORT)
    assert "cut short" not in worker.output


@pytest.mark.parametrize(
    "command", [["worker", "tests.faults.shutdowns:app"], ["activities", "tests.faults.letters:app"]]
)
def test_a_worker_that_still_waits_for_rabbitmq_ends_when_it_is_told_to(
    desk: Desk, command: list[str], tmp_path: Path
) -> None:
    env = environment(desk.database_url, "amqp://nobody:nothing@127.0.0.1:1/")
    with Workers("", env, tmp_path) as workers:
        worker = workers.run(HOLDFAST, *command)
        eventually("it waits for RabbitMQ", lambda: "cannot connect" in worker.output)
        assert worker.stop() == 0
    assert '"event": "stopped"' in worker.output
