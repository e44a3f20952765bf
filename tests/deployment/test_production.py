"""An app in production, from its image and the file of settings that the page shows."""

import json
from collections.abc import Iterator

import pytest

from tests.support.app_image import build_shop, settings_file
from tests.support.compose import Compose, docker, inspect, is_healthy
from tests.support.workers import eventually

pytestmark = pytest.mark.timeout(900)

SETTING = {"HOLDFAST_PREFETCH": "37", "HOLDFAST_ACK_DEADLINE": "3000", "WORKER_CPUS": "0.5", "RABBITMQ_MEMORY": "1g"}


@pytest.fixture
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    file = settings_file(tmp_path_factory.mktemp("production"))
    with file.open("a") as lines:
        lines.writelines(f"{name}={value}\n" for name, value in SETTING.items())
    variables = {"HOLDFAST_IMAGE": build_shop(tmp_path_factory.mktemp("shop"))}
    with Compose("--env-file", f"{file}", "-f", "compose.yml", variables=variables) as production:
        production.run("up", "--detach")
        yield production


def holdfast(production: Compose, *arguments: str) -> str:
    return production.run("exec", "-T", "worker", "holdfast", *arguments)


def test_an_app_runs_with_the_settings_of_the_file(production: Compose) -> None:
    workers = production.containers("worker")
    assert len(workers) == 3
    eventually("the workers are healthy", lambda: all(map(is_healthy, workers)), 180)
    for message in ("Asked", "Answered"):
        holdfast(production, "publish", "shop.workflows:app", message, '{"key": "a"}')

    def is_completed() -> bool:
        return '"outcome":"completed"' in holdfast(production, "instances", "--app", "shop", "--json").replace(" ", "")

    eventually("the workflow has ended", is_completed)

    for worker in workers:
        # What is not set has no value, rather than an empty one.
        found = dict(line.split("=", 1) for line in docker("exec", worker, "env").splitlines())
        assert found["HOLDFAST_PREFETCH"] == "37"
        assert "HOLDFAST_LEASE" not in found
        assert "POSTGRES_PASSWORD" not in found
        assert inspect(worker)["HostConfig"]["NanoCpus"] == 500_000_000
    (rabbitmq,) = production.containers("rabbitmq")
    node = docker("exec", rabbitmq, "cat", "/etc/holdfast/rabbitmq.conf")
    # What the node is told follows from the same settings.
    assert f"consumer_timeout = {2 * 3000 * 1000}\n" in node
    assert f"total_memory_available_override_value = {1 << 30}\n" in node
    published = [inspect(container)["HostConfig"]["PortBindings"] for container in production.containers()]
    assert not any(published), json.dumps(published)
