"""Transaction scopes, ``no_persist`` and pending work, on simulated hosts."""

import asyncio
from datetime import timedelta

import pytest

from holdfast import (
    App,
    Message,
    ScopeError,
    Transaction,
    checkpoint,
    defer,
    gather,
    no_persist,
    receive,
    routine,
    send,
    suspend,
    transacted_receive,
    transaction,
)
from holdfast.processor.testing.world import World

app = App("scopes")
said: list[str] = []


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Sent(Begun): ...


class Refused(Exception): ...


@app.activity
async def say(what: str) -> None:
    said.append(what)


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


@app.activity
async def fail(what: str) -> None:
    raise Refused(what)


@routine
async def wait_for(key: str) -> None:
    await receive(Came, key)


class Undone(Begun): ...


@app.workflow(start=Undone, persistence="in_memory")
async def undo(begun: Undone) -> list[str]:
    seen = ["before"]
    await book("before")
    await send(Sent(key="before"))
    try:
        async with transaction():
            seen.append("inside")
            await book("inside")
            await send(Sent(key="inside"))
            await defer(book("inside, later"))
            await fail("inside")
    except Refused as error:
        seen.append(str(error))
    await book("after")
    return seen


class Nested(Begun): ...


@app.workflow(start=Nested)
async def nest(begun: Nested) -> None:
    async with transaction():
        await book("outer 1")
        try:
            async with transaction():
                await book("inner")
                await fail("inner")
        except Refused:
            await book("caught")
        async with transaction():
            await book("second")
        await book("outer 2")


class Strayed(Begun): ...


@app.workflow(start=Strayed)
async def stray(begun: Strayed) -> str:
    try:
        async with transaction():
            await wait_for(begun.key)
    except ScopeError as error:
        return str(error)
    return ""


class Shared(Begun): ...


@routine
async def book_in_two(name: str) -> None:
    async with transaction():
        await book(f"{name} 1")
        await say(name)
        await book(f"{name} 2")


@routine
async def check_in_between() -> None:
    await say("between")
    await checkpoint()


@app.workflow(start=Shared, persistence="in_memory")
async def share(begun: Shared) -> None:
    await gather(book_in_two("a"), check_in_between(), book_in_two("b"))


class Crossed(Begun): ...


gates: dict[str, asyncio.Event] = {}


@app.activity
async def pass_gate(what: str) -> None:
    await gates["now"].wait()
    said.append(what)


@app.activity
async def fail_at_gate(what: str) -> None:
    await gates["now"].wait()
    raise Refused(what)


@routine
async def book_at_gate() -> None:
    await say("first")
    async with transaction():
        await book("inside")
        await pass_gate("inside")
    await say("never")


@app.workflow(start=Crossed, persistence="in_memory")
async def cross(begun: Crossed) -> str:
    try:
        await gather(book_at_gate(), fail_at_gate("other"))
    except Refused:
        async with transaction():
            await book("after")
        return "caught"
    return ""


class Slow(Begun): ...


@app.activity
async def dawdle(tx: Transaction) -> None:
    await tx.execute("dawdle", ())
    await world_of["now"].sleep(20)


world_of: dict[str, World] = {}


@app.workflow(start=Slow)
async def go_slowly(begun: Slow) -> str:
    try:
        async with transaction(timeout=timedelta(seconds=10)):
            try:
                await dawdle()
            except TimeoutError:
                await book("caught inside")
    except TimeoutError as error:
        await book("after")
        return str(error)
    return ""


class Taken(Begun): ...


@app.workflow(start=Taken, on_unhandled="abandon_and_suspend")
async def take(begun: Taken) -> int:
    tries = 0
    while True:
        tries += 1
        try:
            async with transacted_receive(Came, begun.key) as came:
                await book(came.key)
                if tries < 2:
                    await fail("not yet")
            return tries
        except Refused:
            continue


class TakenInVain(Begun): ...


@app.workflow(start=TakenInVain)
async def take_in_vain(begun: TakenInVain) -> str:
    for _ in range(5):
        try:
            async with transacted_receive(Came, begun.key, timeout=timedelta(minutes=1)):
                await fail("never")
        except Refused:
            continue
        except TimeoutError:
            return "timeout"
    return "tired"


class Kept(Begun): ...


@app.workflow(start=Kept)
async def keep(begun: Kept) -> None:
    await say("1")
    async with no_persist():
        await say("2")
        await say("3")
    await say("4")


class Halted(Begun): ...


@app.workflow(start=Halted)
async def halt(begun: Halted) -> str:
    await say("1")
    await suspend("have a look")
    await say("2")
    return "on"


@pytest.fixture
def world() -> World:
    said.clear()
    world_of["now"] = World(app, max_attempts=3)
    return world_of["now"]


def booked(world: World) -> list[str]:
    return [params[0] for query, params in world.store.statements if query == "book"]


async def test_a_failed_transaction_takes_its_writes_messages_and_pending_work_along(world: World) -> None:
    host = await world.host()
    await host.deliver(Undone(key="k"), "m")
    assert booked(world) == ["before", "after"]
    assert [message.key for message in world.published] == ["before"]
    assert world.state.result == ["before", "inside", "inside"]
    assert "TransactionRolledBack" in await world.types()
    assert [t for t in await world.types() if t == "MessageSent"] == ["MessageSent"]


async def test_an_inner_transaction_fails_alone_and_the_outer_one_commits_all_at_once(world: World) -> None:
    host = await world.host()
    await host.deliver(Nested(key="k"), "m")
    assert booked(world) == ["outer 1", "caught", "second", "outer 2"]
    assert await world.commits() == ["transaction_completed", "completed"]


async def test_a_wait_that_is_reached_inside_a_transaction_is_refused_by_name_and_line(world: World) -> None:
    host = await world.host()
    await host.deliver(Strayed(key="k"), "m")
    assert "receive() inside a transaction (line" in world.state.result


async def test_other_branches_of_a_gather_wait_for_the_end_of_a_transaction(world: World) -> None:
    host = await world.host()
    await host.deliver(Shared(key="k"), "m")
    assert booked(world) == ["a 1", "a 2", "b 1", "b 2"]
    assert sorted(await world.commits()) == ["checkpoint", "completed", *["transaction_completed"] * 2]


async def test_a_transaction_that_ends_as_its_branch_is_cancelled_has_ended(world: World) -> None:
    gates["now"] = asyncio.Event()
    host = await world.host()
    host.put(Crossed(key="k").envelope("m"))
    await world.rest()
    assert said == ["first"]
    gates["now"].set()
    await world.rest()
    assert world.state.result == "caught"
    assert said == ["first", "inside"]
    assert booked(world) == ["inside", "after"]
    assert await world.commits() == ["transaction_completed", "transaction_completed", "completed"]


async def test_a_transaction_that_ran_out_of_time_cannot_complete(world: World) -> None:
    host = await world.host()
    host.put(Slow(key="k").envelope("m"))
    await world.advance(11)
    assert booked(world) == ["after"]
    assert world.state.result == "the transaction was open for more than 10 seconds"


async def test_a_message_whose_transaction_failed_is_received_again(world: World) -> None:
    host = await world.host()
    await host.deliver(Taken(key="k"), "m")
    delivered = await host.deliver(Came(key="k"), "came")
    assert world.state.result == 2
    assert booked(world) == ["k"]
    assert delivered.acked
    assert world.verdict("came") == ("applied", None)
    assert await world.commits() == ["idle", "idle", "transacted_receive_completed", "completed"]


async def test_a_message_whose_transactions_fail_again_and_again_becomes_a_dead_letter(world: World) -> None:
    host = await world.host()
    await host.deliver(TakenInVain(key="k"), "m")
    delivered = await host.deliver(Came(key="k"), "came")
    assert world.verdict("came") == ("dead_lettered", "attempts_exhausted")
    assert delivered.acked
    await world.advance(61)
    await host.detect()
    assert world.state.result == "timeout"


async def test_nothing_is_persisted_inside_no_persist(world: World) -> None:
    host = await world.host()
    await host.deliver(Kept(key="k"), "m")
    recorded = [type(e.event).__name__ for e in await world.events()]
    assert recorded == [
        "InstanceStarted",
        *["ActivityCompleted"] * 3,
        "Persisted",
        "ActivityCompleted",
        "InstanceCompleted",
        "Persisted",
    ]


async def test_a_suspended_instance_goes_on_after_its_suspend_without_running_anything_again(world: World) -> None:
    host = await world.host()
    await host.deliver(Halted(key="k"), "m")
    assert world.state.is_suspended
    assert (world.state.suspension_reason, world.state.suspension_detail) == ("requested", "have a look")
    await host.command(world.instance_id, "resume")
    assert world.state.result == "on"
    assert said == ["1", "2"]
    assert await world.commits() == ["suspended", "completed"]
