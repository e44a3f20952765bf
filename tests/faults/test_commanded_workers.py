"""Commands reach a worker that is busy for ever, long before it would look for work by itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from holdfast.processor.broker.topology import Topology
from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, publish_to, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "stuck"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, APP)
    yield environment(database_url, amqp_url, runnable_detection=3600)
    remove_app(amqp_url, APP)


def test_a_stuck_activity_is_cut_off_by_the_command_line_and_by_the_control_queue(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    with Workers("tests.faults.stuck:app", env, tmp_path) as workers:
        workers.start()
        await_hosts(database_url, 1)
        publish(amqp_url, APP, map(_begun, ("k1", "k2")))
        eventually("both hang", lambda: workers.all[0].output.count("hanging") == 2)
        instances = dict(_ask(database_url, "select correlation_key, instance_id::text from holdfast.instances"))
        done = holdfast("terminate", instances["k1"], "--by", "ann", env=env)
        assert done.returncode == 0, done.stderr
        eventually("the first has ended", lambda: _outcomes(database_url) == {"k1": "terminated", "k2": None}, 30)
        body = json.dumps({"command": "terminate", "instance_id": instances["k2"], "by": "ops desk"}).encode()
        publish_to(amqp_url, Topology(APP).control, body, "c-1")
        eventually("so has the second", lambda: _outcomes(database_url)["k2"] == "terminated", 30)
        assert workers.all[0].stop() == 0


def _begun(key: str) -> Raw:
    return Raw(body=json.dumps({"key": key}).encode(), type="Begun", message_id=key, key=key)


def _outcomes(database_url: str) -> dict[str, str | None]:
    return dict(_ask(database_url, "select correlation_key, outcome from holdfast.instances"))


def _ask(database_url: str, query: str) -> list[tuple[str, str]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query.encode()).fetchall()
