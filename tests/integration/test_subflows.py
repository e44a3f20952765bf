"""Subflows on Postgres: what a host that dies leaves, and what only real transactions can show."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast import App, Client, KeyInUse, Message, Transaction, continue_as_new, gather, receive, run, start
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.provider import Intake, PersistenceProvider
from holdfast.processor.services.detection import Detection
from holdfast.processor.testing.door import Death, Door, Watch
from holdfast.projections.verify import verify
from holdfast.schemas.control import Command
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("subflows")


class Step(Message, correlation="key"):
    key: str


class Called(Step): ...


class Note(Step): ...


class Started(Step): ...


class Ran(Step): ...


class Counted(Step):
    number: int = 1


class Awaited(Step): ...


class Booked(Step): ...


@app.activity
async def think(what: str) -> str:
    return what


@app.activity
async def book(tx: Transaction, note: str) -> None:
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (note,))


@app.workflow(start=Called, persistence="in_memory")
async def child(called: Called) -> str:
    await book(f"{called.key} begins")
    note = await receive(Note, called.key)
    await book(f"{called.key} ends")
    return note.key


@app.workflow(start=Started, persistence="in_memory")
async def parent(started: Started) -> list[str]:
    await think("before")
    return [*await gather(start(child, Called(key=f"{started.key} 1")), start(child, Called(key=f"{started.key} 2")))]


@app.workflow(start=Ran, persistence="in_memory")
async def runner(ran: Ran) -> list[str]:
    return [*await gather(run(child, Called(key=f"{ran.key} 1")), run(child, Called(key=f"{ran.key} 2")))]


@app.workflow(start=Counted, persistence="in_memory")
async def counter(counted: Counted) -> int:
    await receive(Note, counted.key)
    if counted.number < 3:
        await continue_as_new(Counted(key=counted.key, number=counted.number + 1))
    return counted.number


@app.workflow(start=Awaited, persistence="in_memory")
async def awaiter(awaited: Awaited) -> int:
    return await start(counter, Counted(key=f"{awaited.key} n"))


@app.workflow(start=Booked, persistence="in_memory")
async def booker(booked: Booked) -> str:
    try:
        await book(booked.key)
        await start(child, Called(key="taken"))
    except KeyInUse:
        return "caught"
    return "started"


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        await host.ask("create table bookings (note text, xid xid8 not null)")
        yield host


async def outcome(host: Host, instance_id: UUID) -> tuple[str | None, Any]:
    """Return how an instance ended and what it returned."""
    ((ended, result),) = await host.ask(
        "select outcome, state -> 'result' from holdfast.instances where instance_id = %s", instance_id
    )
    return ended, result


async def note(host: Host, key: str) -> None:
    """Deliver a note, under an id of its own."""
    envelope = Note(key=key).envelope(str(uuid4()))
    host.engine.deliver(Arrival(envelope=envelope, received_at=host.runtime.now()))
    await host.rest()


async def look(host: Host) -> None:
    """Have the host look for what it can run, and run it."""
    await Detection(host.engine).look()
    await host.rest()


async def check_store(database_url: str) -> None:
    """Check that the instance store is what the log says."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        checked = [it async for it in verify(connection)]
    assert checked
    assert [it.differences for it in checked if it.differences] == []


async def test_started_subflows_answer_their_parent_in_their_own_time(host: Host, database_url: str) -> None:
    instance_id = await host.deliver(Started(key="p"))
    assert await outcome(host, instance_id) == (None, None)
    await note(host, "p 2")
    await note(host, "p 1")
    assert await outcome(host, instance_id) == ("completed", ["p 1", "p 2"])
    requested = "subflow", ["InstanceStarted", "ActivityCompleted", *["SubflowStarted", "BookmarkOpened"] * 2]
    assert (await host.transactions(instance_id))[0] == requested
    await check_store(database_url)


async def test_subflows_that_are_run_share_their_callers_transactions_and_user_sql(
    host: Host, database_url: str
) -> None:
    instance_id = await host.deliver(Ran(key="p"))
    await note(host, "p 2")
    await note(host, "p 1")
    assert await outcome(host, instance_id) == ("completed", ["p 1", "p 2"])
    xids = await host.xids(instance_id)
    children = await host.ask(
        "select instance_id, correlation_key from holdfast.instances where parent_id = %s", instance_id
    )
    own = {key: await host.xids(child_id) for child_id, key in children}
    assert own == {"p 1": [xids[0], xids[2]], "p 2": [xids[0], xids[1]]}
    written = {what: int(xid) for what, xid in await host.ask("select note, xid::text from bookings")}
    assert written == {
        "p 1 begins": xids[0],
        "p 2 begins": xids[0],
        "p 2 ends": xids[1],
        "p 1 ends": xids[2],
    }
    await check_store(database_url)


async def test_a_subflow_that_goes_on_as_others_is_answered_for_by_the_last(host: Host, database_url: str) -> None:
    instance_id = await host.deliver(Awaited(key="p"))
    for _ in range(3):
        assert await outcome(host, instance_id) == (None, None)
        await note(host, "p n")
    await look(host)
    assert await outcome(host, instance_id) == ("completed", 3)
    async with Client(database_url) as client:
        family = await client.tree(instance_id)
    assert [(it.workflow, it.subflow, it.depth) for it in family] == [
        ("awaiter", None, 0),
        ("counter", "start", 1),
        ("counter", "continued", 2),
        ("counter", "continued", 3),
    ]
    await check_store(database_url)


# Protocol: I14.
async def test_a_parent_that_is_cancelled_reaches_what_its_subflow_went_on_as(host: Host, database_url: str) -> None:
    instance_id = await host.deliver(Awaited(key="p"))
    await note(host, "p n")
    command = Command(command="cancel", by="tester").envelope("cancel")
    await host.runtime.provider.take_in(
        [Intake(envelope=command, verdict="buffered", kind="control", instance_id=instance_id)]
    )
    # The command reaches the one, and then what it left for the other.
    await look(host)
    await look(host)
    found = await host.ask("select workflow, outcome from holdfast.instances order by creation_time, instance_id")
    assert found == [("awaiter", "cancelled"), ("counter", "completed"), ("counter", "cancelled")]
    await check_store(database_url)


# Protocol: C3.
async def test_a_key_in_use_takes_the_user_sql_of_the_burst_along(host: Host) -> None:
    await host.deliver(Called(key="taken"))
    instance_id = await host.deliver(Booked(key="k"))
    assert await host.transactions(instance_id) == []
    assert await host.ask("select note from bookings order by note") == [("taken begins",)]
    find = "select is_suspended, suspension_exception_name from holdfast.instances where instance_id = %s"
    assert await host.ask(find, instance_id) == [(True, "holdfast.schemas.errors.KeyInUse")]
    await note(host, "taken")
    await host.resume(instance_id)
    noted = [what for (what,) in await host.ask("select note from bookings order by note")]
    assert noted == ["k", "taken begins", "taken begins", "taken ends"]


# Protocol: D14, D15, I13.
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
async def test_a_subflow_is_started_once_and_answers_once_wherever_a_host_dies(
    database_url: str,
    after: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
) -> None:
    number, is_dead = 1, True
    while is_dead:
        is_dead = await _die_at(database_url, number, after=after)
        number += 1
    # The scenario takes more than a few calls, or it would show nothing.
    assert number > 6
    await check_store(database_url)


class Lived(Step): ...


class CalledOnce(Step): ...


@app.workflow(start=CalledOnce, persistence="in_memory")
async def once(called: CalledOnce) -> str:
    return await think(called.key)


@app.workflow(start=Lived, persistence="in_memory")
async def survivor(lived: Lived) -> str:
    await think("before")
    result = await start(once, CalledOnce(key=f"{lived.key} c"))
    return await think(result)


async def _die_at(database_url: str, number: int, *, after: bool) -> bool:
    """Have a host die at a call to the store and another one finish its work; False if it did not come so far."""
    key = f"{number} {after}"
    envelope = Lived(key=key).envelope(key)
    doors: list[Door] = []

    def mortal(provider: PersistenceProvider) -> PersistenceProvider:
        doors.append(Door(provider, Watch(death=Death(number, after=after, late=False))))
        return cast("PersistenceProvider", doors[0])

    settled = asyncio.Event()
    async with running_host(app, database_url, Settings(), mortal) as first:
        first.engine.deliver(Arrival(envelope=envelope, received_at=first.runtime.now(), settle=settled.set))
        await first.rest()
        is_dead = doors[0].is_dead
        dead = first.runtime.host_id
    async with running_host(app, database_url, Settings()) as second:
        lapse = "update holdfast.hosts set lease_expiration = clock_timestamp() where host_id = %s returning 1"
        await second.ask(lapse, dead)
        if not settled.is_set():
            second.engine.deliver(
                Arrival(envelope=envelope, received_at=second.runtime.now(), redelivered=True, settle=settled.set)
            )

        async def has_ended() -> bool:
            await Detection(second.engine).look()
            find = "select outcome from holdfast.instances where workflow = 'survivor' and correlation_key = %s"
            return await second.ask(find, key) == [("completed",)]

        await second.until(has_ended)
        ((instance_id,),) = await second.ask(
            "select instance_id from holdfast.instances where workflow = 'survivor' and correlation_key = %s", key
        )
        assert await outcome(second, instance_id) == ("completed", f"{key} c")
        ended = "select count(*) from holdfast.events where instance_id = %s and type = 'SubflowEnded'"
        assert await second.ask(ended, instance_id) == [(1,)]
        children = await second.ask("select instance_id from holdfast.instances where parent_id = %s", instance_id)
        assert len(children) == 1
        (child_id,) = children[0]
        begun = "select count(*) from holdfast.events where instance_id = %s and type = 'InstanceStarted'"
        assert await second.ask(begun, child_id) == [(1,)]
        verdicts = "select message_id, verdict from holdfast.inbox where message_id like %s order by message_id"
        assert await second.ask(verdicts, f"{child_id}:%") == [
            (f"{child_id}:result", "applied"),
            (f"{child_id}:start", "applied"),
        ]
    return is_dead
