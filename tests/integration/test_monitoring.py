"""What real workers tell on their monitoring port: metrics that are so, and probes that find out what is wrong."""

import asyncio
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from compose.local.services import Services
from holdfast.schemas.postgres.migrate import migrate
from tests.support.commands import ROOT
from tests.support.monitoring import Port
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, environment, eventually

APP = "watched"
OUT = "test-watched-out"
ORDERS = 20


@contextmanager
def watched(database_url: str, amqp_url: str, folder: Path, **settings: object) -> Iterator[Workers]:
    """Give workers of the app to be watched, and remove what it has in the broker."""
    remove_app(amqp_url, APP, ["mail"])
    settings |= {"metrics_port": 0, "metrics_address": "127.0.0.1", "runnable_detection": 0.2}
    env = environment(database_url, amqp_url, **settings)
    with Workers("tests.support.watched:app", env, folder) as workers:
        yield workers
    remove_app(amqp_url, APP, ["mail"])


@pytest.fixture
def workers(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Workers]:
    with watched(database_url, amqp_url, tmp_path) as workers:
        yield workers


@pytest.fixture
def own_database_url(own_services: Services) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = own_services.new_database(name)
    asyncio.run(migrate(url))
    yield url
    own_services.drop_database(name)


def ready(workers: Workers) -> Port:
    """Start a worker and wait until it is ready."""
    port = Port(workers.start())
    eventually("the worker is ready", lambda: port.get("/readyz")[0] == 200)
    return port


def message(kind: str, key: str, message_id: str | None = None, **fields: str) -> Raw:
    body = json.dumps({"key": key, **fields}).encode()
    return Raw(body=body, type=kind, message_id=message_id or f"{key}/{kind}", key=key)


def ask(database_url: str, query: str) -> Any:
    """Return the one value that a query gives."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_what_is_counted_is_what_was_published_and_committed(
    workers: Workers, database_url: str, amqp_url: str
) -> None:
    port = ready(workers)
    bind_out(amqp_url, APP, OUT)
    keys = [f"order-{number}" for number in range(ORDERS)]
    publish(amqp_url, APP, [message("Placed", key) for key in keys])
    publish(amqp_url, APP, [message("Paid", key) for key in keys])
    closed = "select count(*) from holdfast.instances where outcome = 'completed'"
    eventually("every order is closed", lambda: ask(database_url, closed) == ORDERS)
    publish(amqp_url, APP, [message("Paid", "order-0"), message("Nonsense", "order-0")])
    publish(amqp_url, APP, [message("Paid", "order-1", "late"), message("Placed", "broken", fate="fail")])
    suspended = "select count(*) from holdfast.instances where is_suspended"
    dead = "select count(*) from holdfast.inbox where verdict in ('dead_lettered', 'rejected')"
    eventually("one is suspended", lambda: ask(database_url, suspended) == 1)
    eventually("one is dead, one too late", lambda: ask(database_url, dead) == 2)
    eventually("all is out", lambda: ask(database_url, "select count(*) from holdfast.outbox") == 0)
    eventually("all is settled", lambda: port.values()["unsettled_deliveries",] == 0)
    values = port.values()
    assert len(take_all(amqp_url, OUT)) == ORDERS
    published = 2 * ORDERS + 4
    assert values["deliveries_total",] == published
    assert values["redeliveries_total",] == 0
    assert values["duplicates_total",] == 1
    assert values["verdicts_total", "", "applied"] == 2 * ORDERS
    assert values["verdicts_total", "unknown_type", "dead_lettered"] == 1
    assert values["verdicts_total", "completed", "rejected"] == 1
    assert values["instances_registered_total", "order"] == ORDERS + 1
    assert values["instances_closed_total", "completed", "order"] == ORDERS
    assert values["suspensions_total", "unhandled_exception"] == 1
    assert values["published_total", "confirmed"] == ORDERS
    assert values["activities_total", "completed"] == 2 * ORDERS + 1
    assert values["activities_total", "failed"] == 0
    assert values["events_total",] == ask(database_url, "select count(*) from holdfast.events")
    points = ask(database_url, "select count(*) from holdfast.events where type = 'Persisted'")
    assert values["persistence_points_total",] == points
    assert values["group_size_sum",] == points
    assert values["commit_seconds_count",] == values["group_size_count",] <= points
    assert 0 < values["commit_seconds_sum",] < 60
    assert values["tenures_total",] == 1
    assert values["consumed_partitions",] == 1
    assert values["running_bursts",] == values["at_risk_instances",] == values["lane_messages",] == 0
    assert values["lease_age_seconds",] < values["lease_seconds",] == 60


def test_the_store_is_described_as_it_is(workers: Workers, database_url: str, amqp_url: str) -> None:
    port = ready(workers)
    publish(amqp_url, APP, [message("Nonsense", "x"), message("Paid", "early")])
    publish(amqp_url, APP, [message("Placed", "broken", fate="fail")])
    publish(amqp_url, APP, [message("Placed", f"idle-{number}") for number in range(3)])
    settled = "select count(*) from holdfast.inbox where verdict <> 'applied'"
    eventually("three messages are kept", lambda: ask(database_url, settled) == 3)
    locked = "select count(*) from holdfast.instances where lock_owner is not null and execution_status = 'idle'"
    eventually("three instances are idle", lambda: ask(database_url, locked) == 3)
    with psycopg.connect(database_url) as open_transaction:
        # It is in nobody's way but that of the readers of the whole log.
        open_transaction.execute("create table left_open ()")
        publish(amqp_url, APP, [message("Placed", "idle-3")])
        eventually("a fourth one is idle", lambda: ask(database_url, locked) == 4)
        values = port.values()
    assert values["hosts",] == 1
    assert values["locks",] == values["loaded_instances",] == 4
    # The start message of the one that was suspended before it was persisted, and a payment for nobody.
    assert values["buffered_messages",] == 2
    assert values["buffered_oldest_seconds",] > 0
    assert values["dead_letters", "inbox"] == 1
    assert values["dead_letters", "outbox"] == 0
    assert values["non_persisted_instances", "suspended"] == 1
    assert values["non_persisted_instances", "live"] == 0
    assert values["timer_lag_seconds",] == 0
    assert values["horizon_lag_seconds",] > 0
    assert values["horizon_lag_transactions",] > 0


def test_the_lag_of_what_follows_the_log_is_told(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    with watched(database_url, amqp_url, tmp_path, event_feed=1) as workers:
        port = ready(workers)
        publish(amqp_url, APP, [message("Placed", "idle")])
        done = "select count(*) from holdfast.projection_lag where handled > 0 and events_behind = 0"
        eventually("the feed has come to the end", lambda: ask(database_url, done) == 1)
        values = port.values()
    assert values["projection_events_behind", "live", "holdfast.feed"] == 0
    assert values["projection_lag_seconds", "live", "holdfast.feed"] == 0
    assert values["projection_stopped", "live", "holdfast.feed"] == 0


def test_work_at_risk_is_what_would_run_again(workers: Workers, amqp_url: str, tmp_path: Path) -> None:
    port = ready(workers)
    gate = tmp_path / "gate"
    gate.touch()
    publish(amqp_url, APP, [message("Placed", "slow", fate="wait", gate=str(gate))])
    eventually("it waits", Path(f"{gate}.reached").exists)
    before = port.values()
    # It started, and two activities ended; all of that hangs on the commit to come.
    assert (before["at_risk_instances",], before["at_risk_events",], before["at_risk_activities",]) == (1, 3, 2)
    assert before["unsettled_deliveries",] == before["running_bursts",] == before["user_transactions",] == 1
    eventually("time goes by", lambda: port.values()["at_risk_seconds",] > before["at_risk_seconds",] > 0)
    assert port.values()["user_transaction_oldest_seconds",] > 0
    gate.unlink()
    eventually("nothing is at risk", lambda: port.values()["at_risk_instances",] == 0)
    after = port.values()
    assert after["at_risk_events",] == after["at_risk_seconds",] == after["user_transactions",] == 0
    assert after["user_commits_total",] == 1


def test_a_worker_without_its_database_is_alive_but_not_ready(
    own_services: Services, own_database_url: str, tmp_path: Path
) -> None:
    assert own_services.postgres is not None
    with watched(own_database_url, own_services.amqp_url, tmp_path) as workers:
        port = ready(workers)
        assert port.problems() == {}
        own_services.postgres.stop()
        try:
            assert port.get("/readyz")[0] == 503
            assert "database" in port.problems()
            assert port.get("/healthz")[0] == 200
            families = port.families()
            assert families["holdfast_deliveries_total"].samples
        finally:
            own_services.postgres.start()
        eventually("it is ready again", lambda: port.get("/readyz")[0] == 200)


def test_a_worker_without_its_broker_is_alive_but_not_ready(
    own_services: Services, own_database_url: str, tmp_path: Path
) -> None:
    assert own_services.rabbitmq is not None
    with watched(own_database_url, own_services.amqp_url, tmp_path) as workers:
        own_services.rabbitmq.stop()
        try:
            port = Port(workers.start())
            assert port.get("/healthz")[0] == 200
            assert {"rabbitmq_in", "rabbitmq_out", "worker"} <= {*port.problems()}
        finally:
            own_services.rabbitmq.start()
        eventually("it is ready", lambda: port.get("/readyz")[0] == 200)
        own_services.rabbitmq.stop()
        try:
            wanted = {"rabbitmq_in", "rabbitmq_out", "consumers"}
            eventually("it misses the broker", lambda: wanted <= {*port.problems()})
            assert port.get("/healthz")[0] == 200
        finally:
            own_services.rabbitmq.start()
        eventually("it is ready again", lambda: port.get("/readyz")[0] == 200)


def test_an_event_loop_that_hangs_is_not_alive(workers: Workers, amqp_url: str, tmp_path: Path) -> None:
    port = ready(workers)
    gate = tmp_path / "gate"
    gate.touch()
    publish(amqp_url, APP, [message("Placed", "stuck", fate="hang", gate=str(gate))])
    eventually("it hangs", lambda: port.get("/healthz")[0] == 503)
    assert port.get("/readyz")[0] == port.get("/metrics")[0] == 503
    gate.unlink()
    eventually("it goes on", lambda: port.get("/healthz")[0] == 200)


def test_an_activity_worker_has_the_port_too(workers: Workers, amqp_url: str) -> None:
    port = ready(workers)
    activities = Port(workers.start_activities("mail"))
    eventually("it is ready", lambda: activities.get("/readyz")[0] == 200)
    publish(amqp_url, APP, [message("Placed", key, fate="mail") for key in ("a", "b")])
    done = ("activity_requests_total", "mail", "completed", "mail")
    eventually("both are mailed", lambda: activities.values().get(done) == 2)
    values = activities.values()
    assert values["activity_running_requests", "mail"] == values["activity_running_oldest_seconds", "mail"] == 0
    assert values["activity_queue_consumed", "mail"] == 1
    page = (ROOT / "docs" / "observability.md").read_text()
    documented = set(re.findall(r"^\| `(holdfast_\w+)`", page, re.MULTILINE))
    families = port.families() | activities.families()
    assert documented == {name for name in families if name.startswith("holdfast_")}


def test_the_exposition_is_well_formed(workers: Workers) -> None:
    families = ready(workers).families()
    for name, family in families.items():
        assert family.documentation or not name.startswith("holdfast_"), name
        assert (family.type == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|millis|milliseconds|minutes|hours)(_|$)", name), name
    assert families["holdfast_commit_seconds"].type == "histogram"
    assert "process_resident_memory_bytes" in families


def test_there_is_nothing_else_on_the_port(workers: Workers) -> None:
    assert ready(workers).get("/")[0] == 404


def test_a_port_that_is_taken_is_a_setting_that_is_wrong(
    workers: Workers, database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    first = ready(workers)
    number = int(first._url.rpartition(":")[2])
    env = environment(database_url, amqp_url, metrics_port=number, metrics_address="127.0.0.1")
    with Workers("tests.support.watched:app", env, tmp_path / "second") as others:
        (tmp_path / "second").mkdir()
        second = others.start()
        eventually("it ends", lambda: not second.is_running)
        assert second.process.returncode == 2
        assert "HOLDFAST_METRICS_PORT" in second.output
