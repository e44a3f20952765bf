"""Projections as an operator has them: run by a process of their own, looked at, skipped and resumed by commands."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from compose.local.services import Services
from holdfast import Client
from tests.support.commands import HOLDFAST, holdfast
from tests.support.monitoring import Port
from tests.support.projections import commit, rows, settle, start
from tests.support.rabbitmq import remove_app
from tests.support.workers import Workers, environment, eventually

MODULE = """
from holdfast import App, Projection, Transaction
from holdfast.events.types import InstanceStarted

app = App("shop")


@app.projection
class Seen(Projection):
    create = "create table seen (what text not null)"

    async def started(self, tx: Transaction, event: InstanceStarted) -> None:
        if event.workflow == "bad":
            raise ValueError("a bad one")
        await tx.execute("insert into seen values (%s)", [event.workflow])
"""


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shop.py").write_text(MODULE)
    return environment(database_url, "", projection_poll=0.05) | {"PYTHONPATH": str(tmp_path)}


def test_a_stopped_projection_is_shown_skipped_and_goes_on(
    database_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    asyncio.run(commit(database_url, [start("a")]))
    asyncio.run(settle(database_url))
    with Workers("shop:app", env, tmp_path) as workers:
        process = workers.run(HOLDFAST, "project", "shop:app")
        eventually("it is built", lambda: rows(database_url, "select to_regclass('shop_seen.seen') is not null")[0][0])
        (bad,) = asyncio.run(commit(database_url, [start("bad")]))
        asyncio.run(commit(database_url, [start("b")]))
        eventually("it has stopped", lambda: "stopped" in holdfast("projections", env=env).stdout)

        (listed,) = holdfast("projections", "list", "--app", "shop", "--json", env=env).stdout.splitlines()
        lag = json.loads(listed)
        assert (lag["name"], lag["status"], lag["events_behind"]) == ("seen", "stopped", 2)
        assert (lag["failed_instance_id"], lag["error"]) == (str(bad), "ValueError: a bad one")
        assert lag["time_behind"] > 0
        once = holdfast("project", "shop:app", "--once", env=env)
        assert (once.returncode, once.stderr.splitlines()[-1]) == (
            1,
            "holdfast: projection seen has stopped: ValueError: a bad one",
        )

        skipped = holdfast("projections", "skip", "seen", env=env)
        assert (skipped.returncode, skipped.stdout) == (0, "projection seen: skipped\n"), skipped.stderr
        eventually("it goes on", lambda: len(rows(database_url, "select * from shop_seen.seen")) == 2)
        (event,) = holdfast("projections", "skipped", "--json", env=env).stdout.splitlines()
        assert json.loads(event)["instance_id"] == str(bad)
        resumed = holdfast("projections", "resume", "seen", "--json", env=env)
        assert json.loads(resumed.stdout) == {"projection": "seen", "resumed": False}
        assert process.stop() == 0


def test_a_worker_runs_the_projections_of_its_app(
    database_url: str, amqp_url: str, env: dict[str, str], tmp_path: Path
) -> None:
    async def seen(workflow: str) -> list[Any]:
        await commit(database_url, [start(workflow)])
        async with Client(database_url, app="shop") as client:
            await client.projections.wait_until("seen")
        return rows(database_url, "select what from shop_seen.seen order by what")

    with Workers("shop:app", env | {"HOLDFAST_AMQP_URL": amqp_url}, tmp_path) as workers:
        worker = workers.start()
        eventually("it is built", lambda: rows(database_url, "select to_regclass('shop_seen.seen') is not null")[0][0])
        assert asyncio.run(seen("a")) == [("a",)]
        assert asyncio.run(seen("b")) == [("a",), ("b",)]
        assert worker.stop() == 0
    remove_app(amqp_url, "shop")


def test_a_process_that_only_runs_projections_tells_how_it_is_doing(
    database_url: str, env: dict[str, str], services: Services, tmp_path: Path
) -> None:
    asyncio.run(commit(database_url, [start("a")]))
    asyncio.run(settle(database_url))
    env |= {"HOLDFAST_METRICS_PORT": "0", "HOLDFAST_METRICS_ADDRESS": "127.0.0.1"}
    with Workers("shop:app", env, tmp_path) as workers:
        port = Port(workers.run(HOLDFAST, "project", "shop:app"))
        eventually("it is ready", lambda: port.get("/readyz")[0] == 200)
        assert port.get("/healthz")[0] == 200
        eventually("it is built", lambda: rows(database_url, "select to_regclass('shop_seen.seen') is not null")[0][0])
        assert ("projection_stopped", "live", "seen") in port.values()

        services.drop_database(urlsplit(database_url).path[1:])
        assert "database" in port.problems()
        assert port.get("/healthz")[0] == 200


def test_mistakes_are_told(env: dict[str, str]) -> None:
    for arguments, complaint in (
        (("projections", "skip", "nonsense"), "holdfast: there is no projection 'nonsense'"),
        (("projections", "rebuild", "shop:app", "nonsense"), "holdfast: there is no projection 'nonsense'"),
        (("project", "examples.orders.app:app"), "holdfast: app orders has no projections"),
    ):
        done = holdfast(*arguments, env=env)
        assert (done.returncode != 0, done.stderr.splitlines()[-1]) == (True, complaint)
