"""``preflight`` and ``migrate-instances`` beside real workers: two versions of an app, one after the other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest

from holdfast import App, Client, Message, receive
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import running_host
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually

APP = "migrating"

HEAD = """
from datetime import timedelta

from holdfast import App, Message, compensable, delay, first_of, receive, routine

app = App("migrating")


class Paid(Message, correlation="key", type="Paid"):
    key: str


class Plain(Message, correlation="key", type="Plain"):
    key: str


class Looping(Message, correlation="key", type="Looping"):
    key: str


class Calling(Message, correlation="key", type="Calling"):
    key: str


class Risky(Message, correlation="key", type="Risky"):
    key: str


class Late(Message, correlation="key", type="Late"):
    key: str
    seconds: float


class Renamed(Message, correlation="key", type="Renamed"):
    key: str


@app.activity
async def reserve(key: str) -> str:
    return f"R-{key}"


@app.activity
async def release(reservation: str) -> str:
    return f"released {reservation}"
"""

ONE = (
    HEAD
    + """
def suffix() -> str:
    return "!"


@app.workflow(start=Plain)
async def plain(started: Plain) -> str:
    stock = await reserve(started.key)
    await receive(Paid, started.key)
    return stock + suffix()


@app.workflow(start=Looping)
async def looping(started: Looping) -> list[str]:
    seen = []
    for item in ["a", "b"]:
        await receive(Paid, started.key)
        seen.append(item)
    return seen


@routine
async def pay(key: str) -> str:
    await receive(Paid, key)
    return "old"


@app.workflow(start=Calling)
async def calling(started: Calling) -> str:
    return await pay(started.key)


@app.workflow(start=Risky, on_unhandled="cancel")
async def risky(started: Risky) -> None:
    async with compensable() as stock:
        reservation = await reserve(started.key)
        stock.undo(release, reservation)
    await receive(Paid, started.key)


@app.workflow(start=Late)
async def late(started: Late) -> str:
    outcome = await first_of(paid=receive(Paid, started.key), late=delay(timedelta(seconds=started.seconds)))
    return outcome.name


@app.workflow(start=Renamed)
async def renamed(started: Renamed) -> str:
    stock = await reserve(started.key)
    await receive(Paid, started.key)
    return stock
"""
)

TWO = (
    HEAD
    + """
@app.activity
async def weigh(key: str) -> int:
    return len(key)


def suffix() -> str:
    return "?"


@app.workflow(start=Plain)
async def plain(started: Plain) -> str:
    weight = await weigh(started.key)
    stock = await reserve(started.key)
    await receive(Paid, started.key)
    more = await weigh(started.key + stock)
    return f"{stock} {more}"


@app.workflow(start=Looping)
async def looping(started: Looping) -> list[str]:
    await weigh(started.key)
    seen = []
    for item in ["a", "b"]:
        await receive(Paid, started.key)
        await weigh(item)
        seen.append(item + "!")
    return seen


@routine
async def pay(key: str) -> str:
    await weigh(key)
    await receive(Paid, key)
    return "new"


@app.workflow(start=Calling)
async def calling(started: Calling) -> str:
    return "by the " + await pay(started.key)


@app.workflow(start=Risky, on_unhandled="cancel")
async def risky(started: Risky) -> None:
    async with compensable() as stock:
        await weigh(started.key)
        reservation = await reserve(started.key)
        stock.undo(release, reservation)
    await receive(Paid, started.key)
    raise ValueError(started.key)


@app.workflow(start=Late)
async def late(started: Late) -> str:
    await weigh(started.key)
    outcome = await first_of(paid=receive(Paid, started.key), late=delay(timedelta(days=9)))
    return "new " + outcome.name


@app.workflow(start=Renamed)
async def renamed(started: Renamed) -> str:
    reservation = await reserve(started.key)
    await receive(Paid, started.key)
    return reservation
"""
)

KINDS = ("Plain", "Looping", "Calling", "Risky", "Late", "Renamed")
RESULTS: LiteralString = """
    select correlation_key, r.outcome, convert_from(s.state, 'UTF8')::json -> 'result'
    from holdfast.instance_rows r join holdfast.instance_states s using (instance_id) where is_completed
"""


class Shop:
    """The app's servers, and its versions as a folder each."""

    def __init__(self, database_url: str, amqp_url: str, folder: Path) -> None:
        self.url = database_url
        self.amqp = amqp_url
        self.folder = folder
        for version, source in (("one", ONE), ("two", TWO), ("three", TWO.replace("def suffix", "def ending"))):
            (folder / version).mkdir()
            (folder / version / "migrating.py").write_text(source)

    def env(self, version: str, **settings: object) -> dict[str, str]:
        settings |= {"runnable_detection": 1}
        return {**environment(self.url, self.amqp, **settings), "PYTHONPATH": str(self.folder / version)}

    def workers(self, version: str, **settings: object) -> Workers:
        return Workers("migrating:app", self.env(version, **settings), self.folder / version)

    def run(self, version: str, *arguments: str, code: int = 0, url: str | None = None) -> str:
        env = self.env(version)
        done = holdfast(*arguments, env=env if url is None else {**env, "HOLDFAST_DATABASE_URL": url})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, query: LiteralString) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()

    def send(self, kind: str, key: str, number: int = 0, **fields: object) -> None:
        body = json.dumps({"key": key, **fields}).encode()
        publish(self.amqp, APP, [Raw(type=kind, message_id=f"{kind}/{key}/{number}", key=key, body=body)])

    def begin(self, **settings: object) -> None:
        """Have one instance of each workflow begin under the first version, and its worker end."""
        with self.workers("one", **settings) as one:
            worker = one.start()
            await_hosts(self.url, 1)
            for kind in KINDS:
                self.send(kind, kind.lower(), **({"seconds": 3600} if kind == "Late" else {}))
            idle: LiteralString = "select count(*) from holdfast.instances where execution_status = 'idle'"
            eventually("all wait", lambda: self.ask(idle) == [(len(KINDS),)])
            assert worker.stop() == 0

    def verified(self) -> None:
        self.run("two", "verify")


@pytest.fixture
def shop(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Shop]:
    remove_app(amqp_url, APP)
    yield Shop(database_url, amqp_url, tmp_path)
    remove_app(amqp_url, APP)


def test_instances_go_on_with_the_new_code_once_they_are_moved(shop: Shop) -> None:
    shop.begin()
    # One who may only look can ask.
    parts = urlsplit(shop.url)
    with psycopg.connect(shop.url, autocommit=True) as connection:
        connection.execute("create role looker login password 'look' in role holdfast_observer")
    try:
        looker = parts._replace(netloc=f"looker:look@{parts.netloc.rpartition('@')[2]}").geturl()
        found = shop.run("two", "preflight", "migrating:app", "--json", url=looker)
    finally:
        with psycopg.connect(shop.url, autocommit=True) as connection:
            connection.execute("drop role looker")
    verdicts = {each["workflow"]: each for each in map(json.loads, found.splitlines())}
    assert {name: each["can_move"] for name, each in verdicts.items()} == {
        **dict.fromkeys(("plain", "looping", "calling", "risky", "late"), True),
        "renamed": False,
    }
    assert all(each["can_run"] for each in verdicts.values())
    (obstacle,) = verdicts["renamed"]["obstacles"]
    assert obstacle["reason"] == "variable_missing"
    assert TWO.splitlines()[obstacle["new_line"] - 1].strip() == "await receive(Paid, started.key)"
    events = shop.ask("select count(*) from holdfast.events")
    dry = shop.run("two", "migrate-instances", "migrating:app", "--dry-run", code=1)
    assert "5 would be moved, 1 left as they are, 0 up to date" in dry
    assert shop.ask("select count(*) from holdfast.events") == events
    moved = shop.run("two", "migrate-instances", "migrating:app", "--by", "ann", "--why", "new prices", code=1)
    assert "variable_missing: the new program uses variable reservation" in moved
    assert "5 moved, 1 left as they are, 0 up to date" in moved
    assert "0 moved, 1 left as they are, 5 up to date" in shop.run("two", "migrate-instances", "migrating:app", code=1)
    assert shop.ask("select count(*) from holdfast.events where data ->> 'reason' = 'migrated'") == [(5,)]
    assert shop.ask(
        "select distinct data ->> 'by', data ->> 'why' from holdfast.events where type = 'InstanceMigrated'"
    ) == [("ann", "new prices")]
    shop.verified()
    # Without a program key, so what was moved runs because it is of the new version, and nothing else does.
    with shop.workers("two") as two:
        worker = two.start()
        await_hosts(shop.url, 1)
        for kind in ("plain", "looping", "calling", "risky", "renamed"):
            shop.send("Paid", kind)
        shop.send("Paid", "looping", 1)
        late = shop.ask("select instance_id::text from holdfast.instances where workflow = 'late'")[0][0]
        ((timer,),) = shop.ask("select name from holdfast.bookmarks where kind = 'timer'")
        shop.run("two", "timers", "fire", late, timer)
        eventually("all that was moved has ended", lambda: len(shop.ask(RESULTS)) == 5)
        assert worker.stop() == 0
    assert {key: (outcome, result) for key, outcome, result in shop.ask(RESULTS)} == {
        "plain": ("completed", "R-plain 12"),
        "looping": ("completed", ["a!", "b!"]),
        "calling": ("completed", "by the new"),
        "risky": ("cancelled", None),
        "late": ("completed", "new late"),
    }
    undone: LiteralString = "select data ->> 'result' from holdfast.events where data ->> 'activity' = 'release'"
    assert shop.ask(undone) == [("released R-risky",)]
    shop.verified()


def test_a_worker_that_has_an_instance_loaded_lets_go_of_it_if_asked(shop: Shop) -> None:
    shop.begin(program_key="secret")
    with shop.workers("two", program_key="secret") as two:
        worker = two.start()
        await_hosts(shop.url, 1)
        # It takes one up, on its old program, and keeps it loaded.
        shop.send("Paid", "looping")
        held: LiteralString = "select instance_id::text from holdfast.instances where lock_owner is not null"
        eventually("it is loaded", lambda: len(shop.ask(held)) == 1)
        only = ("migrate-instances", "migrating:app", "--where", "workflow=looping")
        refused = shop.run("two", *only, code=1)
        assert "refused: " in refused
        assert "0 moved, 1 left as they are" in refused
        # A machine with much else to do may take longer than the half minute that the command waits.
        eventually("it is moved", lambda: holdfast(*only, "--unload", env=shop.env("two")).returncode == 0, timeout=150)
        shop.send("Paid", "looping", 1)
        eventually("it has ended", lambda: len(shop.ask(RESULTS)) == 1)
        assert worker.stop() == 0
    assert shop.ask(RESULTS) == [("looping", "completed", ["a", "b!"])]
    shop.verified()


FALLING = (
    HEAD
    + """
import os
import signal
from pathlib import Path

FELL = Path(__file__).parent.parent / "fell"


@app.activity
async def charge(key: str) -> None:
    if not FELL.exists():
        FELL.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@app.workflow(start=Plain)
async def plain(started: Plain) -> str:
    await receive(Paid, started.key)
    await charge(started.key)
    await receive(Paid, started.key)
    return "old"
"""
)


def test_what_ran_when_its_host_fell_is_not_moved_before_it_is_committed(shop: Shop) -> None:
    newer = FALLING.replace("    await receive", "    await reserve(started.key)\n    await receive", 1)
    for version, source in (("falling", FALLING), ("newer", newer)):
        (shop.folder / version).mkdir()
        (shop.folder / version / "migrating.py").write_text(source)
    idle: LiteralString = "select count(*) from holdfast.instances where execution_status = 'idle'"
    with shop.workers("falling", lease=2, host_lock_renewal=0.5) as workers:
        worker = workers.start()
        await_hosts(shop.url, 1)
        shop.send("Plain", "plain")
        eventually("it waits", lambda: shop.ask(idle) == [(1,)])
        shop.send("Paid", "plain")
        eventually("its worker has fallen", lambda: not worker.is_running)
        only = ("migrate-instances", "migrating:app")
        env = shop.env("newer")
        eventually("it is refused", lambda: "activity_pending" in holdfast(*only, env=env).stdout)
        # To have held it for that does not wipe out what is known.
        for more in ((), ("--dry-run",)):
            assert "activity charge, behind its place, may have run" in shop.run("newer", *only, *more, code=1)
        worker = workers.start()
        charged: LiteralString = "select count(*) from holdfast.events where data ->> 'activity' = 'charge'"
        eventually("it waits again", lambda: shop.ask(charged) == [(1,)] and shop.ask(idle) == [(1,)])
        assert worker.stop() == 0
    assert "1 moved" in shop.run("newer", "migrate-instances", "migrating:app")
    shop.verified()


def test_preflight_fails_where_the_new_code_could_not_go_on_at_all(shop: Shop) -> None:
    shop.begin(program_key="secret")
    assert "no living instance" not in shop.run("two", "preflight", "migrating:app", "--summary")
    stuck = shop.run("three", "preflight", "migrating:app", code=1)
    assert "names_gone: migrating no longer defines suffix, which its program uses (frame 0, old line" in stuck
    assert "cannot run its old program, can be moved" in stuck
    env = {**shop.env("two"), "HOLDFAST_PROGRAM_KEY": "another"}
    done = holdfast("preflight", "migrating:app", "--summary", env=env)
    assert (done.returncode, "not_signed" in done.stdout) == (1, True)
    done = holdfast("preflight", "migrating:app", "--summary", env={**env, "HOLDFAST_PROGRAM_KEY": "secret"})
    assert (done.returncode, "not_signed" in done.stdout) == (0, False)


def test_bad_input_is_refused(shop: Shop) -> None:
    nobody = "00000000-0000-0000-0000-000000000001"
    assert "there is no instance" in shop.run("two", "migrate-instances", "migrating:app", nobody, code=1)
    both = shop.run("two", "migrate-instances", "migrating:app", nobody, "--where", "key=a", code=2)
    assert "not both" in both
    assert "means nothing" in shop.run("two", "migrate-instances", "migrating:app", "--where", "colour=red", code=2)
    assert "no module" in shop.run("two", "preflight", "elsewhere:app", code=2)
    assert "no living instance" in shop.run("two", "preflight", "migrating:app")


class Begun(Message, correlation="key"):
    key: str


class Over(Message, correlation="key"):
    key: str


ending = App("ending")


@ending.workflow(start=Begun)
async def wait(begun: Begun) -> None:
    await receive(Over, begun.key)


async def test_preflight_passes_over_what_ends_meanwhile(database_url: str) -> None:
    async with running_host(ending, database_url, Settings()) as host, Client(database_url) as client:
        for key in ("a", "b", "c"):
            await host.tell(Begun(key=key))
        found = []
        # All rows are read with the first page, and the streams one after the other.
        async for verdict in client.preflight(ending):
            found.append(verdict.correlation_key)
            if verdict.correlation_key == "a":
                await host.tell(Over(key="b"))
    assert found == ["a", "c"]
