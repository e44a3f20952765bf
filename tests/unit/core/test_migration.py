"""Instances that are moved to another version of their program, on hosts in a simulation."""

import importlib.util
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from holdfast.events.types import Event, InstanceMigrated, Persisted
from holdfast.processor.core.migration import Migration, Obstacle
from holdfast.processor.engine.batch import Batch
from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.language.app import App
from holdfast.processor.language.program import Program
from holdfast.processor.testing.world import World
from holdfast.projections.instance import InstanceState, fold
from tests.support.migrations import REFUSED, WAIT

HEAD = """
from dataclasses import dataclass
from datetime import timedelta

from holdfast import App, Message, Transaction, compensable, delay, first_of, gather, receive, routine, send, start
from holdfast import checkpoint, transacted_receive

app = App("shop")
log = []


class Placed(Message, correlation="key", type="Placed"):
    key: str


class Paid(Message, correlation="key", type="Paid"):
    key: str


class Sent(Message, correlation="key", type="Sent"):
    key: str


@dataclass
class Stock:
    pieces: int


@app.activity
async def reserve(key: str) -> str:
    log.append(f"reserve {key}")
    return f"R-{key}"


@app.activity
async def weigh(key: str) -> int:
    log.append(f"weigh {key}")
    return 7


@app.activity
async def release(reservation: str) -> None:
    log.append(f"release {reservation}")


@app.activity
async def count(key: str) -> Stock:
    return Stock(3)
"""

ORDER = """

@app.workflow(start=Placed)
async def order(placed: Placed) -> object:
"""

Deploy = Callable[[str], ModuleType]


def order(body: str, before: str = "") -> str:
    """Return the source of a version of the app."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"{HEAD}\n\n{before}{ORDER}{indented}\n"


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Import a version of the app's module, as a worker does at its start."""
    versions = iter(range(100))

    def load(source: str) -> ModuleType:
        file = tmp_path / f"shop_{next(versions)}.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location("migrating_shop", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "migrating_shop", module)
        spec.loader.exec_module(module)
        module.app.check()
        return module

    return load


class Shop:
    """A store with one order, and hosts of one version after the other."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.world = self.clock = World(module.app, program_key="secret")

    async def begin(self, *messages: str) -> None:
        host = await self.world.host()
        for number, kind in enumerate(("Placed", *messages)):
            await host.deliver(getattr(self.module, kind)(key="k"), f"old-{number}")
        await host.engine.unload_idle(0)
        await self.world.store.close_host(host.runtime.host_id)

    def migration(self, module: ModuleType) -> Migration:
        app: App = module.app
        migration = Migration(app)
        for stored in self.world.store.tables.programs.values():
            current: Any = app.workflows.get(stored.workflow)
            if stored.starts_with is None:
                routine = app.routines.get(stored.workflow)
                current = None if routine is None else routine.definition
            namespace = None if current is None else vars(current.module)
            migration.programs[stored.program_hash] = Program.from_json(stored.program, namespace)
        return migration

    def look(self, module: ModuleType) -> list[Event] | list[Obstacle]:
        return self.migration(module).migrate(self.state, by="ann", why="new prices")

    @property
    def state(self) -> InstanceState:
        return self.world.state

    async def move(self, module: ModuleType) -> None:
        """Commit what moves the order, as a client does, and go on with hosts of the new version."""
        events = self.look(module)
        assert [type(event) for event in events] == [InstanceMigrated, Persisted], events
        batch: list[Any] = [*events]
        host_id, store = uuid4(), self.world.store
        await store.open_host(Host(host_id=host_id, app="shop", machine="m", process_id=1, lease_seconds=60))
        (loaded,) = await store.load(host_id, [self.world.instance_id])
        assert isinstance(loaded, Loaded)
        (answer,) = await store.commit(
            [
                Batch(
                    instance_id=loaded.instance_id,
                    host_id=host_id,
                    lock_token=loaded.lock_token,
                    expected_version=self.state.version,
                    events=batch,
                    metadata={},
                    state=fold(batch, self.state),
                )
            ]
        )
        assert not isinstance(answer, Exception), answer
        await store.close_host(host_id)
        newer = World(module.app, program_key="secret")
        newer.store, newer.time, newer.random = store, self.world.time, self.world.random
        self.world, self.module = newer, module

    async def go_on(self, *messages: str) -> object:
        """Deliver messages to a host of the version that is deployed, and return the order's result."""
        host = await self.world.host()
        await host.detect()
        for number, kind in enumerate(messages):
            await host.deliver(getattr(self.module, kind)(key="k"), f"new-{number}")
        return self.state.result if self.state.outcome == "completed" else self.state


MOVED = {
    "steps before and behind": (
        f"stock = await reserve(placed.key)\n{WAIT}\nreturn stock",
        (
            f"weight = await weigh(placed.key)\nstock = await reserve(placed.key)\n{WAIT}\n"
            "again = await weigh(placed.key)\nreturn [stock, again]"
        ),
        ["R-k", 7],
    ),
    "an answer that is kept": (
        f"paid = {WAIT}\nreturn paid.key",
        f"await weigh(placed.key)\nmoney = {WAIT}\nreturn ['new', money.key]",
        ["new", "k"],
    ),
    "in a for loop": (
        f"seen = []\nfor item in ['a', 'b', 'c']:\n    {WAIT}\n    seen.append(item)\nreturn seen",
        (
            "for extra in [1]:\n    await checkpoint()\nseen = []\nfor item in ['a', 'b', 'c']:\n"
            f"    {WAIT}\n    seen.append(item + '!')\nreturn seen"
        ),
        ["a!", "b!", "c!"],
    ),
    "in a while loop": (
        f"n = 0\nwhile n < 2:\n    {WAIT}\n    n += 1\nreturn n",
        f"n = 0\nwhile n < 2:\n    await weigh('x')\n    {WAIT}\n    n += 1\n    await checkpoint()\nreturn n + 10",
        12,
    ),
    "in an except clause": (
        f"try:\n    raise ValueError('no')\nexcept ValueError as error:\n    {WAIT}\n    return str(error)",
        (
            "try:\n    await checkpoint()\n    raise ValueError('other')\nexcept ValueError as error:\n"
            f"    {WAIT}\n    return 'new ' + str(error)"
        ),
        "new no",
    ),
    "under a try that is new": (
        f"{WAIT}\nreturn 1",
        f"try:\n    {WAIT}\nfinally:\n    done = 1\nreturn done + 1",
        2,
    ),
    "in a compensable scope": (
        (
            f"async with compensable() as c:\n    stock = await reserve(placed.key)\n    c.undo(release, stock)\n"
            f"    {WAIT}\nreturn 'old'"
        ),
        (
            "await weigh(placed.key)\nasync with compensable() as early:\n    pass\n"
            "async with compensable() as c:\n    stock = await reserve(placed.key)\n    c.undo(release, stock)\n"
            f"    {WAIT}\nfrom holdfast import compensate\nawait compensate(c)\nreturn log[-1]"
        ),
        "release R-k",
    ),
    "the first of several": (
        "outcome = await first_of(paid=receive(Paid, placed.key), late=delay(timedelta(days=3)))\nreturn outcome.name",
        (
            "await weigh(placed.key)\n"
            "outcome = await first_of(late=delay(timedelta(days=5)), paid=receive(Paid, placed.key))\n"
            "return [outcome.name]"
        ),
        ["paid"],
    ),
    "the second of two alike": (
        f"await checkpoint()\nfirst = {WAIT}\nawait weigh('x')\nsecond = {WAIT}\nreturn 'old'",
        f"await checkpoint()\nfirst = {WAIT}\nawait weigh('x')\nsecond = {WAIT}\nawait weigh('y')\nreturn 'new'",
        "new",
    ),
    "where two variables are one": (
        f"one = [1]\nfor item in one:\n    {WAIT}\n    one.append(2) if len(one) < 2 else None\nreturn one",
        (
            f"for extra in [1]:\n    await checkpoint()\none = [1]\nfor item in one:\n    {WAIT}\n"
            "    one.append(2) if len(one) < 2 else None\nreturn ['new', *one]"
        ),
        ["new", 1, 2],
    ),
    "an activity that a message follows": (
        f"stock = await count(placed.key)\n{WAIT}\nreturn stock.pieces",
        f"stock = await count(placed.key)\n{WAIT}\nstock.pieces += 1\nreturn stock.pieces",
        4,
    ),
}


@pytest.mark.parametrize("case", MOVED)
async def test_an_order_goes_on_in_the_new_program(deploy: Deploy, case: str) -> None:
    old, new, result = MOVED[case]
    shop = Shop(deploy(order(old)))
    await shop.begin(*(["Paid"] if "second" in case else []))
    before = shop.state
    newer = deploy(order(new))
    await shop.move(newer)
    assert shop.state.program_hash == newer.app.workflows["order"].program.hash != before.program_hash
    assert shop.state.bookmarks.keys() == before.bookmarks.keys()
    assert shop.state.execution_status == before.execution_status
    assert await shop.go_on("Paid", "Paid", "Paid") == result
    assert shop.look(newer) == [] or shop.state.outcome == "completed"


async def test_what_is_up_to_date_is_not_moved(deploy: Deploy) -> None:
    source = order(f"{WAIT}\nreturn 1")
    shop = Shop(deploy(source))
    await shop.begin()
    newer = deploy("\n\n# Moved in its file.\n" + source)
    assert shop.migration(newer).is_current(shop.state)
    assert shop.look(newer) == []


async def test_to_move_again_is_to_do_nothing(deploy: Deploy) -> None:
    shop = Shop(deploy(order(f"{WAIT}\nreturn 1")))
    await shop.begin()
    newer = deploy(order(f"await weigh('x')\n{WAIT}\nreturn 2"))
    await shop.move(newer)
    assert shop.migration(newer).is_current(shop.state)
    assert shop.look(newer) == []


PAY = """@routine
async def pay(key: str) -> object:
    {0}
    await receive(Paid, key)
    return {1!r}


"""


async def test_a_routine_that_is_under_way_is_moved_too(deploy: Deploy) -> None:
    body = "got = await pay(placed.key)\nreturn got"
    shop = Shop(deploy(order(body, PAY.format("a = 1", "old"))))
    await shop.begin()
    newer = deploy(order(f"await weigh('x')\n{body}", PAY.format("await weigh(key)", "new")))
    await shop.move(newer)
    assert {frame.program for frame in shop.state.frames.values()} == {
        newer.app.workflows["order"].program.hash,
        newer.app.routines["pay"].program.hash,
    }
    assert await shop.go_on("Paid") == "new"


async def test_a_routine_is_moved_under_a_workflow_that_stays(deploy: Deploy) -> None:
    body = "got = await pay(placed.key)\nreturn got"
    shop = Shop(deploy(order(body, PAY.format("a = 1", "old"))))
    await shop.begin()
    newer = deploy(order(body, PAY.format("b = 2", "new")))
    assert not shop.migration(newer).is_current(shop.state)
    await shop.move(newer)
    assert await shop.go_on("Paid") == "new"


async def test_timers_fire_where_they_were_set(deploy: Deploy) -> None:
    shop = Shop(deploy(order("await delay(timedelta(days=1))\nreturn 'old'")))
    await shop.begin()
    await shop.move(deploy(order("await weigh('x')\nawait delay(timedelta(days=9))\nreturn 'new'")))
    host = await shop.world.host()
    shop.clock.time += timedelta(days=2)
    await host.runtime.read_clock()
    await host.detect()
    assert shop.state.result == "new"


CHANGES: dict[str, Callable[[str], str]] = {
    "activity_gone": lambda source: source.replace('"release {', '"free {').replace(
        "@app.activity\nasync def release", '@app.activity(name="free")\nasync def release'
    ),
    "routine_gone": lambda source: source.replace("@routine\nasync def pay", '@routine(name="settle")\nasync def pay'),
    "type_gone": lambda source: source.replace("Stock", "Store"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_in_doubt_is_refused_with_the_reason(deploy: Deploy, case: str) -> None:
    old, new, why = REFUSED[case]
    reason = case.partition(",")[0]
    before = PAY.format("a = 1", "x") if reason == "routine_gone" else ""
    shop = Shop(deploy(order(old, before)))
    await shop.begin()
    found = shop.look(deploy(CHANGES.get(reason, str)(order(new, before))))
    assert found
    assert all(isinstance(each, Obstacle) for each in found), found
    obstacles = [each for each in found if isinstance(each, Obstacle)]
    assert reason in [each.reason for each in obstacles]
    said = "; ".join(each.detail for each in obstacles)
    assert pytest.raises(AssertionError, match=why).matches(AssertionError(said)), said


async def test_an_activity_that_may_have_run_keeps_its_key_or_is_not_moved(deploy: Deploy) -> None:
    body = f"{WAIT}\nstock = await reserve(placed.key)\nawait weigh(placed.key)\nreturn stock"
    shop = Shop(deploy(order(body).replace("return 7", "raise ValueError(key)")))
    await shop.begin("Paid")
    assert shop.state.is_suspended
    (obstacle,) = shop.look(deploy(order(f"await checkpoint()\n{body}")))
    assert isinstance(obstacle, Obstacle)
    assert (obstacle.reason, "weigh may have run" in obstacle.detail) == ("activity_pending", True)
    await shop.move(deploy(order(body.replace("return stock", "return ['new', stock]"))))
    assert shop.state.is_suspended
    host = await shop.world.host()
    await host.command(shop.world.instance_id, "resume")
    assert shop.state.result == ["new", "R-k"]


def refusals(found: list[Event] | list[Obstacle]) -> list[str]:
    assert all(isinstance(each, Obstacle) for each in found), found
    return [each.reason for each in found if isinstance(each, Obstacle)]


async def test_what_its_host_may_have_run_before_it_fell_does_not_run_under_other_keys(deploy: Deploy) -> None:
    body = f"{WAIT}\nawait reserve(placed.key)\nreturn 1"
    shop = Shop(deploy(order(body)))
    await shop.begin()
    for newer in (f"await weigh('x')\n{body}", body.replace("await reserve", "await weigh('x')\nawait reserve")):
        migration = shop.migration(deploy(order(newer)))
        found = migration.migrate(shop.state, by="ann", was_cut_short=True)
        assert refusals(found) == ["activity_pending"]
        assert "activity reserve, behind its place, may have run" in str(found[0])
        assert len(migration.migrate(shop.state, by="ann")) == 2


async def test_where_nothing_can_have_run_it_does_not_matter_that_the_host_fell(deploy: Deploy) -> None:
    shop = Shop(deploy(order(f"{WAIT}\nreturn 1")))
    await shop.begin()
    migration = shop.migration(deploy(order(f"await weigh('x')\n{WAIT}\nawait weigh('x')\nreturn 1")))
    assert len(migration.migrate(shop.state, by="ann", was_cut_short=True)) == 2


async def test_what_was_undone_when_it_was_suspended_runs_again_under_the_same_keys(deploy: Deploy) -> None:
    body = f"{WAIT}\nstock = await reserve(placed.key)\nfailing = int(stock)\nreturn failing"
    shop = Shop(deploy(order(body)))
    await shop.begin("Paid")
    assert shop.state.suspension_reason == "unhandled_exception"
    assert refusals(shop.look(deploy(order(f"await weigh('x')\n{body}")))) == ["activity_pending"]
    between = body.replace("stock = await", "key = placed.key\nawait checkpoint()\nstock = await")
    assert refusals(shop.look(deploy(order(between)))) == ["activity_pending"]
    await shop.move(deploy(order(body.replace("int(stock)", "len(stock)"))))
    host = await shop.world.host()
    await host.command(shop.world.instance_id, "resume")
    assert shop.state.result == 3


async def test_a_burst_that_was_kept_in_memory_may_have_run_all_that_follows(deploy: Deploy) -> None:
    body = f"{WAIT}\nstock = await reserve(placed.key)\nagain = await reserve(stock)\nreturn 1"
    in_memory = "@app.workflow(start=Placed, persistence='in_memory')"

    def version(text: str) -> str:
        return order(text).replace("@app.workflow(start=Placed)", in_memory)

    shop = Shop(deploy(version(body.replace("return 1", "return int(stock)"))))
    await shop.begin("Paid")
    assert shop.state.suspension_reason == "unhandled_exception"
    changed = body.replace("again = await", "key = 1\nagain = await")
    assert refusals(shop.look(deploy(version(changed)))) == ["activity_pending"]
    assert len(shop.look(deploy(version(body)))) == 2


RETRIED = """from holdfast import Retry


@app.activity(retry=Retry(attempts=3, delay=timedelta(days=1), max_delay=timedelta(days=1)))
async def reserve"""


async def test_an_activity_to_be_tried_again_is_moved_only_where_its_step_is_the_same(deploy: Deploy) -> None:
    body = f"{WAIT}\nawait reserve(placed.key)\nreturn 1"
    failing = order(body).replace("@app.activity\nasync def reserve", RETRIED)
    shop = Shop(deploy(failing.replace('log.append(f"reserve {key}")', "raise ValueError(key)")))
    await shop.begin("Paid")
    assert [call.status for call in shop.state.calls.values()] == ["delayed"]
    (obstacle,) = shop.look(deploy(order(f"await weigh('x')\n{body}")))
    assert isinstance(obstacle, Obstacle)
    assert (obstacle.reason, "is to be tried again" in obstacle.detail) == ("activity_pending", True)
    await shop.move(deploy(order(body.replace("return 1", "return 2"))))
    shop.clock.time += timedelta(days=2)
    assert await shop.go_on() == 2


async def test_what_the_deployed_code_can_still_run_is_told_from_what_it_cannot(deploy: Deploy) -> None:
    shop = Shop(deploy(order(f"{WAIT}\nreturn helper()", "def helper() -> int:\n    return 1\n")))
    await shop.begin()
    kept = deploy(order(f"await weigh('x')\n{WAIT}\nreturn 1", "def helper() -> int:\n    return 2\n"))
    assert shop.migration(kept).hindrances(shop.state) == []
    gone = deploy(order(f"await weigh('x')\n{WAIT}\nreturn 1"))
    (hindrance,) = shop.migration(gone).hindrances(shop.state)
    assert (hindrance.reason, "helper" in hindrance.detail) == ("names_gone", True)
    renamed = deploy(order(f"{WAIT}\nreturn 1").replace("async def order", "async def purchase"))
    (hindrance,) = shop.migration(renamed).hindrances(shop.state)
    assert hindrance.reason == "workflow_gone"
    found = shop.look(renamed)
    assert [each.reason for each in found if isinstance(each, Obstacle)] == ["workflow_gone"]
