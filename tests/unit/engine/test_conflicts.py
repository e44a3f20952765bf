"""User SQL that meets other transactions: the burst goes back to its last persistence point and is run again."""

import asyncio
from typing import Any

import pytest

from holdfast import App, Message, Transaction, TransactionConflict, gather, receive
from holdfast.processor.engine.failures import CONFLICTS
from holdfast.processor.testing.rows import Rows
from holdfast.processor.testing.world import World

app = App("conflicts")


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Gave(Begun): ...


class Charged(Begun): ...


class ChargedBeside(Begun): ...


class DeadlockError(Exception):
    """What the database said."""


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


@app.workflow(start=Begun, persistence="in_memory")
async def booking(begun: Begun) -> str:
    try:
        await book("first")
        await book("second")
        await receive(Came, begun.key)
        await book("third")
    except DeadlockError:
        return "caught"
    return "booked"


@app.workflow(start=Gave, persistence="in_memory", on_unhandled="abandon")
async def gives_up(gave: Gave) -> None:
    await book("second")


bank: dict[str, asyncio.Event] = {}
charges: list[str] = []


@app.activity(repeatable=False)
async def charge(what: str) -> str:
    charges.append(what)
    if what in bank:
        await bank[what].wait()
    return what


@app.workflow(start=Charged, persistence="in_memory")
async def charge_and_book(charged: Charged) -> str:
    what = await charge(charged.key)
    await book("first")
    return what


@app.workflow(start=ChargedBeside, persistence="in_memory")
async def charge_while_booking(charged: ChargedBeside) -> str:
    what, _ = await gather(charge(charged.key), book("first"))
    return what


class Rivals:
    """The database: so many times a statement is given up in favour of another transaction."""

    def __init__(self, world: World) -> None:
        self.conflicts: dict[str, int] = {}
        world.answer = self.answer

    def answer(self, _query: Any, params: Any) -> Rows:
        (what,) = params
        if self.conflicts.get(what, 0) > 0:
            self.conflicts[what] -= 1
            raise TransactionConflict("a deadlock") from DeadlockError(what)
        return Rows()


@pytest.fixture
def world() -> World:
    return World(app, max_attempts=3)


@pytest.fixture
def rivals(world: World) -> Rivals:
    return Rivals(world)


async def test_a_burst_that_met_a_conflict_is_run_again_and_the_workflow_sees_nothing_of_it(
    world: World, rivals: Rivals
) -> None:
    host = await world.host()
    rivals.conflicts["second"] = 2
    await host.deliver(Begun(key="k"), "m1")
    assert world.verdict("m1") is None
    await world.advance(1)
    assert world.verdict("m1") == ("applied", None)
    assert await world.commits() == ["idle"]
    assert world.store.statements == [("book", ("first",)), ("book", ("second",))]
    rivals.conflicts["third"] = 2
    await host.deliver(Came(key="k"), "m2")
    assert world.verdict("m2") is None
    await world.advance(1)
    assert world.verdict("m2") == ("applied", None)
    assert await world.commits() == ["idle", "completed"]
    assert world.state.result == "booked"
    assert [params for _, params in world.store.statements] == [("first",), ("second",), ("third",)]


async def test_conflicts_are_waited_out_longer_each_time(world: World, rivals: Rivals) -> None:
    host = await world.host()
    rivals.conflicts["first"] = 2
    await host.deliver(Begun(key="k"), "m1")
    tried = []
    for _ in range(4):
        tried.append(len(world.sql))
        await world.advance(0.1)
    assert tried == [1, 2, 2, 4]


async def test_what_conflicts_again_and_again_is_an_exception_that_nobody_handled(world: World, rivals: Rivals) -> None:
    host = await world.host()
    await host.deliver(Begun(key="k"), "m1")
    rivals.conflicts["third"] = CONFLICTS
    await host.deliver(Came(key="k"), "m2")
    await world.advance(100)
    assert (world.state.suspension_reason, world.state.suspension_detail) == (
        "unhandled_exception",
        "tests.unit.engine.test_conflicts.DeadlockError: third",
    )
    rivals.conflicts["third"] = CONFLICTS - 1
    await host.command(world.instance_id, "resume")
    await world.advance(100)
    assert world.state.result == "booked"


async def test_under_abandon_what_conflicts_again_and_again_costs_the_message_attempts(
    world: World, rivals: Rivals
) -> None:
    host = await world.host()
    rivals.conflicts["second"] = 3 * CONFLICTS
    await host.deliver(Gave(key="k"), "m1")
    await world.advance(300)
    assert world.verdict("m1") == ("dead_lettered", "unhandled_exception")
    assert rivals.conflicts["second"] == 0


@pytest.mark.parametrize("message", [Charged(key="alone"), ChargedBeside(key="beside")])
async def test_a_conflict_leaves_nothing_in_doubt_that_must_not_run_twice(
    world: World, rivals: Rivals, message: Begun
) -> None:
    charges.clear()
    bank["beside"] = asyncio.Event()
    host = await world.host()
    rivals.conflicts["first"] = 1
    await host.deliver(message, "m1")
    bank["beside"].set()
    await world.advance(1)
    assert world.state.result == message.correlation_key
    assert charges == [message.correlation_key]
    assert [params for _, params in world.store.statements] == [("first",)]
