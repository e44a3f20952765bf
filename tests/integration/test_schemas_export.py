"""The exported documents, as others use them: a public validator, a broker, and a publisher in another language."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import aiormq
import psycopg
import pytest
from aiormq import Channel
from aiormq.exceptions import ChannelPreconditionFailed

from tests.support.node import node
from tests.support.rabbitmq import remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually, holdfast

APP = "watched"
SPEC = "tests.support.watched:app"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> dict[str, str]:
    return environment(database_url, amqp_url)


@pytest.fixture
def worker(env: dict[str, str], database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[None]:
    remove_app(amqp_url, APP, ["mail"])
    with Workers(SPEC, env, tmp_path) as workers:
        workers.start()
        await_hosts(database_url, 1)
        yield
    remove_app(amqp_url, APP, ["mail"])


@pytest.fixture
def document(env: dict[str, str], tmp_path: Path) -> Path:
    """The AsyncAPI document that the command writes."""
    done = holdfast("schemas", "export", SPEC, "--to", str(tmp_path / "out"), env=env)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out" / "asyncapi.json"


def errors(said: Any) -> list[Any]:
    # From 2 on these are hints, such as that there is a newer version of AsyncAPI.
    return [each for each in said["diagnostics"] if each["severity"] < 2]


def test_the_document_is_valid(document: Path) -> None:
    said = node("validate.mjs", document)
    assert said["isDocument"]
    assert errors(said) == []
    assert {*said["operations"]} == {"takeIn", "send", "request", "takeResults", "publishEvents", "command"}


def test_the_validator_finds_what_is_wrong(document: Path) -> None:
    found = json.loads(document.read_text())
    found["operations"]["takeIn"]["action"] = "swallow"
    document.write_text(json.dumps(found))
    assert errors(node("validate.mjs", document))


def test_a_publisher_in_another_language_that_follows_the_document_is_understood(
    worker: None, document: Path, database_url: str, amqp_url: str
) -> None:
    bodies = [{"type": "Placed", "body": {"key": "17"}}, {"type": "Paid", "body": {"key": "17"}}]
    lines = "\n".join(map(json.dumps, bodies))
    assert node("publish.mjs", document, amqp_url, "takeIn", given=lines) == {"returned": []}
    query = "select correlation_key, outcome from holdfast.instances"

    def instances() -> list[Any]:
        with psycopg.connect(database_url) as connection:
            return connection.execute(query).fetchall()

    eventually("the order is done", lambda: instances() == [("17", "completed")])
    with psycopg.connect(database_url) as connection:
        verdicts = connection.execute("select type, verdict from holdfast.inbox order by type").fetchall()
    assert verdicts == [("Paid", "applied"), ("Placed", "applied")]


def test_the_broker_has_the_queues_with_the_arguments_that_the_document_gives(
    worker: None, document: Path, amqp_url: str
) -> None:
    channels = json.loads(document.read_text())["channels"].values()
    queues = [each["bindings"]["amqp"]["queue"] for each in channels if "queue" in each["bindings"]["amqp"]]
    assert len(queues) == 4

    async def declare(queue: dict[str, Any], **changed: object) -> None:
        # The broker refuses a declaration whose arguments are not those of the queue that is there.
        connection = await aiormq.connect(amqp_url)
        try:
            channel = cast("Channel", await connection.channel())
            arguments = queue["x-arguments"] | changed
            await channel.queue_declare(queue["name"], durable=queue["durable"], arguments=arguments)
        finally:
            await connection.close()

    for queue in queues:
        asyncio.run(declare(queue))
        with pytest.raises(ChannelPreconditionFailed):
            asyncio.run(declare(queue, **{"x-delivery-limit": 3}))


def test_every_file_is_told(env: dict[str, str], tmp_path: Path) -> None:
    done = holdfast("schemas", "export", SPEC, "--to", str(tmp_path / "out"), "--json", env=env)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    files = {str(path) for path in (tmp_path / "out").rglob("*.json")}
    assert {each["file"] for each in told} == files
    assert {each["name"] for each in told if each["kind"] == "message"} >= {"Placed", "Paid", "Shipped"}
    assert {each["kind"] for each in told} == {"asyncapi", "message", "event"}


def test_an_export_needs_no_server(tmp_path: Path) -> None:
    bare = {name: value for name, value in environment("", "").items() if not name.startswith("HOLDFAST_")}
    done = holdfast("schemas", "export", "examples.orders.app:app", "--to", str(tmp_path), env=bare)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "asyncapi.json").read_text())["info"]["title"] == "orders"
