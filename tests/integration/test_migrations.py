"""Bringing a database up to the schema, and saying that it is not."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.errors import CheckViolation, UniqueViolation

from holdfast.events.log import Expected
from holdfast.events.postgres import append, read_all
from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceResumed
from holdfast.schemas.errors import NotMigrated, StorageError
from holdfast.schemas.postgres.check import check, newest
from holdfast.schemas.postgres.migrate import _HOME, Migrated, migrate

EVERY_REVISION = (
    *("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"),
    *("0012", "0013", "0014", "0016", "0017", "0018", "0019"),
)
NOTHING = Migrated(applied=(), epoch=None, granted=(), missing=())


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_an_empty_database_gets_every_migration_and_then_no_more(empty_database_url: str) -> None:
    with pytest.raises(NotMigrated, match=r"no Holdfast schema yet: run `holdfast migrate`"):
        await check(empty_database_url)
    assert (await migrate(empty_database_url)).applied == EVERY_REVISION
    assert await check(empty_database_url)
    assert await migrate(empty_database_url) == NOTHING


async def test_processes_that_migrate_at_once_apply_everything_once(empty_database_url: str) -> None:
    program = (
        "import asyncio, sys; from holdfast.schemas.postgres.migrate import migrate; "
        "print(asyncio.run(migrate(sys.argv[1])).applied)"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, empty_database_url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    printed = [(await process.communicate())[0].decode().strip() for process in processes]
    assert sorted(printed) == [str(EVERY_REVISION), "()", "()"]
    await check(empty_database_url)


async def test_tasks_that_migrate_different_databases_at_once_do_not_mix_them_up(
    empty_database_url: str, database_url: str
) -> None:
    applied = await asyncio.gather(migrate(empty_database_url), migrate(database_url))
    assert [it.applied for it in applied] == [EVERY_REVISION, ()]


async def test_a_migration_that_fails_leaves_nothing(empty_database_url: str) -> None:
    run(empty_database_url, "create schema holdfast", "create table holdfast.hosts (host_id int)")
    with pytest.raises(StorageError, match='the migration failed: relation "hosts" already exists'):
        await migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'holdfast'").fetchall()
    assert tables == [("hosts",)]


async def test_a_server_that_cannot_be_reached_is_a_storage_error() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with pytest.raises(StorageError, match="the migration failed"):
        await migrate(nowhere)
    with pytest.raises(StorageError, match="cannot read the schema"):
        await check(nowhere)


async def test_an_older_schema_is_refused_and_a_newer_one_accepted(database_url: str) -> None:
    run(database_url, "update holdfast.schema_version set version_num = '0000'")
    with pytest.raises(NotMigrated, match=f"is at schema 0000, this version needs {EVERY_REVISION[-1]}"):
        await check(database_url)
    run(database_url, "update holdfast.schema_version set version_num = '9999'")
    await check(database_url)


FIRST_SCHEMA = """
create schema holdfast;
create table holdfast.schema_version (version_num varchar(32) primary key);
insert into holdfast.schema_version values ('0001');
"""

FIRST_DATA = """
insert into holdfast.instance_rows (
    instance_id, app, workflow, program_hash, correlation_key, start_message_id, execution_status, is_initialized,
    version
)
select ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'shop', 'order', 'p', 'k' || n, 'm' || n, 'idle', true, 3
from generate_series(1, 2) n;
insert into holdfast.instance_states (instance_id, state)
select instance_id, '{"version":3}' from holdfast.instance_rows;
insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, due, line)
values
    ('00000000-0000-7000-8000-000000000001', 'paid', 'shop', 'message', 'Paid', 'k1', null, 1),
    ('00000000-0000-7000-8000-000000000001', 'late', 'shop', 'timer', null, null, '2026-01-02', 1);
insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict)
values ('shop', 'm3', 'Note', 'k1', '{}', '', 'buffered');
insert into holdfast.events (instance_id, version, type, data, metadata)
values ('00000000-0000-7000-8000-000000000001', 1, 'InstanceResumed', '{"by":"ops"}', '{}');
"""

KEPT = """
select
    (select json_agg(i order by i.instance_id) from holdfast.instances i)::text,
    (select json_agg(b order by b.name) from holdfast.bookmarks b)::text,
    (select json_agg(m) from holdfast.inbox m)::text,
    (select json_agg(e) from holdfast.events e)::text
"""

BOOKMARK = """
insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, due, line)
values ('00000000-0000-7000-8000-000000000002', %s, 'shop', %s, %s, %s, %s, 1)
"""


@pytest.fixture
def first_schema_url(empty_database_url: str) -> str:
    """A database as the first migration left it, with data."""
    run(empty_database_url, FIRST_SCHEMA, _HOME.joinpath("ddl/0001_foundation.sql").read_text(), FIRST_DATA)
    return empty_database_url


def rows(url: str) -> list[list[dict[str, Any]]]:
    """Return what there is: instances, bookmarks, messages and events."""
    with psycopg.connect(url) as connection:
        row = connection.execute(KEPT).fetchone()
    assert row is not None
    return [json.loads(text) for text in row]


async def test_what_the_first_schema_held_is_there_after_the_upgrade(first_schema_url: str) -> None:
    before = rows(first_schema_url)
    assert (await migrate(first_schema_url)).applied == EVERY_REVISION[1:]
    await check(first_schema_url)
    for old, new in zip(before, rows(first_schema_url), strict=True):
        assert [{name: row[name] for name in was} for was, row in zip(old, new, strict=True)] == old
        added = {name: value for row in new for name, value in row.items() if name not in old[0]}
        assert set(added.values()) <= {None}


async def test_the_second_schema_knows_more_to_wait_for_and_subflows(first_schema_url: str) -> None:
    await migrate(first_schema_url)
    with psycopg.connect(first_schema_url, autocommit=True) as connection:
        connection.execute(BOOKMARK, ["child", "child", "holdfast.SubflowResult", "c", None])
        connection.execute(BOOKMARK, ["activity", "activity", "holdfast.ActivityResult", "a", None])
        for refused, values in (
            (UniqueViolation, ["again", "child", "holdfast.SubflowResult", "c", None]),
            (UniqueViolation, ["taken", "message", "Paid", "k1", None]),
            (CheckViolation, ["kind", "other", "Paid", "x", None]),
            (CheckViolation, ["key", "child", "holdfast.SubflowResult", None, None]),
            (CheckViolation, ["due", "activity", "holdfast.ActivityResult", "b", "2026-01-02"]),
            (CheckViolation, ["type", "timer", "Paid", None, "2026-01-02"]),
        ):
            with pytest.raises(refused):
                connection.execute(BOOKMARK, values)
        inner = """insert into holdfast.instance_rows
            (instance_id, app, workflow, program_hash, correlation_key, start_message_id, parent_id, subflow)
            values (gen_random_uuid(), 'shop', 'order', 'p', 'k1', %s, %s, %s)"""
        parent = "00000000-0000-7000-8000-000000000001"
        connection.execute(inner, ["s1", parent, "run"])
        for violation, given in (
            (UniqueViolation, ["s2", parent, "start"]),
            (CheckViolation, ["s3", None, "run"]),
            (CheckViolation, ["s4", parent, "other"]),
        ):
            with pytest.raises(violation):
                connection.execute(inner, given)


async def test_the_fourth_schema_knows_which_attempts_are_of_use_and_guards_removals(first_schema_url: str) -> None:
    counted = """insert into holdfast.attempts (app, message_id, attempts)
        select 'shop', name, 2 from unnest(%s::text[]) as n (name)"""
    of_bursts = [f"{how}:00000000-0000-7000-8000-000000000001:3" for how in ("instance", "burst")]
    with psycopg.connect(first_schema_url) as connection:
        connection.execute(counted, [["m3", "instance:of mine", *of_bursts, f"{of_bursts[0]}:alone"]])
    await migrate(first_schema_url)
    with psycopg.connect(first_schema_url, autocommit=True) as connection:
        kept = connection.execute("select message_id, attempts, instance_id from holdfast.attempts order by 1")
        assert kept.fetchall() == [("instance:of mine", 2, None), ("m3", 2, None)]
        # A worker of the version before knows nothing of the new columns.
        connection.execute(counted, [["m4"]])
        assert connection.execute("select count(*) from holdfast.non_persisted").fetchone() == (0,)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("delete from holdfast.instances")
        assert refused.value.sqlstate == "HF002"


async def test_the_eighteenth_schema_counts_messages_those_that_are_there_and_those_that_come_meanwhile(
    empty_database_url: str,
) -> None:
    message = """insert into holdfast.inbox (app, message_id, kind, type, correlation_key, body, digest, verdict)
        values ('shop', %s, %s, %s, 'k', '{}', '', %s)"""
    before = [
        *((name, "message", "Paid", "applied") for name in ("a", "b")),
        ("c", "message", "Paid", "expired"),
        ("d", "message", "Note", "buffered"),
        ("e", "control", "holdfast.Command", "applied"),
    ]
    older = (path.read_text() for path in sorted(_HOME.joinpath("ddl").glob("*.sql")) if path.name < "0018")
    run(empty_database_url, FIRST_SCHEMA, *older, "update holdfast.schema_version set version_num = '0017'")
    connect = psycopg.AsyncConnection.connect
    async with await connect(empty_database_url) as worker:
        for each in before:
            await worker.execute(message, each)
        await worker.commit()
        await worker.execute(message, ("f", "message", "Paid", "rejected"))
        await worker.execute("update holdfast.inbox set verdict = 'applied' where message_id = 'd'")
        migrating = asyncio.create_task(migrate(empty_database_url))
        waits = "select count(*) from pg_locks where relation = 'holdfast.inbox'::regclass and not granted"
        async with await connect(empty_database_url, autocommit=True) as observer:
            while (await (await observer.execute(waits)).fetchone()) != (1,):
                assert not migrating.done()
        await worker.commit()
        assert (await migrating).applied[0] == "0018"
        await worker.execute(message, ("g", "message", "Note", "buffered"))
        kept = await worker.execute("select type, verdict, messages from holdfast.messages_by_verdict order by 1, 2")
        assert await kept.fetchall() == [
            *(("Note", "applied", 1), ("Note", "buffered", 1)),
            *(("Paid", "applied", 2), ("Paid", "expired", 1), ("Paid", "rejected", 1)),
        ]


async def test_a_database_in_another_cluster_starts_a_new_epoch(database_url: str) -> None:
    stream = uuid4()
    event = InstanceResumed(by="ops")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await append(connection, stream, Expected.NO_STREAM, [event])
    # The former cluster had come to higher transaction ids than this one has.
    run(
        database_url,
        "update holdfast.cluster set system_identifier = 'another'",
        "alter table holdfast.events disable trigger events_are_append_only",
        "update holdfast.events set xid = '9223372036854775000'",
        "alter table holdfast.events enable always trigger events_are_append_only",
        """insert into holdfast.instance_rows
            (instance_id, app, workflow, program_hash, correlation_key, start_message_id, last_xid)
            values (gen_random_uuid(), 'a', 'w', 'h', 'k', 'm', '9223372036854775000')""",
    )
    with pytest.raises(NotMigrated, match="moved to another cluster"):
        await check(database_url)

    assert (await migrate(database_url)).epoch == 2

    await check(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await connection.execute("select last_xid from holdfast.instance_rows")
        assert await row.fetchall() == [(None,)]
        cursor = await append(connection, stream, 1, [event])
        assert cursor.epoch == 2
        await connection.commit()
        events, _ = await read_all(connection)
        while len(events) < 2:  # Chores of the server may hold the horizon back for a moment.
            events, _ = await read_all(connection)
    assert [(it.cursor.epoch, it.version) for it in events] == [(1, 1), (2, 2)]
    await migrate(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        assert (await append(connection, stream, 2, [event])).epoch == 2


async def test_the_epoch_is_raised_between_transactions_and_no_reader_skips_one(database_url: str) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    event = InstanceResumed(by="ops")
    run(database_url, "update holdfast.cluster set timeline = 'another'")
    assert not await check(database_url)
    connect = psycopg.AsyncConnection.connect
    async with await connect(database_url) as early, await connect(database_url) as late:
        await late.execute("select pg_current_xact_id()")
        await append(early, first, Expected.NO_STREAM, [event])

        migrating = asyncio.create_task(migrate(database_url))
        waits = "select count(*) from pg_locks where relation = 'holdfast.events'::regclass and not granted"
        async with await connect(database_url, autocommit=True) as observer:
            while (await (await observer.execute(waits)).fetchone()) != (1,):
                assert not migrating.done()
            appending = asyncio.create_task(append(late, second, Expected.NO_STREAM, [event]))
            while (await (await observer.execute(waits)).fetchone()) != (2,):
                assert not appending.done()
        await early.commit()
        assert (await migrating).epoch == 2
        # What began before, and with the lower transaction id, but writes later, writes in the new epoch.
        assert (await appending).epoch == 2
        await late.commit()
    assert await check(database_url)
    async with await connect(database_url) as connection:
        cursor = await append(connection, third, Expected.NO_STREAM, [event])
    async with await connect(database_url, autocommit=True) as connection:
        seen: list[tuple[int, UUID]] = []
        place: Cursor | None = None
        while place is None or place < cursor:
            events, place = await read_all(connection, place)
            seen += [(it.cursor.epoch, it.instance_id) for it in events]
    assert seen == [(1, first), (2, second), (2, third)]


@pytest.fixture
def plain_owner_url(empty_database_url: str) -> Iterator[str]:
    """A database whose owner may create nothing outside of it."""
    name = f"holdfast_test_owner_{uuid4().hex[:8]}"
    database = urlsplit(empty_database_url).path.removeprefix("/")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), sql.Identifier(name))
        )
    parts = urlsplit(empty_database_url)
    yield parts._replace(netloc=f"{name}:secret@{parts.netloc.rpartition('@')[2]}").geturl()
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
        connection.execute(sql.SQL("alter database {} owner to current_user").format(sql.Identifier(database)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def test_the_owner_of_a_database_may_migrate_it(plain_owner_url: str) -> None:
    assert (await migrate(plain_owner_url)).applied == EVERY_REVISION
    await check(plain_owner_url)


async def test_a_user_without_rights_is_told_so(plain_owner_url: str, empty_database_url: str) -> None:
    run(empty_database_url, f"alter database {urlsplit(empty_database_url).path[1:]} owner to current_user")
    with pytest.raises(StorageError, match="permission denied"):
        await migrate(plain_owner_url)


def test_the_history_is_one_line_and_runs_every_file_of_ddl() -> None:
    revisions = [*ScriptDirectory(str(_HOME)).walk_revisions()]
    assert tuple(revision.revision for revision in reversed(revisions)) == EVERY_REVISION
    assert not any(revision.is_merge_point or revision.is_branch_point for revision in revisions)
    files = sorted(path.stem for path in _HOME.joinpath("ddl").glob("*.sql"))
    assert files == sorted(Path(revision.path).stem.removeprefix("v") for revision in revisions)
    assert newest() == EVERY_REVISION[-1]


def test_workers_do_not_load_what_only_migrations_use() -> None:
    program = """if True:
        import sys
        import holdfast.projections.verify, holdfast.processor.worker, holdfast.processor.client
        assert not {"alembic", "sqlalchemy"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", program], check=True)
