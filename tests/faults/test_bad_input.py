"""Messages and programs that are no good: each gets a reason that says so, and the worker goes on."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from compose.local.services import Services
from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Worker, Workers, await_hosts, environment, eventually

APP = "notes"
MAX_BODY_BYTES = 10_000


@pytest.fixture(scope="module")
def notes_url(services: Services, migrated_template: str) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    yield services.new_database(name, template=migrated_template)
    services.drop_database(name)


@pytest.fixture(scope="module")
def worker(services: Services, notes_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker that all of these tests give their bad input to."""
    remove_app(services.amqp_url, APP)
    env = environment(notes_url, services.amqp_url, max_body_bytes=MAX_BODY_BYTES)
    with Workers("tests.faults.notes:app", env, tmp_path_factory.mktemp("notes")) as workers:
        worker = workers.start()
        await_hosts(notes_url, 1)
        yield worker
    remove_app(services.amqp_url, APP)


def one(database_url: str, query: str, *parameters: object) -> Any:
    """Return the one row of a query, or None."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(query.encode(), parameters).fetchone()


def note(key: str) -> bytes:
    return json.dumps({"note": key}).encode()


def nested(key: str, depth: int) -> bytes:
    return b'{"note": "%s", "pages": %s}' % (key.encode(), b"[" * depth + b"]" * depth)


def is_completed(database_url: str, key: str) -> bool:
    row = one(database_url, "select is_completed from holdfast.instances where correlation_key = %s", key)
    return row is not None and row[0]


BAD: dict[str, Raw] = {
    "not_json": Raw(body=b"{note", type="NoteTaken", message_id="id", key="key"),
    "invalid_body": Raw(body=b'{"note": "key", "pages": "many"}', type="NoteTaken", message_id="id", key="key"),
    "unknown_type": Raw(body=note("key"), type="NoteBurnt", message_id="id", key="key"),
    "missing_type": Raw(body=note("key"), message_id="id", key="key"),
    "missing_message_id": Raw(body=note("key"), type="NoteTaken", key="key"),
    "missing_correlation": Raw(body=note("key"), type="NoteTaken", message_id="id"),
    "correlation_mismatch": Raw(body=note("another"), type="NoteTaken", message_id="id", key="key"),
    "too_large": Raw(body=note("x" * MAX_BODY_BYTES), type="NoteTaken", message_id="id", key="key"),
    "too_deep": Raw(body=nested("key", 101), type="NoteTaken", message_id="id", key="key"),
    "invalid_correlation": Raw(body=note("key\x00"), type="NoteTaken", message_id="id", key="key\x00"),
}
"""Messages by the reason with which each must be dead-lettered."""


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_message_becomes_a_dead_letter_with_its_reason(
    reason: str, worker: Worker, notes_url: str, services: Services
) -> None:
    good = f"after-{reason}"
    bad = BAD[reason]
    if bad.message_id is not None:
        bad = Raw(body=bad.body, type=bad.type, message_id=f"bad-{reason}", key=bad.key)
    start = Raw(body=note(good), type="NoteTaken", message_id=f"{good}/taken", key=good)
    read = Raw(body=note(good), type="NoteRead", message_id=f"{good}/read", key=good)

    publish(services.amqp_url, APP, [bad, start, read])

    eventually("the good message after it is done", lambda: is_completed(notes_url, good))
    find = "select verdict, detail, body from holdfast.inbox where reason = %s"
    eventually("the bad one has its verdict", lambda: one(notes_url, find, reason) is not None)
    verdict, detail, body = one(notes_url, find, reason)
    assert verdict == "dead_lettered"
    assert detail
    assert bytes(body) == bad.body
    assert worker.is_running


def test_a_message_id_used_for_another_message_becomes_a_dead_letter(
    worker: Worker, notes_url: str, services: Services
) -> None:
    first = Raw(body=note("first"), type="NoteTaken", message_id="used-twice", key="first")
    second = Raw(body=note("second"), type="NoteTaken", message_id="used-twice", key="second")
    publish(services.amqp_url, APP, [first, second])
    find = "select count(*) from holdfast.inbox where reason = 'message_id_reused' and verdict = 'dead_lettered'"
    eventually("the second message is given up", lambda: one(notes_url, find) == (1,))
    find = "select count(*) from holdfast.instances where correlation_key = %s"
    assert one(notes_url, find, "first") == (1,)
    assert one(notes_url, find, "second") == (0,)


def test_an_instance_whose_variable_cannot_be_persisted_is_suspended_and_says_which(
    worker: Worker, notes_url: str, services: Services
) -> None:
    start = Raw(body=note("grip"), type="HandleTaken", message_id="grip/taken", key="grip")
    publish(services.amqp_url, APP, [start])
    find = """
        select suspension_reason, is_initialized from holdfast.instances where is_suspended and correlation_key = 'grip'
    """
    eventually("the instance is suspended", lambda: one(notes_url, find) is not None)
    assert one(notes_url, find) == ("not_persistable", False)
    eventually("the log says which variable", lambda: "'grip'" in worker.output and "lock" in worker.output)
    kept = "select verdict from holdfast.inbox where message_id = 'grip/taken'"
    assert one(notes_url, kept) == ("buffered",)
    assert worker.is_running


def test_a_workflow_that_does_not_compile_is_one_clear_error(database_url: str, amqp_url: str) -> None:
    done = holdfast("worker", "tests.faults.uncompilable:app", env=environment(database_url, amqp_url))
    assert done.returncode != 0
    assert "tests/faults/uncompilable.py:20" in done.stderr
    assert "comprehension" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["nowhere", "tests.faults.notes", "tests.faults.notes:nothing", "tests.faults.notes:keep"]
)
def test_an_app_that_is_not_there_is_one_clear_error(name: str, database_url: str, amqp_url: str) -> None:
    done = holdfast("worker", name, env=environment(database_url, amqp_url))
    assert done.returncode != 0
    assert name.partition(":")[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_database_url_is_one_clear_error(amqp_url: str) -> None:
    wrong = "postgresql://nobody@127.0.0.1:1/nothing"
    done = holdfast("worker", "tests.faults.notes:app", env=environment(wrong, amqp_url))
    assert done.returncode != 0
    assert "HOLDFAST_DATABASE_URL" in done.stderr or "database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_without_the_schema_is_one_clear_error(empty_database_url: str, amqp_url: str) -> None:
    done = holdfast("worker", "tests.faults.notes:app", env=environment(empty_database_url, amqp_url))
    assert done.returncode != 0
    assert "holdfast migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_setting_is_one_clear_error(tmp_path: Path) -> None:
    done = holdfast("worker", "tests.faults.notes:app", env=environment("", ""))
    assert done.returncode != 0
    assert "HOLDFAST_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
