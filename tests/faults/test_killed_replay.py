"""Replays are killed in the middle, and the broker is restarted: everything is out at least once, and little twice."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.local.services import Services
from holdfast.schemas.postgres.migrate import migrate
from tests.support.commands import HOLDFAST, holdfast
from tests.support.projections import commit, life, rows, settle
from tests.support.rabbitmq import take_all
from tests.support.replays import ids, queue
from tests.support.workers import Worker, environment, eventually

APP = "orders"
INSTANCES = 1000
EVENTS = 3 * INSTANCES
CHUNK = 500
RATE = 400


@pytest.fixture
def url(own_services: Services) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = own_services.new_database(name)
    asyncio.run(migrate(url))
    asyncio.run(commit(url, *(life() for _ in range(INSTANCES)), app=APP))
    asyncio.run(settle(url))
    yield url
    own_services.drop_database(name)


def published(url: str) -> int:
    (found,) = rows(url, "select coalesce(max(published), 0)::int from holdfast.replays")
    return int(found[0])


def heard_in_order(url: str, amqp_url: str, heard: str) -> list[str | None]:
    """Return all that came, once each event came, and each one first in the order of its instance."""
    found = ids(take_all(amqp_url, heard))
    written = rows(url, "select instance_id || ':' || version from holdfast.events order by position")
    assert {*found} == {event for (event,) in written}
    versions: dict[str, list[int]] = {}
    for event in dict.fromkeys(found):
        instance, _, version = str(event).partition(":")
        versions.setdefault(instance, []).append(int(version))
    assert all(each == [1, 2, 3] for each in versions.values())
    return found


# Protocol: D22.
def test_what_a_killed_replay_left_behind_the_next_one_goes_on_with(
    own_services: Services, url: str, tmp_path: Path
) -> None:
    heard = "test-killed-replay"
    asyncio.run(queue(own_services.amqp_url, heard))
    env = environment(url, own_services.amqp_url)
    command = ["replay", "--app", APP, "--to-queue", heard, "--name", "july", "--rate", f"{RATE}/s"]
    for kill in range(1, 4):
        process = Worker([HOLDFAST, *command], env, tmp_path / f"replay-{kill}.log")
        eventually("more events are out", lambda so_far=kill * RATE: published(url) >= so_far)  # type: ignore[misc]  # A default.
        process.kill()
        command = ["replay", "--resume", "july", "--rate", str(RATE)]
    assert published(url) < EVENTS
    done = holdfast("replay", "--resume", "july", "--rate", "0", "--json", env=env)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["published"], report["cursor"]) == (EVENTS, report["end"])
    found = heard_in_order(url, own_services.amqp_url, heard)
    assert EVENTS <= len(found) <= EVENTS + 3 * RATE


@pytest.mark.parametrize("mode", ["orderly", "kill"])
def test_a_replay_outlives_a_restart_of_the_broker(mode: str, own_services: Services, url: str, tmp_path: Path) -> None:
    assert own_services.rabbitmq
    heard = f"test-replay-restart-{mode}"
    asyncio.run(queue(own_services.amqp_url, heard))
    env = environment(url, own_services.amqp_url)
    command: list[str | Path] = [HOLDFAST, "replay", "--app", APP, "--to-queue", heard, "--rate", "600/s"]
    process = Worker(command, env, tmp_path / "replay.log")
    eventually("some events are out", lambda: published(url) >= 500)
    own_services.rabbitmq.stop(mode)  # type: ignore[arg-type]  # One of its modes.
    assert process.is_running
    own_services.rabbitmq.start()
    eventually("the replay has ended", lambda: not process.is_running, 120)
    assert process.process.returncode == 0, process.output
    assert published(url) == EVENTS
    found = heard_in_order(url, own_services.amqp_url, heard)
    assert len(found) <= EVENTS + CHUNK
