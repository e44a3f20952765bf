"""An instance stays on the program that it started with, on hosts that have newer code."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

SOURCE = """
from holdfast import App, Message, receive

app = App("shop")

class Placed(Message, correlation="key", type="Placed"):
    key: str

class Paid(Message, correlation="key", type="Paid"):
    key: str

def label(key: str) -> str:
    return "{version} " + key

{helper}

@app.workflow(start=Placed)
async def order(placed: Placed) -> str:
    {first}
    await receive(Paid, placed.key)
    return "{version} program, " + {last}
"""

OLD = {"version": "old", "helper": "def suffix(): return '!'", "first": "x = 1", "last": "label(placed.key) + suffix()"}
NEW = {"version": "new", "helper": "def suffix(): return '?'", "first": "y = 2; z = 3", "last": "label(placed.key)"}
WITHOUT_SUFFIX = {**NEW, "helper": ""}


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import one version of the app's module, as a host does at its start."""

    def load(version: dict[str, str], number: int, source: str | None = None) -> ModuleType:
        file = tmp_path / f"shop_{number}.py"
        file.write_text((source or SOURCE).format(**version))
        spec = importlib.util.spec_from_file_location("shop_app", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "shop_app", module)
        spec.loader.exec_module(module)
        return module

    return load


def successor(world: World, module: ModuleType) -> World:
    """A world with the same store whose hosts have other code."""
    newer = World(module.app, program_key=world.settings.program_key)
    newer.store, newer.time, newer.random = world.store, world.time, world.random
    return newer


def message(module: ModuleType, kind: str) -> Message:
    made: Message = getattr(module, kind)(key="7")
    return made


async def test_a_host_with_newer_code_runs_the_old_program_if_it_is_signed(deploy: Any) -> None:
    old = deploy(OLD, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy(NEW, 2)
    newer = successor(world, new)
    await (await newer.host()).deliver(message(new, "Paid"), "m2")
    assert newer.state.result == "old program, new 7?"


@pytest.mark.parametrize("key", ["", "another secret"])
async def test_a_host_leaves_a_program_that_it_cannot_trust_to_others(deploy: Any, key: str) -> None:
    old = deploy(OLD, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy(NEW, 2)
    newer = successor(world, new)
    newer.settings = newer.settings.model_copy(update={"program_key": key})
    paid = await (await newer.host()).deliver(message(new, "Paid"), "m2")
    assert paid.acked
    assert world.verdict("m2") == ("buffered", None)
    assert world.row.owner is None
    await host.detect()
    assert world.state.result == "old program, old 7!"


async def test_a_program_whose_names_are_gone_suspends_its_instance(deploy: Any) -> None:
    old = deploy(OLD, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    await world.store.close_host(host.runtime.host_id)
    new = deploy(WITHOUT_SUFFIX, 2)
    newer = successor(world, new)
    newer_host = await newer.host()
    await newer_host.deliver(message(new, "Paid"), "m2")
    assert world.verdict("m2") == ("buffered", None)
    assert newer.row.is_suspended
    await newer_host.command(newer.instance_id, "resume")
    assert (await newer.types())[-3:] == ["InstanceResumed", "InstanceSuspended", "Persisted"]
    assert newer.row.owner is None
    assert newer.row.is_suspended
    assert newer.row.suspension_reason == "program_unresolvable"
    assert "suffix" in (newer.state.suspension_detail or "")


async def test_a_program_whose_names_are_gone_is_left_to_the_older_hosts_that_live(deploy: Any) -> None:
    old = deploy(OLD, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy(WITHOUT_SUFFIX, 2)
    newer = successor(world, new)
    paid = await (await newer.host()).deliver(message(new, "Paid"), "m2")
    assert paid.acked
    assert not world.row.is_suspended
    await host.detect()
    assert world.state.result == "old program, old 7!"


async def test_a_message_that_only_an_older_program_receives_is_known_to_newer_hosts_that_can_run_it(
    deploy: Any,
) -> None:
    waits = SOURCE.replace("receive(Paid, placed.key)", "receive({type}, placed.key)")
    recalled = 'class Recalled(Paid, correlation="key", type="Recalled"):\n    pass'
    waits = waits.replace("def label", f"{recalled}\n\ndef label")
    old = deploy({**OLD, "type": "Recalled"}, 1, waits)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    await world.store.close_host(host.runtime.host_id)
    new = deploy({**NEW, "type": "Paid"}, 2, waits)
    newer = successor(world, new)
    assert "Recalled" not in new.app.messages
    await (await newer.host()).deliver(message(new, "Recalled"), "m2")
    assert newer.verdict("m2") == ("applied", None)
    assert newer.state.result == "old program, new 7?"


ROUTINE = """
from holdfast import App, Message, receive, routine

app = App("shop")

class Placed(Message, correlation="key", type="Placed"):
    key: str

class Paid(Message, correlation="key", type="Paid"):
    key: str

{routines}

@app.workflow(start=Placed)
async def order(placed: Placed) -> str:
    return await pay(placed.key) + " " + await pay(placed.key)
"""

PAY = """
@routine
async def pay(key: str) -> str:
    await receive(Paid, key)
    return "{version}"
"""


@pytest.fixture
def deploy_routine(deploy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a version of the app whose workflow calls a routine."""
    monkeypatch.setattr(f"{__name__}.SOURCE", ROUTINE)
    return deploy


async def test_a_running_routine_keeps_its_program_and_the_workflow_is_the_same(deploy_routine: Any) -> None:
    old = deploy_routine({"routines": PAY.format(version="old")}, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy_routine({"routines": PAY.format(version="new")}, 2)
    assert new.app.workflows["order"].program.hash == old.app.workflows["order"].program.hash
    assert new.pay.program.hash != old.pay.program.hash
    newer = successor(world, new)
    other = await newer.host()
    await other.deliver(message(new, "Paid"), "m2")
    assert newer.state.frames["0.2"].program == new.pay.program.hash
    await other.deliver(message(new, "Paid"), "m3")
    assert newer.state.result == "old new"


@pytest.mark.parametrize(
    ("key", "routines"),
    [("", PAY.format(version="new")), ("secret", "async def pay(key):\n    return await receive(Paid, key)")],
)
async def test_a_host_leaves_a_routine_that_it_cannot_run_to_others(
    deploy_routine: Any, key: str, routines: str
) -> None:
    old = deploy_routine({"routines": PAY.format(version="old")}, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy_routine({"routines": routines}, 2)
    newer = successor(world, new)
    newer.settings = newer.settings.model_copy(update={"program_key": key})
    await (await newer.host()).deliver(message(new, "Paid"), "m2")
    assert world.verdict("m2") == ("buffered", None)
    assert world.row.owner is None
    await host.detect()
    assert set(world.state.frames) == {"0", "0.2"}


async def test_an_old_program_may_call_a_routine_that_only_it_still_names(deploy_routine: Any) -> None:
    two = PAY.format(version="first") + PAY.replace("pay", "refund").format(version="second")
    old = deploy_routine({"routines": two.replace('return "first"', "return await refund(key)")}, 1)
    world = World(old.app, program_key="secret")
    host = await world.host()
    await host.deliver(message(old, "Placed"), "m1")
    await host.engine.unload_idle(0)
    new = deploy_routine({"routines": two}, 2)
    assert "pay" in new.app.routines
    newer = successor(world, new)
    other = await newer.host()
    for number in range(2, 5):
        await other.deliver(message(new, "Paid"), f"m{number}")
    assert newer.state.result == "second first"
    assert new.refund.program.hash in world.store.tables.programs
