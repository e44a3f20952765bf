"""Which transactions a workflow takes on Postgres, read from the log itself: one persistence point is one xid."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from holdfast import App, Message, Transaction, checkpoint, receive, send
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("boundaries")
failing: set[str] = set()


class Step(Message, correlation="key"):
    key: str


class Walked(Step): ...


class Hurried(Step): ...


class Strode(Step): ...


class Paused(Step): ...


class Booked(Step): ...


class HurriedToBook(Step): ...


class Doubled(Step): ...


class Collided(Step): ...


class Gave(Step): ...


class Went(Step): ...


class Told(Step): ...


@app.activity
async def think(key: str) -> str:
    if key in failing:
        raise ConnectionError(key)
    return key


@app.activity
def count(key: str) -> int:
    return len(key)


# The column `xid` keeps the transaction in which the row was written, whatever savepoints it was under.
@app.activity
async def book(tx: Transaction, note: str) -> None:
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (note,))


@app.activity
async def book_twice(tx: Transaction, note: str) -> None:
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (f"{note}, before",))
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (note,))


@app.activity
async def claim(tx: Transaction, note: str) -> None:
    await tx.execute("insert into claims values (%s)", (note,))


@app.workflow(start=Walked)
async def walk(start: Walked) -> int:
    first = await think(start.key)
    length = await count(first)
    await think(first)
    await receive(Went, start.key)
    await think(first)
    await send(Told(key=start.key))
    return length + await count(first)


@app.workflow(start=Hurried, persistence="in_memory")
async def hurry(start: Hurried) -> str:
    first = await think(start.key)
    second = await think(first)
    return await think(second)


@app.workflow(start=Strode, persistence="in_memory")
async def stride(start: Strode) -> int:
    first = await count(start.key)
    second = await count("x" * first)
    return second + await count(start.key)


@app.workflow(start=Paused, persistence="in_memory")
async def pause(start: Paused) -> str:
    first = await think(start.key)
    second = await think(first)
    await checkpoint()
    third = await think(second)
    return await think(third)


@app.workflow(start=Booked)
async def book_in_steps(start: Booked) -> str:
    await book(f"{start.key} 1")
    await think("x")
    await book(f"{start.key} 2")
    went = await receive(Went, start.key)
    await book(f"{start.key} 3")
    await send(Told(key=start.key))
    return await think(went.key)


@app.workflow(start=HurriedToBook, persistence="in_memory")
async def book_at_once(start: HurriedToBook) -> str:
    await book(f"{start.key} 1")
    await think("x")
    await book(f"{start.key} 2")
    return await think(start.key)


@app.workflow(start=Doubled, persistence="in_memory")
async def book_what_is_free(start: Doubled) -> str:
    await book(start.key)
    try:
        await book_twice(start.key)
    except psycopg.errors.UniqueViolation as error:
        await book(f"{start.key}, after {type(error).__name__}")
    return start.key


@app.workflow(start=Collided, persistence="in_memory")
async def collide(start: Collided) -> None:
    await book(start.key)
    await claim(start.key)


@app.workflow(start=Gave, persistence="in_memory", on_unhandled="abandon")
async def give_up(start: Gave) -> str:
    await book(start.key)
    return await think(start.key)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    failing.clear()
    async with running_host(app, database_url, Settings(max_attempts=2)) as host:
        await host.ask("create table bookings (note text primary key, xid xid8 not null)")
        await host.ask("create table claims (note text unique deferrable initially deferred)")
        yield host


async def bookings(host: Host) -> dict[str, int]:
    """Return the rows that record activities wrote, each with its transaction."""
    return {note: int(xid) for note, xid in await host.ask("select note, xid::text from bookings")}


async def test_regular_takes_one_transaction_an_activity_the_last_with_what_follows_it(host: Host) -> None:
    instance_id = await host.deliver(Walked(key="k"))
    begun = [
        ("activity_completed", ["InstanceStarted", "ActivityCompleted"]),
        ("activity_completed", ["ActivityCompleted"]),
        ("idle", ["ActivityCompleted", "BookmarkOpened"]),
    ]
    assert await host.transactions(instance_id) == begun
    await host.deliver(Went(key="k"))
    assert await host.transactions(instance_id) == [
        *begun,
        ("activity_completed", ["MessageReceived", "ActivityCompleted", "MessageSent"]),
        ("completed", ["ActivityCompleted", "InstanceCompleted"]),
    ]
    assert host.told == ["Told"]


@pytest.mark.parametrize("message", [Hurried(key="async"), Strode(key="sync")], ids=lambda m: m.key)
async def test_in_memory_takes_one_transaction_for_the_whole_burst(host: Host, message: Message) -> None:
    instance_id = await host.deliver(message)
    assert await host.transactions(instance_id) == [
        ("completed", ["InstanceStarted", *["ActivityCompleted"] * 3, "InstanceCompleted"])
    ]


async def test_a_checkpoint_cuts_an_in_memory_burst_in_two(host: Host) -> None:
    instance_id = await host.deliver(Paused(key="k"))
    assert await host.transactions(instance_id) == [
        ("checkpoint", ["InstanceStarted", "ActivityCompleted", "ActivityCompleted"]),
        ("completed", ["ActivityCompleted", "ActivityCompleted", "InstanceCompleted"]),
    ]


# Protocol: I3.
async def test_a_record_activity_writes_in_the_transaction_of_its_event(host: Host) -> None:
    instance_id = await host.deliver(Booked(key="k"))
    await host.deliver(Went(key="k"))
    xids = await host.xids(instance_id)
    assert [reason for reason, _ in await host.transactions(instance_id)] == [
        "activity_completed",
        "activity_completed",
        "idle",
        "activity_completed",
        "completed",
    ]
    assert await bookings(host) == {"k 1": xids[0], "k 2": xids[2], "k 3": xids[3]}


async def test_in_memory_record_activities_write_in_the_one_transaction_of_the_burst(host: Host) -> None:
    instance_id = await host.deliver(HurriedToBook(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await bookings(host) == {"k 1": xid, "k 2": xid}


async def test_a_failed_record_activity_is_caught_with_its_own_writes_undone_and_no_others(host: Host) -> None:
    instance_id = await host.deliver(Doubled(key="k"))
    assert await host.transactions(instance_id) == [
        (
            "completed",
            ["InstanceStarted", "ActivityCompleted", "ActivityFailed", "ActivityCompleted", "InstanceCompleted"],
        )
    ]
    (xid,) = await host.xids(instance_id)
    assert await bookings(host) == {"k": xid, "k, after UniqueViolation": xid}


async def test_a_burst_that_fails_before_anything_was_persisted_writes_nothing(host: Host) -> None:
    failing.add("x")
    instance_id = await host.deliver(HurriedToBook(key="k"))
    assert await host.transactions(instance_id) == []
    assert await bookings(host) == {}
    find = "select is_initialized, is_suspended, suspension_exception_name from holdfast.instances"
    assert await host.ask(find) == [(False, True, "ConnectionError")]
    failing.clear()
    await host.resume(instance_id)
    (xid,) = await host.xids(instance_id)
    assert await bookings(host) == {"k 1": xid, "k 2": xid}


async def test_a_burst_that_fails_later_goes_back_to_the_last_persistence_point(host: Host) -> None:
    instance_id = await host.deliver(Booked(key="k"))
    before = await host.transactions(instance_id), await bookings(host)
    await host.ask("alter table bookings add constraint refused check (note <> 'k 3')")
    await host.deliver(Went(key="k"))
    transactions, booked = before
    assert await host.transactions(instance_id) == [*transactions, ("suspended", ["InstanceSuspended"])]
    assert await bookings(host) == booked
    kept = "select verdict from holdfast.inbox where type = 'Went'"
    assert await host.ask(kept) == [("buffered",)]
    await host.ask("alter table bookings drop constraint refused")
    await host.resume(instance_id)
    after = await host.transactions(instance_id)
    assert [reason for reason, _ in after[len(transactions) + 1 :]][-2:] == ["activity_completed", "completed"]
    assert set(await bookings(host)) == {"k 1", "k 2", "k 3"}
    assert await host.ask(kept) == [("applied",)]
    assert host.told == ["Told"]


async def test_a_commit_that_the_database_refuses_takes_the_record_writes_along(host: Host) -> None:
    await host.ask("insert into claims values ('k')")
    instance_id = await host.deliver(Collided(key="k"))
    assert await host.transactions(instance_id) == []
    assert await bookings(host) == {}
    find = "select suspension_reason, suspension_exception_name from holdfast.instances"
    assert await host.ask(find) == [("unhandled_exception", "psycopg.errors.UniqueViolation")]
    await host.ask("delete from claims")
    await host.resume(instance_id)
    (xid,) = await host.xids(instance_id)
    assert await bookings(host) == {"k": xid}


async def test_an_abandoned_burst_writes_nothing_and_its_message_is_given_up(host: Host) -> None:
    failing.add("k")
    instance_id = await host.deliver(Gave(key="k"))
    assert await host.transactions(instance_id) == []
    assert await bookings(host) == {}
    assert await host.ask("select verdict, reason from holdfast.inbox") == [("dead_lettered", "unhandled_exception")]
    find = "select is_initialized, is_suspended, lock_owner from holdfast.instances"
    assert await host.ask(find) == [(False, False, None)]
