"""How far user SQL is rolled back on Postgres: to a savepoint, to a scope, or to the last commit point."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from holdfast import (
    App,
    Message,
    Retry,
    Transaction,
    activity_context,
    checkpoint,
    defer,
    gather,
    receive,
    send,
    transaction,
)
from holdfast.processor.engine import failures
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres

app = App("rollback")
elsewhere: dict[str, Any] = {}


class Begun(Message, correlation="key"):
    key: str


class Retried(Begun): ...


class Stepwise(Begun): ...


class AtOnce(Begun): ...


class Abandoned(Begun): ...


class Terminated(Begun): ...


class Cancelled(Begun): ...


class Crossed(Begun):
    other: str


class Hopeless(Begun): ...


class Late(Begun): ...


class Deferred(Begun): ...


class Dropped(Begun): ...


class Went(Begun): ...


class Told(Begun): ...


@app.activity
async def book(tx: Transaction, note: str) -> None:
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (note,))


@app.activity
async def claim(tx: Transaction, note: str) -> None:
    await tx.execute("insert into claims values (%s)", (note,))


@app.activity(retry=Retry(attempts=3, delay=timedelta(0)))
async def book_at_the_third_attempt(tx: Transaction, note: str) -> int:
    attempt = activity_context().attempt
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (f"{note}, attempt {attempt}",))
    if attempt < 3:
        raise ConnectionError(attempt)
    return attempt


@app.activity
async def write_elsewhere(note: str) -> None:
    """Write as any code does that knows nothing of the workflow's transaction."""
    await BehindPostgres(elsewhere["url"]).ask("insert into elsewhere values (%s)", note)


@app.activity
async def fail(note: str) -> None:
    raise ConnectionError(note)


@app.activity
async def change(tx: Transaction, row: str, key: str) -> None:
    await tx.execute("update accounts set touched = touched || %s where name = %s", ([key], row))


@app.activity
async def meet() -> None:
    elsewhere["met"] += 1
    if elsewhere["met"] <= 2:
        await elsewhere["barrier"].wait()


@app.activity
async def conflict(tx: Transaction) -> None:
    elsewhere["tries"] += 1
    await tx.execute("do $$ begin raise exception 'never' using errcode = 'serialization_failure'; end $$")


@app.workflow(start=Retried)
async def retried(start: Retried) -> int:
    await book(start.key)
    return await book_at_the_third_attempt(start.key)


@app.workflow(start=Stepwise)
async def stepwise(start: Stepwise) -> str:
    await write_elsewhere("first")
    await book("first")
    went = await receive(Went, start.key)
    await write_elsewhere("second")
    await book("second")
    await send(Told(key=start.key))
    await claim(went.key)
    return went.key


@app.workflow(start=AtOnce, persistence="in_memory")
async def at_once(start: AtOnce) -> list[str]:
    notes = ["first"]
    await book("first")
    await checkpoint()
    notes.append("second")
    await book("second")
    await write_elsewhere("second")
    await claim(start.key)
    return notes


@app.workflow(start=Abandoned, persistence="in_memory", on_unhandled="abandon")
async def abandoned(start: Abandoned) -> None:
    await book("first")
    await receive(Went, start.key)
    await book("second")
    await write_elsewhere("second")
    await fail("second")


@app.workflow(start=Terminated, persistence="in_memory", on_unhandled="terminate")
async def terminated(start: Terminated) -> None:
    await book("first")
    await fail("second")


@app.workflow(start=Cancelled, persistence="in_memory", on_unhandled="cancel")
async def cancelled(start: Cancelled) -> None:
    await book("first")
    try:
        await fail("second")
    finally:
        await book("finally")


@app.workflow(start=Crossed, persistence="in_memory")
async def crossed(start: Crossed) -> str:
    await change(start.key, start.key)
    await meet()
    await change(start.other, start.key)
    await book(start.key)
    await send(Told(key=start.key))
    return start.key


@app.workflow(start=Hopeless, persistence="in_memory")
async def hopeless(start: Hopeless) -> None:
    await book(start.key)
    try:
        await conflict()
    except psycopg.Error:
        await book("caught")


@app.workflow(start=Late, persistence="in_memory")
async def late(start: Late) -> None:
    await book(start.key)
    await claim(start.key)


@app.workflow(start=Deferred, persistence="in_memory")
async def deferred(start: Deferred) -> None:
    await defer(book("later"))
    await gather(book("now"), write_elsewhere("now"))
    await receive(Went, start.key)
    await defer(claim(start.key))
    await book("too late")


@app.workflow(start=Dropped, persistence="in_memory")
async def dropped(start: Dropped) -> None:
    await defer(book("before"))
    try:
        async with transaction():
            await book("inside")
            await defer(book("inside, later"))
            await claim(start.key)
            await fail("inside")
    except ConnectionError:
        await defer(book("after"))


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    elsewhere.update(url=database_url, met=0, tries=0, barrier=asyncio.Barrier(2))
    async with running_host(app, database_url, Settings(max_attempts=3)) as host:
        await host.ask("create table bookings (note text primary key, xid xid8 not null)")
        await host.ask("create table claims (note text unique deferrable initially deferred)")
        await host.ask("create table elsewhere (note text)")
        await host.ask("create table accounts (name text primary key, touched text[] not null default '{}')")
        yield host


async def booked(host: Host) -> dict[str, int]:
    """Return what record activities wrote, each with its transaction."""
    return {note: int(xid) for note, xid in await host.ask("select note, xid::text from bookings")}


async def suspended_by(host: Host) -> str:
    ((name,),) = await host.ask("select suspension_exception_name from holdfast.instances")
    return str(name)


async def written_elsewhere(host: Host) -> list[str]:
    return [note for (note,) in await host.ask("select note from elsewhere")]


async def test_each_attempt_of_a_record_activity_takes_back_its_own_writes_only(host: Host) -> None:
    instance_id = await host.deliver(Retried(key="k"))
    xids = await host.xids(instance_id)
    assert await booked(host) == {"k": xids[0], "k, attempt 3": xids[1]}


async def test_a_failed_commit_goes_back_to_the_commit_point_before_and_no_further(host: Host) -> None:
    instance_id = await host.deliver(Stepwise(key="k"))
    await host.ask("insert into claims values ('k')")
    await host.deliver(Went(key="k"))
    # In regular mode what came before the activity whose writes were refused had committed with a point of its own.
    assert (await host.transactions(instance_id))[-2:] == [
        ("activity_completed", ["ActivityCompleted", "MessageSent"]),
        ("suspended", ["InstanceSuspended"]),
    ]
    assert {*await booked(host)} == {"first", "second"}
    assert host.told == ["Told"]
    assert await suspended_by(host) == "psycopg.errors.UniqueViolation"
    await host.ask("delete from claims")
    await host.resume(instance_id)
    assert await host.ask("select outcome from holdfast.instances") == [("completed",)]
    assert await host.ask("select note from claims") == [("k",)]
    assert await written_elsewhere(host) == ["first", "second"]
    assert host.told == ["Told"]


async def test_state_and_record_writes_go_back_and_what_code_wrote_stays(host: Host) -> None:
    await host.ask("insert into claims values ('k')")
    instance_id = await host.deliver(AtOnce(key="k"))
    assert [*await booked(host)] == ["first"]
    assert await written_elsewhere(host) == ["second"]
    await host.ask("delete from claims")
    await host.resume(instance_id)
    result = "select data -> 'result' from holdfast.events where type = 'InstanceCompleted'"
    assert await host.ask(result) == [(["first", "second"],)]
    assert {*await booked(host)} == {"first", "second"}
    # It ran again, since it was never persisted that it had run.
    assert await written_elsewhere(host) == ["second", "second"]


async def test_an_abandoned_burst_goes_back_each_time_and_what_code_wrote_stays(host: Host) -> None:
    instance_id = await host.deliver(Abandoned(key="k"))
    before = await host.transactions(instance_id)
    await host.deliver(Went(key="k"))
    assert await host.transactions(instance_id) == before
    assert [*await booked(host)] == ["first"]
    assert await written_elsewhere(host) == ["second"] * 3
    kept = "select verdict, reason from holdfast.inbox where type = 'Went'"
    assert await host.ask(kept) == [("dead_lettered", "unhandled_exception")]
    find = "select execution_status, is_suspended, lock_owner from holdfast.instances"
    assert await host.ask(find) == [("idle", False, None)]


async def test_under_terminate_the_writes_up_to_the_exception_commit_with_the_end(host: Host) -> None:
    instance_id = await host.deliver(Terminated(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await booked(host) == {"first": xid}
    assert await host.ask("select outcome from holdfast.instances") == [("faulted",)]


async def test_under_cancel_the_writes_up_to_the_exception_and_of_the_unwinding_commit_with_the_end(host: Host) -> None:
    instance_id = await host.deliver(Cancelled(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await booked(host) == {"first": xid, "finally": xid}
    assert await host.ask("select outcome from holdfast.instances") == [("cancelled",)]


# Two transactions that lock the same rows in opposite order.


# Protocol: C6.
async def test_of_two_instances_that_lock_each_other_out_one_goes_back_and_both_finish(host: Host) -> None:
    await host.ask("insert into accounts values ('a'), ('b')")
    ids = await asyncio.gather(host.deliver(Crossed(key="a", other="b")), host.deliver(Crossed(key="b", other="a")))
    xids = [await host.xids(instance_id) for instance_id in ids]
    assert [len(each) for each in xids] == [1, 1]
    assert await booked(host) == {"a": xids[0][0], "b": xids[1][0]}
    touched = dict(await host.ask("select name, touched from accounts"))
    assert [sorted(keys) for keys in touched.values()] == [["a", "b"], ["a", "b"]]
    # Both had their first row when they asked for the second, so one of them began again.
    assert elsewhere["met"] == 3
    failed = "select count(*) from holdfast.events where type in ('ActivityFailed', 'InstanceSuspended')"
    assert await host.ask(failed) == [(0,)]
    assert host.told == ["Told", "Told"]


async def test_what_never_fits_between_other_transactions_suspends_in_the_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "CONFLICTS", 3)
    await host.deliver(Hopeless(key="k"))
    assert elsewhere["tries"] == 3
    assert await suspended_by(host) == "psycopg.errors.SerializationFailure"
    assert await booked(host) == {}


async def refuse_commits(host: Host, times: int) -> None:
    """Let so many commits fail that write a claim."""
    await host.ask("create sequence tries")
    await host.ask("create table refused (times int)")
    await host.ask("insert into refused values (%s)", times)
    await host.ask(
        """
        create function fit() returns trigger language plpgsql as '
        begin
            if nextval(''tries'') <= (select times from refused) then
                raise exception ''not yet'' using errcode = ''serialization_failure'';
            end if;
            return null;
        end'
        """
    )
    await host.ask(
        "create constraint trigger fit after insert on claims initially deferred for each row execute function fit()"
    )


async def test_a_conflict_that_shows_at_the_commit_is_tried_again_too(host: Host) -> None:
    await refuse_commits(host, 2)
    instance_id = await host.deliver(Late(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await booked(host) == {"k": xid}
    assert await host.ask("select last_value from tries") == [(3,)]
    assert await host.transactions(instance_id) == [
        ("completed", ["InstanceStarted", "ActivityCompleted", "ActivityCompleted", "InstanceCompleted"])
    ]


async def test_conflicts_that_show_at_every_commit_suspend_in_the_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "CONFLICTS", 3)
    await refuse_commits(host, 99)
    await host.deliver(Late(key="k"))
    assert await host.ask("select last_value from tries") == [(3,)]
    assert await suspended_by(host) == "psycopg.errors.SerializationFailure"
    assert await booked(host) == {}


# Pending work.


async def test_pending_work_is_done_last_and_in_the_transaction_of_the_persistence_point(host: Host) -> None:
    instance_id = await host.deliver(Deferred(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await booked(host) == {"now": xid, "later": xid}
    (idle,) = await host.transactions(instance_id)
    assert idle == (
        "idle",
        ["InstanceStarted", *["ActivityCompleted"] * 2, "BookmarkOpened", "ActivityCompleted"],
    )


async def test_pending_work_that_fails_takes_the_batch_back(host: Host) -> None:
    instance_id = await host.deliver(Deferred(key="k"))
    before = await host.transactions(instance_id)
    await host.ask("alter table claims add constraint refused check (note <> 'k')")
    await host.deliver(Went(key="k"))
    assert await host.transactions(instance_id) == [*before, ("suspended", ["InstanceSuspended"])]
    assert {*await booked(host)} == {"now", "later"}
    assert await suspended_by(host) == "psycopg.errors.CheckViolation"
    await host.ask("alter table claims drop constraint refused")
    await host.resume(instance_id)
    assert await host.ask("select note from claims") == [("k",)]
    assert {*await booked(host)} == {"now", "later", "too late"}


async def test_pending_work_of_a_scope_that_failed_is_dropped_with_its_writes(host: Host) -> None:
    await host.ask("insert into claims values ('k')")
    instance_id = await host.deliver(Dropped(key="k"))
    (xid,) = await host.xids(instance_id)
    assert await booked(host) == {"before": xid, "after": xid}
    assert await host.ask("select note from claims") == [("k",)]
