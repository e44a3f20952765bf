"""Workers that share the partitions are killed, stopped and added; no partition stands still, and order is kept."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.faults.tallies import Counted, Opened
from tests.support.commands import holdfast
from tests.support.consumers import ConsumerWatch
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "faulty-tallies"
PARTITIONS = 8
KEYS = 60
NUMBERS = 12
LEASE = 30
SEED = 20260102
"""Of the choice which worker is killed."""

CLOSED: LiteralString = "select count(*) from holdfast.instances where is_completed"
NOTES: LiteralString = "select key, array_agg(number order by id) from notes group by key"


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    """The environment of the app's workers, with nothing of it left in the broker."""
    remove_app(amqp_url, APP)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table notes (id serial, key text, number int)")
    yield environment(
        database_url, amqp_url, partitions=PARTITIONS, lease=LEASE, host_lock_renewal=2, runnable_detection=1
    )
    remove_app(amqp_url, APP)


def shares(env: dict[str, str]) -> list[list[int]]:
    """Return the partitions of each living worker, as the command shows them."""
    shown = holdfast("hosts", "--app", APP, "--json", env=env)
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, Any]] = [json.loads(line) for line in shown.stdout.splitlines()]
    return [host["partitions"] for host in found if host["is_alive"]]


def are_shared_evenly(env: dict[str, str], workers: int) -> bool:
    found = shares(env)
    everything = sorted(number for share in found for number in share)
    return (
        len(found) == workers
        and everything == list(range(PARTITIONS))
        and max(map(len, found)) - min(map(len, found)) <= 1
    )


# Protocol: D19, D20, I10.
def test_workers_come_and_go_and_every_key_is_counted_in_order(
    env: dict[str, str], database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    choice = random.Random(SEED)  # noqa: S311  Any run would do, but the same one each time.
    sent = iter(range(NUMBERS))

    def send_numbers(rounds: int) -> None:
        for number in [next(sent) for _ in range(rounds)]:
            publish(amqp_url, APP, [raw(Counted(key=f"k-{k}", number=number), number) for k in range(KEYS)])

    with Workers("tests.faults.tallies:app", env, tmp_path) as workers:
        running = [workers.start() for _ in range(4)]
        await_hosts(database_url, 4)
        eventually("four workers share the partitions evenly", lambda: are_shared_evenly(env, 4))
        with ConsumerWatch(amqp_url, APP, PARTITIONS) as watch:
            publish(amqp_url, APP, [raw(Opened(key=f"k-{k}", count=NUMBERS)) for k in range(KEYS)])
            send_numbers(4)
            for _ in range(2):
                killed = running.pop(choice.randrange(len(running)))
                killed.kill()
                send_numbers(2)
                running.append(workers.start())
                eventually("four workers share the partitions evenly", lambda: are_shared_evenly(env, 4))
            running.append(workers.start())
            send_numbers(2)
            eventually("five workers share the partitions evenly", lambda: are_shared_evenly(env, 5))
            assert running.pop(0).stop() == 0
            send_numbers(2)
            eventually("four workers share the partitions evenly", lambda: are_shared_evenly(env, 4))
            eventually("every key is counted", lambda: one(database_url, CLOSED) == KEYS)
        assert watch.longest < LEASE, watch.gaps
        assert [worker.stop() for worker in running] == [0, 0, 0, 0]
    with psycopg.connect(database_url) as connection:
        noted: dict[str, list[int]] = dict(connection.execute(NOTES).fetchall())
    assert noted == {f"k-{k}": list(range(NUMBERS)) for k in range(KEYS)}
    checked = holdfast("verify", env=env)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def raw(message: Opened | Counted, number: int | None = None) -> Raw:
    name = f"{message.message_type}-{message.key}-{number}"
    return Raw(type=message.message_type, message_id=name, key=message.key, body=message.model_dump_json().encode())


def one(database_url: str, query: LiteralString) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])
