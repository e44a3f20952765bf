"""A worker stands still for longer than its lease, and wakes up in a world that has gone on without it."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Worker, Workers, environment, eventually

APP = "stalls"

EVENTS: LiteralString = """
    select version, type, xid::text, metadata ->> 'host' from holdfast.events
    where instance_id = (select instance_id from holdfast.instances where correlation_key = 'k') order by version
"""


@dataclass(frozen=True)
class Shop:
    """The workers of the app, its messages, and what the database says."""

    workers: Workers
    env: dict[str, str]
    database_url: str
    amqp_url: str
    folder: Path

    def start(self) -> Worker:
        worker = self.workers.start()
        eventually("the worker has started", lambda: len(hosts_of(worker)) == 1)
        return worker

    def publish(self, *keys: str) -> None:
        messages = [
            Raw(body=json.dumps({"key": key}).encode(), type="Ordered", message_id=f"{key}/ordered", key=key)
            for key in keys
        ]
        publish(self.amqp_url, APP, messages)

    def ask(self, query: LiteralString) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()

    def outcomes(self) -> list[Any]:
        return self.ask("select outcome, count(*) from holdfast.instances group by 1")


def entries(worker: Worker, event: str) -> list[dict[str, Any]]:
    """Return what a worker has logged under a name."""
    found = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    return [entry for entry in found if entry["event"] == event]


def hosts_of(worker: Worker) -> list[str]:
    """Return the ids under which a worker has been a host."""
    return [entry["host_id"] for entry in entries(worker, "started")]


@pytest.fixture
def shop(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Shop]:
    remove_app(amqp_url, APP)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (key text not null, worker int not null)")
    env = environment(database_url, amqp_url, lease=3, runnable_detection=0.5) | {"STALLS_FOLDER": str(tmp_path)}
    with Workers("tests.faults.stalls:app", env, tmp_path) as workers:
        yield Shop(workers, env, database_url, amqp_url, tmp_path)
    remove_app(amqp_url, APP)


# Protocol: D3, D8, I2.
def test_a_worker_that_wakes_up_after_its_lease_commits_nothing_and_goes_on_as_another_host(shop: Shop) -> None:
    sleeper = shop.start()
    (before,) = hosts_of(sleeper)
    waiting = shop.folder / "k-takes-long"
    waiting.touch()
    worked = shop.folder / "worked"
    shop.publish("k")
    eventually("the worker is in the middle of its work", worked.exists)

    sleeper.process.send_signal(signal.SIGSTOP)
    lapsed: LiteralString = "select count(*) from holdfast.hosts where lease_expiration > now()"
    eventually("its lease has lapsed", lambda: shop.ask(lapsed) == [(0,)])
    heir = shop.start()
    eventually("another has begun the work anew", lambda: len(worked.read_text().splitlines()) == 2)
    waiting.unlink()
    eventually("another has done the work", lambda: shop.outcomes() == [("completed", 1)])
    done = shop.ask(EVENTS)
    (inherited,) = hosts_of(heir)
    taken_over = [host for *_, host in done].index(inherited)
    assert 0 < taken_over < len(done)
    assert [host for *_, host in done] == [before] * taken_over + [inherited] * (len(done) - taken_over)

    sleeper.process.send_signal(signal.SIGCONT)
    eventually("the first is a host again", lambda: len(hosts_of(sleeper)) == 2)
    assert entries(sleeper, "lease lost")
    assert heir.stop() == 0
    # By now the first is the only one, so all that is done is its work.
    keys = [f"later-{number}" for number in range(10)]
    shop.publish(*keys)
    eventually("it works as before", lambda: shop.outcomes() == [("completed", 1 + len(keys))])
    after = hosts_of(sleeper)[-1]
    assert after != before
    writers: LiteralString = """
        select distinct metadata ->> 'host' from holdfast.events e join holdfast.instances i using (instance_id)
        where correlation_key like 'later%'
    """
    assert shop.ask(writers) == [(after,)]
    # What it had done in its sleep, as it were, is nowhere: not in the log, nor in the tables of record activities.
    assert shop.ask(EVENTS) == done
    by_hosts: LiteralString = "select metadata ->> 'host', max(xid::text::bigint) from holdfast.events group by 1"
    last = dict(shop.ask(by_hosts))
    assert last[before] < min(int(xid) for *_, xid, host in done if host == inherited)
    assert shop.ask("select worker from records where key = 'k'") == [(heir.process.pid,)]
    assert [line.split() for line in worked.read_text().splitlines()[:2]] == [
        [str(sleeper.process.pid), "k"],
        [str(heir.process.pid), "k"],
    ]
    assert "Traceback" not in sleeper.output
    verified = holdfast("verify", "--app", APP, env=shop.env)
    assert verified.returncode == 0, verified.stdout + verified.stderr
