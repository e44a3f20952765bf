"""Of three RabbitMQ nodes and two Postgres servers, one each is lost for good under load; nothing else is."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.architecture.house import ROOT
from tests.support.app_image import blocks, build_holdfast, settings_file
from tests.support.compose import Compose, docker, is_healthy
from tests.support.workers import eventually

pytestmark = pytest.mark.timeout(1200)

IMAGE = "holdfast-test-orders"
ORDERS = 200
REPLICAS = "select usename, sync_state from pg_stat_replication"


@pytest.fixture(scope="module")
def image() -> str:
    """The orders example as a layer on Holdfast's image."""
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, "--file", "-", "examples"],
        cwd=ROOT,
        input=f"FROM {build_holdfast()}\nCOPY . /app/examples\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return IMAGE


@pytest.fixture(scope="module")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    file = settings_file(tmp_path_factory.mktemp("cluster"))
    given = {"HOLDFAST_IMAGE": image, "HOLDFAST_APP": "examples.orders.app:app", "HOLDFAST_LEASE": "5"}
    with Compose("--env-file", f"{file}", "-f", "cluster.yml", variables=given) as cluster:
        cluster.run("up", "--detach", "--scale", "worker=2")
        yield cluster


def example(cluster: Compose, *arguments: str) -> str:
    return cluster.run("run", "--rm", "--no-deps", "--entrypoint", "python3", "worker", "-m", *arguments)


def holdfast(cluster: Compose, *arguments: str) -> str:
    return cluster.run("run", "--rm", "--no-deps", "worker", *arguments)


def tally(cluster: Compose) -> dict[str, int]:
    """Count the instances by what became of them; the servers' lines beside it are passed over."""
    printed = holdfast(cluster, "instances", "--app", "orders", "--count", "--json")
    found: dict[str, int] = {}
    for line in printed.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            name = row["outcome"] or ("suspended" if row["is_initialized"] else "never persisted")
            found[name] = found.get(name, 0) + row["instances"]
    return found


def ask(cluster: Compose, server: str, query: str) -> str:
    """Return what Postgres says to its superuser."""
    (container,) = cluster.containers(server)
    asked = ("psql", "--username=postgres", "--dbname=holdfast", "--no-align", "--tuples-only", "--command", query)
    return docker("exec", container, *asked).strip()


def test_a_primary_that_has_lost_its_standby_goes_on_when_told_to(cluster: Compose) -> None:
    assert ask(cluster, "postgres", REPLICAS) == "standby|sync"
    (primary,), (standby,) = cluster.containers("postgres"), cluster.containers("postgres-standby")
    docker("kill", standby)
    write = ("psql", "--username=postgres", "--dbname=holdfast", "--command", "create table written ()")
    waiting = subprocess.Popen(["docker", "exec", primary, *write])
    waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ~ '^create table'"
    eventually("a commit waits for the standby", lambda: ask(cluster, "postgres", waits) == "1")
    ask(cluster, "postgres", "alter system set synchronous_standby_names = ''")
    ask(cluster, "postgres", "select pg_reload_conf()")
    assert waiting.wait(timeout=60) == 0

    docker("start", standby)
    ask(cluster, "postgres", "alter system reset synchronous_standby_names")
    ask(cluster, "postgres", "select pg_reload_conf()")
    eventually("commits wait for it again", lambda: ask(cluster, "postgres", REPLICAS) == "standby|sync")


def test_one_server_of_each_kind_may_be_lost(cluster: Compose) -> None:
    example(cluster, "examples.orders.create_table")
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")

    # The node and the server that were there first: the ones that lead.
    docker("kill", *cluster.containers("rabbitmq-1"))
    cluster.run("up", "--detach", "--no-deps", "--no-recreate", "--scale", "worker=3", "worker")
    eventually("there is one more worker", lambda: [*map(is_healthy, cluster.containers("worker"))] == [True] * 3, 120)
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")
    docker("kill", *cluster.containers("postgres"))
    for step in (
        "select pg_promote()",
        "alter system set synchronous_standby_names = ''",
        "select pg_reload_conf()",
    ):
        ask(cluster, "postgres-standby", step)
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")

    ended = {
        "completed": 3 * ORDERS * 8 // 10,
        "suspended": 3 * ORDERS // 10,
        "never persisted": 3 * ORDERS // 10,
    }
    eventually("all orders that can be are completed", lambda: tally(cluster) == ended, 300)
    assert "no difference" in holdfast(cluster, "verify", "--app", "orders")


def test_the_old_primary_becomes_a_standby_by_the_commands_of_the_page(cluster: Compose) -> None:
    (commands,) = (block for block in blocks("sh") if "pg_basebackup --dbname" in block)
    cluster.follow(commands)
    eventually("it follows", lambda: ask(cluster, "postgres-standby", REPLICAS) == "standby|async")
    ask(cluster, "postgres-standby", "alter system set synchronous_standby_names = 'standby'")
    ask(cluster, "postgres-standby", "select pg_reload_conf()")
    eventually("commits wait for it", lambda: ask(cluster, "postgres-standby", REPLICAS) == "standby|sync")
    assert ask(cluster, "postgres", "select pg_is_in_recovery()") == "t"
    assert "no difference" in holdfast(cluster, "verify", "--app", "orders")
