"""Transactions that fail: what they leave behind, for the message that they received and for others beside them."""

import asyncio
from datetime import timedelta

import pytest

from holdfast import (
    App,
    CompensationFailed,
    Message,
    Transaction,
    compensable,
    compensate,
    gather,
    reply,
    routine,
    send,
    transacted_receive,
    transaction,
)
from holdfast.processor.testing.world import ROUNDS, World
from holdfast.testing import Simulation

app = App("failing")
gates: dict[str, asyncio.Event] = {}
begun: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    gates.clear()
    begun.clear()


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Sent(Begun): ...


class Timed(Begun): ...


class Fatal(Begun): ...


class TakenBack(Begun): ...


class Refused(Exception): ...


async def pass_gate(what: str) -> None:
    begun.append(what)
    if what in gates:
        await gates[what].wait()


@app.activity
async def work(what: str) -> str:
    await pass_gate(what)
    return what


@app.activity
async def fail(what: str) -> None:
    await pass_gate(what)
    raise Refused(what)


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


@app.workflow(start=Begun, persistence="in_memory")
async def answer(start: Begun) -> None:
    try:
        async with transacted_receive(Came, start.key):
            await fail("never")
    except Refused:
        await reply(Sent(key="sorry"))


@routine
async def run_out_of_time() -> str:
    await work("before")
    try:
        async with transaction(timeout=timedelta(seconds=10)):
            await work("inside")
    except TimeoutError:
        return "out of time"
    return ""


@app.workflow(start=Timed, persistence="in_memory")
async def time_out(start: Timed) -> list[str]:
    return [*await gather(work("beside"), run_out_of_time())]


@routine
async def cancel_in_vain() -> None:
    try:
        async with compensable() as scope:
            scope.cancel(fail, "cancel")
            raise Refused  # noqa: TRY301  An await would let the transaction beside it begin first.
    except Refused:
        await work("after")


@routine
async def book_half() -> None:
    await work("before")
    async with transaction():
        await book("half")
        await send(Sent(key="half"))
        await work("inside")


@app.workflow(start=Fatal, persistence="in_memory")
async def end_in_between(start: Fatal) -> None:
    await gather(cancel_in_vain(), book_half())


@app.workflow(start=TakenBack, on_unhandled="cancel")
async def take_back(start: TakenBack) -> None:
    async with compensable() as scope:
        scope.undo(book, "undo")
        await book("work")
    async with transaction():
        await compensate(scope)
        await fail("never")


async def reach(what: str) -> None:
    """Let everything happen that leads to an activity's begin."""
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    assert what in begun


async def test_the_sender_of_a_message_that_was_given_back_is_not_the_one_who_is_answered() -> None:
    async with Simulation(app) as world:
        await world.deliver(Begun(key="k"), reply_to="first")
        await world.deliver(Came(key="k"), reply_to="second")
        assert [message.routing_key for message in world.outbox] == ["first"]


async def test_the_time_of_a_transaction_is_not_that_of_what_runs_beside_it() -> None:
    world = World(app)
    gates.update(beside=asyncio.Event(), inside=asyncio.Event())
    host = await world.host()
    await host.deliver(Timed(key="k"), "m1")
    await reach("inside")
    await world.advance(11)
    gates["beside"].set()
    await world.rest()
    assert world.state.result == ["beside", "out of time"]


async def test_an_instance_that_ends_at_once_keeps_nothing_of_an_open_transaction() -> None:
    async with Simulation(app) as world:
        gates.update(cancel=asyncio.Event(), inside=asyncio.Event())
        await world.deliver(Fatal(key="k"), rest=False)
        await reach("inside")
        gates["cancel"].set()
        await world.rest()
        assert world.instance().outcome == "faulted"
        assert isinstance(world.instance().error, CompensationFailed)
        assert not world.sql
        assert not world.outbox
        assert "TransactionRolledBack" in [type(each.event).__name__ for each in await world.history(world.instance())]


async def test_what_a_rollback_would_take_back_is_not_undone_inside_a_transaction() -> None:
    async with Simulation(app) as world:
        await world.deliver(TakenBack(key="k"))
        assert [statement.parameters for statement in world.sql] == [("work",), ("undo",)]
        assert str(world.instance().error).startswith("compensate() inside a transaction (line ")
