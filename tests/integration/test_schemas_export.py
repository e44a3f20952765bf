"""The exported documents, as others use them: a public validator, a broker, and a publisher in another language."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString, cast

import aiormq
import psycopg
import pytest
from aiormq import Channel
from aiormq.exceptions import ChannelPreconditionFailed
from jsonschema import Draft202012Validator

from holdfast.events.event_schemas import event_schemas
from holdfast.schemas.message_schemas import message_schema
from tests.support.commands import holdfast
from tests.support.node import node
from tests.support.rabbitmq import remove_app
from tests.support.watched import Placed, Shipped
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "watched"
SPEC = "tests.support.watched:app"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> dict[str, str]:
    return environment(database_url, amqp_url)


@pytest.fixture
def servers(database_url: str, amqp_url: str) -> tuple[str, str]:
    return database_url, amqp_url


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


ORDER = [{"type": "Placed", "body": {"key": "17"}}, {"type": "Paid", "body": {"key": "17"}}]


def publish(document: Path, amqp_url: str, operation: str, *messages: dict[str, Any]) -> list[str]:
    """Publish as the document says, from Node; return the types of the messages that came back."""
    lines = "\n".join(map(json.dumps, messages))
    returned: list[str] = node("publish.mjs", document, amqp_url, operation, given=lines)["returned"]
    return returned


def ask(database_url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


def test_a_publisher_in_another_language_that_follows_the_document_is_understood(
    worker: None, document: Path, database_url: str, amqp_url: str
) -> None:
    assert publish(document, amqp_url, "takeIn", *ORDER) == []
    query: LiteralString = "select correlation_key, outcome from holdfast.instances"
    eventually("the order is done", lambda: ask(database_url, query) == [("17", "completed")])
    verdicts = ask(database_url, "select type, verdict from holdfast.inbox order by type")
    assert verdicts == [("Paid", "applied"), ("Placed", "applied")]


def test_so_is_a_command_to_an_instance(worker: None, document: Path, database_url: str, amqp_url: str) -> None:
    publish(document, amqp_url, "takeIn", ORDER[0])
    eventually("it waits", lambda: bool(ask(database_url, "select from holdfast.bookmarks")))
    ((instance,),) = ask(database_url, "select instance_id::text from holdfast.instances")
    body = {"command": "terminate", "by": "node", "instance_id": instance}
    assert publish(document, amqp_url, "command", {"type": "holdfast.Control", "body": body}) == []
    query: LiteralString = "select outcome from holdfast.instances"
    eventually("it is over", lambda: ask(database_url, query) == [("terminated",)])


def change(document: Path, change_: Callable[[Any], None]) -> None:
    found = json.loads(document.read_text())
    change_(found)
    document.write_text(json.dumps(found))


def properties(found: Any, name: str) -> Any:
    return found["components"]["messages"][name]["x-amqp-properties"]


def fixed(found: Any, **values: str) -> None:
    for name, value in values.items():
        properties(found, "Placed")["properties"][name]["const"] = value


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda it: properties(it, "Placed")["required"].remove("message_id"), "missing_message_id"),
        (lambda it: properties(it, "Placed")["required"].remove("type"), "missing_type"),
        (lambda it: properties(it, "Placed")["required"].remove("correlation_id"), "missing_correlation"),
        (lambda it: fixed(it, type="Plaecd"), "unknown_type"),
        (lambda it: fixed(it, correlation_id="18"), "correlation_mismatch"),
    ],
)
def test_who_follows_a_document_with_wrong_properties_is_not_understood(
    worker: None, document: Path, servers: tuple[str, str], wrong: Callable[[Any], None], reason: str
) -> None:
    change(document, wrong)
    database_url, amqp_url = servers
    publish(document, amqp_url, "takeIn", ORDER[0])
    query: LiteralString = "select verdict, reason from holdfast.inbox"
    eventually("it is a dead letter", lambda: ask(database_url, query) == [("dead_lettered", reason)])


def test_who_follows_a_document_that_does_not_say_that_ids_are_unique_has_none_to_give(
    document: Path, amqp_url: str
) -> None:
    change(document, lambda it: properties(it, "Placed")["properties"]["message_id"].pop("x-unique"))
    with pytest.raises(AssertionError, match="the document does not say what message_id is"):
        publish(document, amqp_url, "takeIn", ORDER[0])


def test_who_follows_a_document_with_a_wrong_routing_key_reaches_nobody(
    worker: None, document: Path, amqp_url: str
) -> None:
    change(document, lambda it: it["channels"]["queue_holdfast.watched.control"].update(address="elsewhere"))
    message = {"type": "holdfast.Control", "body": {"command": "suspend", "by": "node", "where": {"workflow": "order"}}}
    assert publish(document, amqp_url, "command", message) == ["holdfast.Control"]
    change(document, lambda it: it["operations"]["command"]["bindings"]["amqp"].update(mandatory=False))
    assert publish(document, amqp_url, "command", message) == []


def test_what_the_app_publishes_must_find_a_queue_where_the_document_says_so(
    env: dict[str, str], database_url: str, amqp_url: str, document: Path, tmp_path: Path
) -> None:
    bindings = {name: it["bindings"]["amqp"] for name, it in json.loads(document.read_text())["operations"].items()}
    remove_app(amqp_url, APP, ["mail"])
    with Workers(SPEC, {**env, "HOLDFAST_EVENT_FEED": "1"}, tmp_path) as workers:
        workers.start()
        await_hosts(database_url, 1)
        # Nobody hears what it sends, nor its events.
        publish(document, amqp_url, "takeIn", *ORDER)
        returned: LiteralString = """
            select type, exchange, routing_key from holdfast.outbox where dead_reason is not null
        """
        eventually("what it sent came back", lambda: bool(ask(database_url, returned)))
        lag: LiteralString = """
            select status, error, events_behind, handled > 0 from holdfast.projection_lag where name = 'holdfast.feed'
        """
        eventually("its events are out", lambda: ask(database_url, lag) == [("running", None, 0, True)])
    assert ask(database_url, returned) == [("Shipped", "holdfast.watched.out", "Shipped")]
    assert bindings["send"]["mandatory"] is True
    assert bindings["publishEvents"]["mandatory"] is False
    remove_app(amqp_url, APP, ["mail"])


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


def test_every_file_is_told_and_is_what_it_is_told_to_be(env: dict[str, str], tmp_path: Path) -> None:
    done = holdfast("schemas", "export", SPEC, "--to", str(tmp_path / "out"), "--json", env=env)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    files = {str(path) for path in (tmp_path / "out").rglob("*.json")}
    assert {each["file"] for each in told} == files
    found: dict[str, dict[str, Any]] = {"asyncapi": {}, "message": {}, "event": {}}
    for each in told:
        found[each["kind"]][each["name"]] = json.loads(Path(each["file"]).read_text())
    for schema in (*found["message"].values(), *found["event"].values()):
        Draft202012Validator.check_schema(schema)
    assert found["event"] == event_schemas()
    read, written = message_schema(Placed, "validation"), message_schema(Placed, "serialization")
    assert found["message"]["Placed"] == read != written
    read, written = message_schema(Shipped, "validation"), message_schema(Shipped, "serialization")
    assert found["message"]["Shipped"] == written != read
    assert found["message"].keys() >= {"Placed", "Paid", "Shipped"}
    assert [(name, it["asyncapi"][:2]) for name, it in found["asyncapi"].items()] == [(APP, "3.")]


def test_a_file_is_no_folder_to_write_to(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    done = holdfast("schemas", "export", SPEC, "--to", str(file), env=env)
    assert done.returncode == 2
    assert f"--to takes a folder to write to, and {file}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert file.read_text() == "mine"


def test_an_export_needs_no_server(tmp_path: Path) -> None:
    bare = {name: value for name, value in environment("", "").items() if not name.startswith("HOLDFAST_")}
    done = holdfast("schemas", "export", "examples.orders.app:app", "--to", str(tmp_path), env=bare)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "asyncapi.json").read_text())["info"]["title"] == "orders"
