"""Compensation on Postgres: scopes that completed are kept with the instance, whatever host or code goes on."""

import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest

from holdfast.processor.client import Client
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.services.detection import Detection
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres

SOURCE = """
import asyncio

from holdfast import App, Message, Transaction, compensable, compensate, receive

app = App("journeys")
reached = asyncio.Event()
gates = {{}}

class Begun(Message, correlation="key", type="Begun"):
    key: str

class Answered(Message, correlation="key", type="Answered"):
    key: str
    answer: str

@app.activity
async def book(tx: Transaction, part: str) -> str:
    await tx.execute("insert into notes (note) values (%s)", ("book " + part,))
    return part

@app.activity
async def give_back(tx: Transaction, parts: list[str]) -> None:
    if parts[0] in gates:
        reached.set()
        await gates[parts[0]].wait()
    await tx.execute("insert into notes (note) values (%s)", ("{give_back} " + " and ".join(parts),))

@app.activity
async def pay(tx: Transaction, part: str) -> None:
    await tx.execute("insert into notes (note) values (%s)", ("pay " + part,))

@app.workflow(start=Begun, on_unhandled="cancel")
async def journey(begun: Begun) -> str:
    {more}
    async with compensable() as flight:
        parts = [await book("flight")]
        flight.undo(give_back, parts)
        flight.confirm(pay, "flight")
        async with compensable() as meal:
            meal.undo(give_back, [await book("meal")])
            meal.confirm(pay, "meal")
    async with compensable() as hotel:
        hotel.undo(give_back, [await book("hotel")])
        hotel.confirm(pay, "hotel")
    parts.append("seat")
    answered = await receive(Answered, begun.key)
    parts.append("bag")
    if answered.answer == "fail":
        raise ValueError("fail")
    if answered.answer == "compensate":
        await compensate(flight)
    return answered.answer
"""

UNDONE = ["give back hotel", "give back meal", "give back flight and seat and bag"]


def load(folder: Path, name: str, more: str = "pass", give_back: str = "give back") -> ModuleType:
    """Import one version of the app, as a host does at its start."""
    file = folder / f"{name}.py"
    file.write_text(SOURCE.format(more=more, give_back=give_back))
    spec = importlib.util.spec_from_file_location("journeys", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["journeys"] = module
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def hosting(module: ModuleType, url: str) -> AsyncIterator[Host]:
    async with running_host(module.app, url, Settings(program_key="secret")) as host:
        yield host
    await BehindPostgres(url).lapse(host.runtime.host_id)


@pytest.fixture
async def old(database_url: str, tmp_path: Path) -> AsyncIterator[ModuleType]:
    await BehindPostgres(database_url).make_notes()
    yield load(tmp_path, "old")
    del sys.modules["journeys"]


async def begin(module: ModuleType, url: str) -> UUID:
    """Have a host take an instance to where it waits, behind its scopes, and fall."""
    async with hosting(module, url) as host:
        return await host.deliver(module.Begun(key="k"))


async def done_since(host: Host, url: str, instance_id: UUID) -> tuple[str, list[str]]:
    """Return how the instance ended and what was noted behind its bookings; the log has to agree with the store."""
    async with Client(url) as client:
        assert [checked.differences async for checked in client.verify()] == [()]
    ((outcome,),) = await host.ask("select outcome from holdfast.instances where instance_id = %s", instance_id)
    notes = await BehindPostgres(url).notes()
    assert notes[:3] == ["book flight", "book meal", "book hotel"]
    return outcome, notes[3:]


@pytest.mark.parametrize(
    ("answer", "outcome", "done"),
    [
        ("fail", "cancelled", UNDONE),
        ("return", "completed", ["pay flight", "pay meal", "pay hotel"]),
        ("compensate", "completed", [*UNDONE[1:], "pay hotel"]),
    ],
)
async def test_what_completed_before_its_host_fell_is_undone_or_confirmed_by_another(
    database_url: str, old: ModuleType, answer: str, outcome: str, done: list[str]
) -> None:
    instance_id = await begin(old, database_url)
    async with hosting(old, database_url) as host:
        await host.tell(old.Answered(key="k", answer=answer))
        assert await done_since(host, database_url, instance_id) == (outcome, done)


async def test_a_cancelled_instance_is_undone_by_the_host_that_takes_it_up(database_url: str, old: ModuleType) -> None:
    instance_id = await begin(old, database_url)
    async with hosting(old, database_url) as host, Client(database_url, app=old.app.name) as client:
        await client.cancel(instance_id, by="ann")
        await Detection(host.engine).look()
        await host.rest()
        undone = [*UNDONE[:2], "give back flight and seat"]
        assert await done_since(host, database_url, instance_id) == ("cancelled", undone)


async def test_after_a_deployment_the_actions_of_the_old_program_run_as_they_are_deployed_now(
    database_url: str, tmp_path: Path, old: ModuleType
) -> None:
    instance_id = await begin(old, database_url)
    new = load(tmp_path, "new", more="number = 1; print(number)", give_back="return")
    assert new.app.workflows["journey"].program.hash != old.app.workflows["journey"].program.hash
    async with hosting(new, database_url) as host:
        await host.tell(new.Answered(key="k", answer="fail"))
        undone = [note.replace("give back", "return") for note in UNDONE]
        assert await done_since(host, database_url, instance_id) == ("cancelled", undone)


async def test_a_host_that_falls_while_it_undoes_is_followed_by_one_that_undoes_the_rest(
    database_url: str, old: ModuleType
) -> None:
    instance_id = await begin(old, database_url)
    old.gates["meal"] = old.asyncio.Event()
    async with hosting(old, database_url) as falling:
        answered = old.Answered(key="k", answer="fail").envelope("answered")
        falling.engine.deliver(Arrival(envelope=answered, received_at=falling.runtime.now()))
        await old.reached.wait()
        assert (await BehindPostgres(database_url).notes())[3:] == UNDONE[:1]
    old.gates.clear()
    async with hosting(old, database_url) as host:
        await Detection(host.engine).look()
        await host.rest()
        assert await done_since(host, database_url, instance_id) == ("cancelled", UNDONE)
