"""Instances without a persistence point, with real workers: how each class comes about, and how it ends."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, environment, eventually

APP = "admissions"


@dataclass(frozen=True)
class Ward:
    """The workers of the app, its messages, and what an operator does."""

    workers: Workers
    env: dict[str, str]
    database_url: str
    amqp_url: str
    folder: Path

    def start(self) -> None:
        """Start a worker that is ready for messages."""
        worker = self.workers.start()
        eventually("the worker has started", lambda: '"started"' in worker.output)

    def spoil(self, how: str) -> Path:
        """Have examinations go wrong until the file is gone."""
        spoiling = self.folder / how
        spoiling.touch()
        return spoiling

    def publish(self, kind: str, patient: str) -> None:
        body = json.dumps({"patient": patient}).encode()
        publish(self.amqp_url, APP, [Raw(body=body, type=kind, message_id=f"{patient}/{kind}", key=patient)])

    def run(self, *arguments: str, code: int = 0) -> list[Any]:
        """Run a command and return its lines of JSON."""
        done = holdfast(*arguments, "--json", env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def says(self, *arguments: str) -> str:
        """Run a command as a person does, and return what it prints."""
        return holdfast(*arguments, env=self.env).stdout

    def ask(self, query: str) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def classes(self) -> list[tuple[str, str | None]]:
        """Return the class of each non-persisted instance, and the verdict of its start message."""
        return self.ask("select class, start_message_verdict from holdfast.non_persisted")

    def becomes(self, kind: str, verdict: str | None) -> dict[str, Any]:
        """Wait until the only non-persisted instance is of that class, and return it as the command lists it."""
        eventually(f"it is {kind}, {verdict}", lambda: self.classes() == [(kind, verdict)])
        (found,) = self.run("nonpersisted", "--class", kind)
        assert isinstance(found, dict)
        return found

    def completes(self, instance_id: str) -> None:
        query = "select instance_id::text, outcome from holdfast.instances"
        eventually("it is completed", lambda: self.ask(query) == [(instance_id, "completed")])
        assert self.classes() == []


@pytest.fixture
def ward(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Ward]:
    remove_app(amqp_url, APP)
    folder = tmp_path / "ward"
    folder.mkdir()
    env = environment(database_url, amqp_url, lease=3, runnable_detection=0.5, max_attempts=2)
    env["ADMISSIONS_FOLDER"] = str(folder)
    with Workers("tests.faults.admissions:app", env, tmp_path) as workers:
        made = Ward(workers, env, database_url, amqp_url, folder)
        made.start()
        yield made
    remove_app(amqp_url, APP)


def test_a_host_that_falls_before_the_first_persistence_point_leaves_an_instance_that_the_next_one_runs(
    ward: Ward,
) -> None:
    stuck = ward.spoil("p-is-stuck")
    ward.publish("Referred", "p")
    live = ward.becomes("live", None)
    assert live["current_machine"] is not None
    ward.workers.all[0].kill()
    # That the message is lost is a likelihood: here it waits in RabbitMQ.
    lost = ward.becomes("message_lost", None)
    assert (lost["instance_id"], lost["current_machine"]) == (live["instance_id"], None)
    assert lost["last_machine"] == live["current_machine"]
    stuck.unlink()
    ward.start()
    ward.completes(live["instance_id"])


def test_an_exception_under_abandon_leaves_an_orphan_that_a_correlated_message_makes_active_again(ward: Ward) -> None:
    failing = ward.spoil("p-fails")
    ward.publish("Admitted", "p")
    orphan = ward.becomes("orphan", "dead_lettered")
    assert orphan["is_overdue"]
    assert orphan["expected_lifetime"] == 0.001
    assert [it["instance_id"] for it in ward.run("nonpersisted", "list", "--overdue")] == [orphan["instance_id"]]
    failing.unlink()
    ward.publish("Called", "p")
    ward.completes(orphan["instance_id"])


def test_a_dead_letter_that_is_dropped_leaves_an_instance_that_only_an_operator_removes(ward: Ward) -> None:
    ward.spoil("p-fails")
    ward.publish("Admitted", "p")
    orphan = ward.becomes("orphan", "dead_lettered")["instance_id"]
    ward.run("dead-letters", "drop", "p/Admitted")
    lost = ward.becomes("message_lost", "rejected")
    # What was dropped stays known: when it comes again it starts nothing, and neither does a message for the instance.
    ward.publish("Admitted", "p")
    ward.publish("Called", "p")
    eventually("the message is kept", lambda: ward.ask("select from holdfast.inbox where verdict = 'buffered'") == [()])
    assert ward.becomes("message_lost", "rejected")["instance_id"] == lost["instance_id"] == orphan

    remove = ("nonpersisted", "remove", "--class", "message_lost", "--older-than", "0s")
    (refused,) = ward.run(*remove, code=1)
    assert (refused["removed"], refused["obstacle"]) == (False, "young")
    with psycopg.connect(ward.database_url) as connection:
        connection.execute("update holdfast.settings set removal_age = '0'")
    (tried,) = ward.run(*remove, "--dry-run")
    assert (tried["removed"], tried["dry_run"]) == (True, True)
    assert ward.classes() == [("message_lost", "rejected")]
    (removed,) = ward.run(*remove)
    assert removed["instance_id"] == orphan
    assert ward.classes() == []
    assert ward.run("instances") == []
    assert ward.run(*remove) == []


def test_a_suspended_instance_runs_from_the_start_once_it_is_resumed(ward: Ward) -> None:
    failing = ward.spoil("p-fails")
    ward.publish("Referred", "p")
    suspended = ward.becomes("suspended", "buffered")
    assert suspended["suspension_reason"] == "unhandled_exception"
    assert suspended["suspension_exception_name"] == "ValueError"
    failing.unlink()
    ward.run("resume", suspended["instance_id"])
    ward.completes(suspended["instance_id"])
    assert ward.ask("select count(*) from holdfast.events where type = 'InstanceSuspended'") == [(0,)]


def test_a_removed_instance_is_not_run_again_and_its_key_is_free(ward: Ward) -> None:
    failing = ward.spoil("p-fails")
    ward.publish("Referred", "p")
    suspended = ward.becomes("suspended", "buffered")["instance_id"]
    with psycopg.connect(ward.database_url) as connection:
        connection.execute("update holdfast.settings set removal_age = '0'")
    assert ward.says("nonpersisted", "remove", suspended, "--dry-run") == f"would remove {suspended}\n"
    assert ward.says("nonpersisted", "remove", suspended) == f"removed {suspended}\n"
    failing.unlink()
    assert ward.ask("select verdict, reason, body from holdfast.inbox") == [("rejected", "removed", None)]
    ward.publish("Referred", "p")
    body = b'{"patient": "p"}'
    publish(ward.amqp_url, APP, [Raw(body=body, type="Referred", message_id="second", key="p")])
    query = "select start_message_id, outcome from holdfast.instances"
    eventually("the second one is completed", lambda: ward.ask(query) == [("second", "completed")])
    (absent,) = ward.run("nonpersisted", "remove", suspended, code=1)
    assert absent["obstacle"] == "not_found"
