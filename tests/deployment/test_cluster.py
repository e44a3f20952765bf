"""Of three RabbitMQ nodes and two Postgres servers, one each is lost for good under load; nothing else is."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.architecture.house import ROOT
from tests.support.compose import Compose, docker
from tests.support.workers import eventually

pytestmark = pytest.mark.timeout(1200)

IMAGE = "holdfast-orders"
ORDERS = 200


@pytest.fixture(scope="module")
def image() -> str:
    """The app as a layer on Holdfast's image, as an operator would build it."""
    with Compose(["compose.yml"], {}) as compose:
        compose.run("build", "worker")
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, "--file", "-", "examples"],
        cwd=ROOT,
        input="FROM holdfast\nCOPY . /app/examples\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return IMAGE


@pytest.fixture
def cluster(image: str) -> Iterator[Compose]:
    with Compose(["cluster.yml"], {"HOLDFAST_IMAGE": image, "HOLDFAST_LEASE": "5"}) as compose:
        compose.run("up", "--detach", "--no-build", "--scale", "worker=2")
        yield compose


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


def test_one_server_of_each_kind_may_be_lost(cluster: Compose) -> None:
    example(cluster, "examples.orders.create_table")
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")

    # The node and the server that were there first: the ones that lead.
    docker("kill", *cluster.containers("rabbitmq-1"))
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")
    docker("kill", *cluster.containers("postgres"))
    (standby,) = cluster.containers("postgres-standby")
    docker("exec", standby, "psql", "--username=holdfast", "--dbname=holdfast", "--command", "select pg_promote()")
    example(cluster, "examples.orders.publish", "--orders", f"{ORDERS}")

    ended = {
        "completed": 3 * ORDERS * 8 // 10,
        "suspended": 3 * ORDERS // 10,
        "never persisted": 3 * ORDERS // 10,
    }
    eventually("all orders that can be are completed", lambda: tally(cluster) == ended, 300)
    assert "no difference" in holdfast(cluster, "verify", "--app", "orders")
