"""What real workers write to their log: JSON, with the ids of what each line is about."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.processor.client import Client
from holdfast.schemas.message import Envelope
from tests.support.commands import holdfast
from tests.support.rabbitmq import remove_app
from tests.support.watched import Paid, Placed
from tests.support.workers import Worker, Workers, await_hosts, environment, eventually

APP = "watched"
TRACE = "11111111111111111111111111111111"
OTHER = "22222222222222222222222222222222"


@pytest.fixture
def workers(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Workers]:
    remove_app(amqp_url, APP, ["mail"])
    env = environment(database_url, amqp_url, runnable_detection=0.2)
    with Workers("tests.support.watched:app", env, tmp_path) as workers:
        yield workers
    remove_app(amqp_url, APP, ["mail"])


@pytest.fixture
def worker(workers: Workers, database_url: str) -> Worker:
    worker = workers.start()
    await_hosts(database_url, 1)
    return worker


def publish(amqp_url: str, *envelopes: Envelope) -> None:
    async def work() -> None:
        async with Client(amqp_url=amqp_url, app=APP) as client:
            await client.publish_all(envelopes)

    asyncio.run(work())


def carried(trace: str) -> str:
    return f"00-{trace}-1111111111111111-01"


def line(worker: Worker, event: str) -> dict[str, Any]:
    """Wait for the line of an event and return it; every line is a JSON object."""
    eventually(f"{event} is logged", lambda: any(each["event"] == event for each in lines(worker)))
    return next(each for each in lines(worker) if each["event"] == event)


def lines(worker: Worker) -> list[dict[str, Any]]:
    complete, _, _ = worker.output.rpartition("\n")
    return [json.loads(each) for each in complete.splitlines()]


def test_lines_of_the_apps_own_say_in_which_work_they_were_written(worker: Worker, amqp_url: str) -> None:
    publish(amqp_url, Placed(key="k").envelope("m-1", carried(TRACE)), Paid(key="k").envelope("m-2", carried(OTHER)))
    reserved, packed = line(worker, "reserved"), line(worker, "packed")
    instance_id = reserved["instance_id"]
    assert {name: value for name, value in reserved.items() if name != "timestamp"} == {
        "event": "reserved",
        "level": "info",
        "shelf": 7,
        "instance_id": instance_id,
        "workflow": "order",
        "message_id": "m-1",
        "idempotency_key": reserved["idempotency_key"],
        "attempt": 1,
        "trace_id": TRACE,
    }
    assert reserved["idempotency_key"].startswith(instance_id)
    # Written in a thread, with the standard library.
    assert {packed[name] for name in ("instance_id", "message_id", "trace_id", "level")} == {
        instance_id,
        "m-2",
        OTHER,
        "warning",
    }
    assert packed["idempotency_key"] != reserved["idempotency_key"]


def test_lines_of_an_activity_worker_say_so_too(worker: Worker, workers: Workers, amqp_url: str) -> None:
    mailing = workers.start_activities("mail")
    publish(amqp_url, Placed(key="k", fate="mail").envelope("m-1", carried(TRACE)))
    mailed = line(mailing, "mailed")
    assert mailed["instance_id"] == line(worker, "reserved")["instance_id"]
    assert mailed["idempotency_key"].endswith("mail")
    assert (mailed["attempt"], mailed["trace_id"]) == (1, TRACE)


def test_what_goes_wrong_is_logged_with_message_and_trace(worker: Worker, amqp_url: str) -> None:
    unknown = Envelope(message_id="m-1", type="Nonsense", key="k", body=b"{}", traceparent=carried(TRACE))
    publish(amqp_url, unknown, Placed(key="broken", fate="fail").envelope("m-2", carried(OTHER)))
    dead = line(worker, "dead letter")
    assert (dead["message_id"], dead["trace_id"], dead["reason"]) == ("m-1", TRACE, "unknown_type")
    unhandled = line(worker, "unhandled exception")
    assert (unhandled["message_id"], unhandled["trace_id"], unhandled["workflow"]) == ("m-2", OTHER, "order")
    assert unhandled["instance_id"] == line(worker, "suspending")["instance_id"]


def test_lines_outside_of_any_work_have_no_ids(worker: Worker) -> None:
    assert {*line(worker, "started")} == {"event", "level", "timestamp", "app", "host_id", "partitions"}


def test_a_message_from_a_shell_goes_on_with_the_trace_of_its_environment(
    worker: Worker, database_url: str, amqp_url: str
) -> None:
    env = environment(database_url, amqp_url) | {"TRACEPARENT": carried(TRACE)}
    done = holdfast("publish", "tests.support.watched:app", "Placed", '{"key": "k"}', env=env)
    assert done.returncode == 0, done.stderr
    assert line(worker, "reserved")["trace_id"] == TRACE
