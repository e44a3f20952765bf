"""Workers of two versions of an app side by side, as during a deployment, each a process of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "parcels"
KEYS = [f"k-{number}" for number in range(12)]

HEAD = """
from datetime import timedelta

from holdfast import App, Message, delay, first_of, receive

app = App("parcels")


class Placed(Message, correlation="key", type="Placed"):
    key: str


class Paid(Message, correlation="key", type="Paid"):
    key: str


@app.activity
async def reserve(key: str) -> str:
    return f"{key} reserved by {VERSION}"
"""

ONE = (
    'VERSION = "one"\n'
    + HEAD
    + """
class Recalled(Message, correlation="key", type="Recalled"):
    key: str


@app.workflow(start=Placed)
async def parcel(placed: Placed) -> str:
    stock = await reserve(placed.key)
    outcome = await first_of(paid=receive(Paid, placed.key), recalled=receive(Recalled, placed.key))
    return f"one: {outcome.name}, {stock}"
"""
)

# Steps are new before and behind the wait, a variable has another name, a type is gone and another one is new.
TWO = (
    'VERSION = "two"\n'
    + HEAD
    + """
class Gift(Message, correlation="key", type="Gift"):
    key: str


@app.activity
async def weigh(key: str) -> int:
    return len(key)


@app.workflow(start=Placed)
async def parcel(placed: Placed) -> str:
    weight = await weigh(placed.key)
    reservation = await reserve(placed.key)
    await receive(Paid, placed.key)
    again = await weigh(placed.key)
    return f"two: paid, {reservation}, {weight}, {again}"


@app.workflow(start=Gift)
async def gift(given: Gift) -> str:
    return f"gift: {await reserve(given.key)}"
"""
)

# As the second version, but what the first one's program names is still there.
CAREFUL = TWO.replace(
    "class Gift(", 'class Recalled(Message, correlation="key", type="Recalled"):\n    key: str\n\n\nclass Gift('
)

RESULTS: LiteralString = """
    select correlation_key, convert_from(s.state, 'UTF8')::json ->> 'result'
    from holdfast.instance_rows join holdfast.instance_states s using (instance_id) where is_completed
"""
HASHES: LiteralString = "select correlation_key, program_hash from holdfast.instances where workflow = 'parcel'"


@dataclass
class Deployment:
    """The app's servers, and its versions as a folder each."""

    database_url: str
    amqp_url: str
    folder: Path

    def workers(self, version: str, source: str, **settings: object) -> Workers:
        """Return the workers of a version."""
        home = self.folder / version
        home.mkdir()
        (home / "parcels.py").write_text(source)
        env = environment(
            self.database_url,
            self.amqp_url,
            partitions=2,
            lease=6,
            host_lock_renewal=2,
            runnable_detection=1,
            **settings,
        )
        return Workers("parcels:app", {**env, "PYTHONPATH": str(home)}, home)

    def ask(self, query: LiteralString) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()

    def send(self, kind: str, *keys: str) -> None:
        """Publish a message of a type for each key."""
        publish(
            self.amqp_url,
            APP,
            [Raw(type=kind, message_id=f"{kind}/{key}", key=key, body=b'{"key": "%s"}' % key.encode()) for key in keys],
        )

    def results(self) -> dict[str, str]:
        return dict(self.ask(RESULTS))

    def await_waiting(self, count: int) -> None:
        eventually(
            f"{count} parcels wait",
            lambda: self.ask("select count(*) from holdfast.instances where execution_status = 'idle'") == [(count,)],
        )

    def await_shared(self, hosts: int) -> None:
        """Wait until so many workers consume a partition each."""
        eventually(
            f"{hosts} workers consume",
            lambda: (
                self.ask("select count(*) from holdfast.hosts where lease_expiration > now() and partitions <> '{}'")
                == [(hosts,)]
            ),
        )

    def dead_letters(self) -> list[Any]:
        return self.ask("select message_id, reason, detail from holdfast.inbox where verdict = 'dead_lettered'")


@pytest.fixture
def deployment(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Deployment]:
    remove_app(amqp_url, APP)
    yield Deployment(database_url, amqp_url, tmp_path)
    remove_app(amqp_url, APP)


def test_with_the_program_key_new_workers_finish_what_began_under_the_old_version(deployment: Deployment) -> None:
    old, late, new = KEYS[:6], KEYS[6:8], KEYS[8:]
    with (
        deployment.workers("one", ONE, program_key="secret") as one,
        deployment.workers("two", CAREFUL, program_key="secret") as two,
    ):
        first = one.start()
        await_hosts(deployment.database_url, 1)
        deployment.send("Placed", *old, *late)
        deployment.await_waiting(8)
        second = two.start()
        deployment.await_shared(2)
        assert first.stop() == 0
        deployment.await_shared(1)
        deployment.send("Placed", *new)
        deployment.await_waiting(12)
        deployment.send("Recalled", *late)
        deployment.send("Paid", *old, *new)
        eventually("all parcels are done", lambda: len(deployment.results()) == 12)
        assert second.stop() == 0
    assert deployment.results() == {
        **{key: f"one: paid, {key} reserved by one" for key in old},
        **{key: f"one: recalled, {key} reserved by one" for key in late},
        **{key: f"two: paid, {key} reserved by two, 3, 3" for key in new if len(key) == 3},
        **{key: f"two: paid, {key} reserved by two, 4, 4" for key in new if len(key) == 4},
    }
    assert deployment.dead_letters() == []
    checked = holdfast("verify", env=environment(deployment.database_url, deployment.amqp_url))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("key", ["", "secret"])
def test_side_by_side_each_version_gets_what_only_it_can_take(deployment: Deployment, key: str) -> None:
    # The second version lacks a name of the first one's program, so its workers cannot run that at all.
    with (
        deployment.workers("one", ONE, program_key=key) as one,
        deployment.workers("two", TWO, program_key=key) as two,
    ):
        first = one.start()
        await_hosts(deployment.database_url, 1)
        deployment.send("Placed", *KEYS)
        deployment.await_waiting(12)
        second = two.start()
        deployment.await_shared(2)
        deployment.send("Recalled", *KEYS[:4])
        deployment.send("Gift", *[f"g-{number}" for number in range(6)])
        deployment.send("Paid", *KEYS[4:])
        eventually("all is done", lambda: len(deployment.results()) == 18, timeout=120)
        assert [first.stop(), second.stop()] == [0, 0]
    results = deployment.results()
    assert {results[key].partition(":")[0] for key in KEYS} == {"one"}
    assert {results[f"g-{number}"] for number in range(6)} == {f"gift: g-{n} reserved by two" for n in range(6)}
    assert deployment.dead_letters() == []
    assert deployment.ask("select count(*) from holdfast.events where type = 'InstanceSuspended'") == [(0,)]


def test_without_the_program_key_old_instances_wait_for_their_version_to_come_back(deployment: Deployment) -> None:
    with deployment.workers("one", ONE) as one, deployment.workers("two", CAREFUL) as two:
        first = one.start()
        await_hosts(deployment.database_url, 1)
        deployment.send("Placed", *KEYS[:2])
        deployment.await_waiting(2)
        assert first.stop() == 0
        second = two.start()
        deployment.await_shared(1)
        deployment.send("Paid", *KEYS[:2])
        deployment.send("Placed", *KEYS[2:4])
        deployment.send("Paid", *KEYS[2:4])
        eventually("the new ones are done", lambda: deployment.results().keys() == {*KEYS[2:4]})
        eventually("a worker says why", lambda: "program unknown" in second.output)
        back = one.start()
        eventually("the old ones are done", lambda: deployment.results().keys() == {*KEYS[:4]}, timeout=120)
        assert [back.stop(), second.stop()] == [0, 0]
    results = deployment.results()
    assert {key: results[key].partition(":")[0] for key in KEYS[:4]} == {
        **dict.fromkeys(KEYS[:2], "one"),
        **dict.fromkeys(KEYS[2:4], "two"),
    }
    assert deployment.dead_letters() == []
