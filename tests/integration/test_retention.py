"""Removing what is over: what goes, what stays whatever its age, and who may do it."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast import Client, Removed, Retention
from holdfast.events.postgres import read_all
from holdfast.processor.store import retention
from holdfast.processor.store.connections import one
from holdfast.projections import verify
from holdfast.schemas.errors import InstanceNotFound, StorageError
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, register

AT_ONCE = timedelta(0)
DAY = timedelta(days=1)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


async def order(connection: psycopg.AsyncConnection, *batches: Any, app: str = "shop") -> UUID:
    async with connection.transaction():
        return await add_order(connection, await add_host(connection), *batches, app=app)


async def rows(connection: psycopg.AsyncConnection) -> set[UUID]:
    cursor = await connection.execute("select instance_id from holdfast.instance_rows")
    return {instance_id for (instance_id,) in await cursor.fetchall()}


async def streams(connection: psycopg.AsyncConnection) -> dict[UUID, int]:
    cursor = await connection.execute("select instance_id, count(*) from holdfast.events group by instance_id")
    return dict(await cursor.fetchall())


async def add_message(
    connection: psycopg.AsyncConnection, message_id: str, verdict: str, instance_id: UUID | None = None
) -> None:
    await connection.execute(
        """insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict, instance_id)
        values ('shop', %s, 'OrderPlaced', 'k', '{}', '', %s, %s)""",
        [message_id, verdict, instance_id],
    )


async def messages(connection: psycopg.AsyncConnection) -> set[str]:
    cursor = await connection.execute("select message_id from holdfast.inbox")
    return {message_id for (message_id,) in await cursor.fetchall()}


async def assert_verified(client: Client) -> None:
    assert [checked async for checked in client.verify() if checked.differences] == []


async def test_closed_instances_go_and_their_histories_stay(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    closed, waiting = await order(connection, WAITING, PAID), await order(connection, WAITING)
    suspended, elsewhere = await order(connection, WAITING, SUSPENDED), await order(connection, WAITING, PAID, app="b")
    registered = await register(connection)
    before = await streams(connection)
    async with Client(client._database_url, app="shop") as of_app:
        assert await of_app.apply_retention(Retention(instances=AT_ONCE)) == Removed(instances=1)
    assert await rows(connection) == {waiting, suspended, elsewhere, registered}
    assert await client.apply_retention(Retention(instances=AT_ONCE)) == Removed(instances=1)
    assert await rows(connection) == {waiting, suspended, registered}
    states = await connection.execute("select instance_id from holdfast.instance_states")
    assert {instance_id for (instance_id,) in await states.fetchall()} == {waiting, suspended}
    assert await streams(connection) == before
    assert (await client.instance(closed))[0].is_discarded
    await assert_verified(client)


async def test_only_what_is_old_enough_goes(connection: psycopg.AsyncConnection, client: Client) -> None:
    old, young = await order(connection, WAITING, PAID), await order(connection, WAITING, PAID)
    await connection.execute(
        "update holdfast.instance_rows set last_updated_time = now() - interval '31 d' where instance_id = %s", [old]
    )
    await connection.execute("alter table holdfast.events disable trigger events_are_append_only")
    await connection.execute(
        "update holdfast.events set recorded_at = recorded_at - interval '31 d' where instance_id = %s", [old]
    )
    await connection.execute("alter table holdfast.events enable always trigger events_are_append_only")
    for message_id, age in (("old", 31), ("young", 29)):
        await add_message(connection, message_id, "applied")
        await connection.execute(
            "update holdfast.inbox set received_at = now() - make_interval(days => %s) where message_id = %s",
            [age, message_id],
        )
    kept = Retention(instances=30 * DAY, streams=30 * DAY, inbox=30 * DAY)
    expected = Removed(instances=1, streams=1, events=7, messages=1)
    assert await client.apply_retention(kept, dry_run=True) == expected
    assert await rows(connection) == {old, young}
    assert await messages(connection) == {"old", "young"}
    assert await client.apply_retention(kept) == expected
    assert await rows(connection) == {young}
    assert await streams(connection) == {young: 7}
    assert await messages(connection) == {"young"}
    assert await client.apply_retention(kept) == Removed()
    await assert_verified(client)


async def test_a_stream_goes_as_a_whole_and_with_it_what_is_left_of_its_instance(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    discarded = await order(connection, WAITING, PAID)
    await client.apply_retention(Retention(instances=AT_ONCE))
    closed, waiting = await order(connection, WAITING, PAID), await order(connection, WAITING)
    suspended = await order(connection, WAITING, SUSPENDED)
    removed = await client.apply_retention(Retention(streams=AT_ONCE))
    assert removed == Removed(streams=2, events=14)
    assert await streams(connection) == {waiting: 4, suspended: 6}
    assert await rows(connection) == {waiting, suspended}
    for gone in (discarded, closed):
        with pytest.raises(InstanceNotFound):
            await client.instance(gone)
    await assert_verified(client)


async def test_what_goes_while_it_is_verified_is_no_difference(
    connection: psycopg.AsyncConnection, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await order(connection, WAITING, PAID)
    waiting = await order(connection, WAITING)
    # Between the look at the rows and the one at their streams.
    fold_streams = verify._run

    async def remove_and_fold(*arguments: Any) -> None:
        await client.apply_retention(Retention(streams=AT_ONCE))
        await fold_streams(*arguments)

    monkeypatch.setattr(verify, "_run", remove_and_fold)
    checked = [each async for each in client.verify()]
    assert [(each.instance_id, each.differences) for each in checked] == [(waiting, ())]


async def test_who_is_awaited_or_has_mail_stays(connection: psycopg.AsyncConnection, client: Client) -> None:
    awaited, mailed = await order(connection, WAITING, PAID), await order(connection, WAITING, PAID)
    parent = await order(connection, WAITING)
    await connection.execute(
        "update holdfast.instance_rows set parent_id = %s, subflow = 'start', awaited_as = instance_id"
        " where instance_id = %s",
        [parent, awaited],
    )
    await connection.execute(
        """insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, line)
        values (%s, 'child', 'shop', 'child', 'holdfast.SubflowResult', %s, 1)""",
        [parent, str(awaited)],
    )
    await add_message(connection, "command", "buffered", mailed)
    assert await client.apply_retention(Retention(instances=AT_ONCE)) == Removed()
    await connection.execute("delete from holdfast.bookmarks where kind = 'child'")
    await connection.execute("update holdfast.inbox set verdict = 'rejected'")
    assert await client.apply_retention(Retention(instances=AT_ONCE)) == Removed(instances=2)
    assert await rows(connection) == {parent}


async def test_messages_go_by_their_verdict_and_dead_letters_when_named(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    for verdict in ("applied", "rejected", "expired", "buffered", "dead_lettered"):
        await add_message(connection, verdict, verdict)
    registered = await register(connection)
    row, _ = await client.instance(registered)
    await add_message(connection, row.start_message_id or "", "rejected")
    await connection.execute(
        """insert into holdfast.outbox (message_id, app, instance_id, host_id, exchange, routing_key, type,
            correlation_key, body, dead_reason)
        select name, 'shop', %s, %s, 'x', 'r', 'Shipped', 'k', '{}', nullif(name, 'on its way')
        from unnest(array['on its way', 'unroutable']) as n (name)""",
        [uuid4(), uuid4()],
    )
    await connection.execute(
        "insert into holdfast.attempts (app, message_id, attempts)"
        " values ('shop', 'unheard', 1), ('shop', 'buffered', 1)"
    )
    await connection.execute("insert into holdfast.heartbeats values ('shop', 'nobody waits', now() - interval '1 s')")
    removed = await client.apply_retention(Retention(inbox=AT_ONCE))
    assert removed == Removed(messages=3, attempts=1, heartbeats=1)
    assert await messages(connection) == {"buffered", "dead_lettered", row.start_message_id}
    assert await client.apply_retention(Retention(dead_letters=AT_ONCE)) == Removed(dead_letters=2)
    assert await messages(connection) == {"buffered", row.start_message_id}
    outbox = await connection.execute("select message_id from holdfast.outbox")
    assert await outbox.fetchall() == [("on its way",)]
    attempts = await connection.execute("select message_id from holdfast.attempts")
    assert await attempts.fetchall() == [("buffered",)]


async def test_programs_go_that_nothing_runs_on_any_more(connection: psycopg.AsyncConnection, client: Client) -> None:
    await connection.execute(
        """insert into holdfast.programs (app, program_hash, workflow, format, program, starts_with, brought_at)
        select 'shop', hash, 'order', 1, '{}', case when hash not like 'routine%%' then 'OrderPlaced' end, brought_at
        from unnest(array['p-1', 'deployed', 'unused', 'routine in use', 'routine unused', 'new'])
            with ordinality as p (hash, n)
        cross join lateral (
            select now() - make_interval(days => case when hash = 'new' then 0 else 2 end)
        ) b (brought_at)"""
    )
    host = await add_host(connection)
    await connection.execute("update holdfast.hosts set programs = '{deployed}' where host_id = %s", [host])
    waiting = await order(connection, WAITING)
    await connection.execute(
        "update holdfast.instance_states set state = 'a frame of \"routine in use\"' where instance_id = %s", [waiting]
    )
    assert await client.apply_retention(Retention(programs=DAY)) == Removed(programs=2)
    left = await connection.execute("select program_hash from holdfast.programs order by 1")
    assert [name for (name,) in await left.fetchall()] == ["deployed", "new", "p-1", "routine in use"]
    # What is compressed may name anything.
    await connection.execute(
        "insert into holdfast.programs (app, program_hash, workflow, format, program, brought_at)"
        " values ('shop', 'routine', 'r', 1, '{}', now() - interval '2 d')"
    )
    await connection.execute("update holdfast.instance_states set state_encoding = 'gzip'")
    assert await client.apply_retention(Retention(programs=DAY)) == Removed()


async def test_a_run_that_breaks_off_is_taken_up_by_the_next(
    connection: psycopg.AsyncConnection, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BLOCKS", 1)
    ids = [await order(connection, WAITING, PAID) for _ in range(60)]
    calls = 0
    first = one

    async def breaking(cursor: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StorageError("the connection is gone")
        return await first(cursor)

    monkeypatch.setattr("holdfast.processor.store.retention.one", breaking)
    with pytest.raises(StorageError):
        await client.apply_retention(Retention(streams=AT_ONCE))
    left = await streams(connection)
    assert 0 < len(left) < len(ids)
    assert set(left.values()) == {7}
    assert await rows(connection) == set(left)
    await assert_verified(client)
    assert await client.apply_retention(Retention(streams=AT_ONCE)) == Removed(streams=len(left), events=7 * len(left))
    assert await streams(connection) == {}


async def test_who_reads_the_whole_log_meanwhile_misses_nothing_that_is_there(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    kept = [await order(connection, WAITING) for _ in range(3)]
    gone = [await order(connection, WAITING, PAID) for _ in range(3)]
    late = [await order(connection, WAITING) for _ in range(3)]
    read, cursor = await read_all(connection, limit=14)
    await client.apply_retention(Retention(streams=AT_ONCE))
    while True:
        events, cursor = await read_all(connection, cursor, limit=5)
        if not events:
            break
        read = [*read, *events]
    seen = {instance_id: [e.version for e in read if e.instance_id == instance_id] for instance_id in [*kept, *late]}
    assert seen == {instance_id: [1, 2, 3, 4] for instance_id in [*kept, *late]}
    assert {e.instance_id for e in read} - {*kept, *late} <= {*gone}


async def test_what_a_projection_has_yet_to_read_stays(connection: psycopg.AsyncConnection, client: Client) -> None:
    first = await order(connection, WAITING, PAID)
    events, _ = await read_all(connection)
    cursor = events[-1].cursor
    second = await order(connection, WAITING, PAID)
    await connection.execute(
        "insert into holdfast.projections (app, name, version, epoch, xid, position)"
        " values ('shop', 'totals', 1, %s, %s::text::xid8, %s)",
        [cursor.epoch, str(cursor.xid), cursor.position],
    )
    assert await client.apply_retention(Retention(streams=AT_ONCE)) == Removed(streams=1, events=7)
    assert first not in await streams(connection)
    assert second in await streams(connection)


# The door.

DOORS = (
    "select holdfast.remove_instances(null, '0', 0, 1, true)",
    "select holdfast.remove_streams(null, '0', 0, 1, true)",
    "select holdfast.remove_messages(null, '0', 0, 1, true)",
    "select holdfast.remove_dead_letters(null, '0', 0, 1, true)",
    "select holdfast.remove_unroutable(null, '0', 0, 1, true)",
    "select holdfast.remove_attempts(null, '0', 0, 1, true)",
    "select holdfast.remove_heartbeats(null, '0', 0, 1, true)",
    "select holdfast.remove_programs(null, '0', 0, 1, true)",
)
DELETES = (
    ("delete from holdfast.events", "HF001"),
    ("update holdfast.events set type = type", "HF001"),
    ("truncate holdfast.events", "HF001"),
    ("delete from holdfast.instance_rows", "HF002"),
    ("delete from holdfast.instances", "HF002"),
)

Refuse = Callable[[str], Any]


@pytest.fixture
def refuse(connection: psycopg.AsyncConnection) -> Refuse:
    async def run(statement: str) -> str | None:
        with pytest.raises(psycopg.Error) as refused:
            await connection.execute(statement.encode())
        return refused.value.sqlstate

    return run


@pytest.mark.parametrize("role", ["holdfast_worker", "holdfast_observer"])
async def test_workers_and_observers_remove_nothing(
    connection: psycopg.AsyncConnection, refuse: Refuse, role: str
) -> None:
    await connection.execute(f"set role {role}".encode())
    for statement in DOORS:
        assert await refuse(statement) == "42501"


async def test_who_may_remove_may_do_nothing_else(connection: psycopg.AsyncConnection, refuse: Refuse) -> None:
    closed = await order(connection, WAITING, PAID)
    await connection.execute("set role holdfast_retention")
    for statement, _ in DELETES:
        assert await refuse(statement) == "42501"
    assert await refuse("select holdfast.discard('{}')") == "42501"
    for statement in DOORS:
        await connection.execute(statement.encode())
    await connection.execute("reset role")
    assert closed not in await streams(connection)


# Protocol: I20.
async def test_the_door_is_shut_to_the_owner_before_and_after(
    connection: psycopg.AsyncConnection, refuse: Refuse
) -> None:
    await order(connection, WAITING, PAID)
    for statement, state in DELETES:
        assert await refuse(statement) == state
    async with connection.transaction():
        for statement in DOORS[:2]:
            await connection.execute(statement.replace("true", "false").encode())
        for statement, state in DELETES:
            with pytest.raises(psycopg.Error) as refused:
                async with connection.transaction():
                    await connection.execute(statement.encode())
            assert refused.value.sqlstate == state
    assert len(await streams(connection)) == 1


async def test_the_mark_of_the_door_opens_it_to_nobody_but_the_owner(
    connection: psycopg.AsyncConnection, refuse: Refuse
) -> None:
    await order(connection, WAITING, PAID)
    name = f"holdfast_test_{uuid4().hex[:8]}"
    await connection.execute(f"create role {name} superuser".encode())
    await connection.execute("grant delete, update, truncate on holdfast.events to holdfast_worker")
    try:
        for role in ("holdfast_worker", name):
            await connection.execute(f"set role {role}".encode())
            await connection.execute("set holdfast.door = 'open'")
            for statement, state in DELETES:
                assert await refuse(statement) == state
            await connection.execute("reset role")
        # And never to what is no removal, not even to the owner.
        for statement, state in DELETES[1:3]:
            assert await refuse(statement) == state
    finally:
        await connection.execute("reset role")
        await connection.execute(f"drop role {name}".encode())
    assert len(await streams(connection)) == 1


async def test_a_worker_discards_only_what_its_own_transaction_has_closed(
    connection: psycopg.AsyncConnection,
) -> None:
    closed, waiting = await order(connection, WAITING, PAID), await order(connection, WAITING)
    await connection.execute("set role holdfast_worker")
    await connection.execute("select holdfast.discard(%s)", [[closed, waiting]])
    assert await rows(connection) == {closed, waiting}
    async with connection.transaction():
        own = await add_order(connection, await add_host(connection), WAITING, PAID)
        await connection.execute("select holdfast.discard(%s)", [[closed, waiting, own]])
    assert await rows(connection) == {closed, waiting}
    assert own in await streams(connection)
