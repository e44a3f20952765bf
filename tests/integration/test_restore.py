"""A log goes on from a backup, or on a standby: what was lost takes no reader past what is new."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from compose.local import place
from compose.local.postgres import Postgres
from compose.local.process import ServerError
from holdfast.events.log import Expected
from holdfast.events.postgres import append, read_all
from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceResumed
from holdfast.schemas.postgres.check import check
from holdfast.schemas.postgres.migrate import migrate
from holdfast.schemas.postgres.statements import load
from tests.integration.test_observer import CONTENTS, relations
from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually


def ask(url: str, query: LiteralString) -> Any:
    """Return the only value that a query gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return (cursor.fetchone() or [None])[0] if cursor.description else None


async def write(url: str, count: int = 1) -> Cursor:
    """Append to streams of their own, each in a transaction of its own; return where the last event stands."""
    cursor = None
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(count):
            async with connection.transaction():
                cursor = await append(connection, uuid4(), Expected.NO_STREAM, [InstanceResumed(by="ops")])
    assert cursor is not None
    return cursor


async def read(url: str, after: Cursor, upto: Cursor) -> list[Cursor]:
    """Return the places of the events after a cursor, once readers are shown what stands at another one."""
    is_shown = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while (await (await connection.execute(is_shown, [str(upto.xid)])).fetchone()) != (True,):
            pass
        events, _ = await read_all(connection, after)
        return [it.cursor for it in events]


async def check_that_no_event_is_passed_over(url: str, kept: Cursor, lost: Cursor) -> None:
    """Go on with a log that has lost its end: ``kept`` is what it still has, ``lost`` what it has no more."""
    assert ask(
        url, "select c.system_identifier = s.system_identifier::text from holdfast.cluster c, pg_control_system() s"
    )
    # A worker that starts now says so, and goes on.
    assert not await check(url)
    early = await write(url)
    assert await read(url, kept, early) == [early]
    # That is what the epoch is raised for, and why it is to be raised before anything is written.
    assert (early.epoch, early < lost) == (1, True)
    assert await read(url, lost, early) == []

    assert (await migrate(url)).epoch == 2

    assert await check(url)
    new = await write(url)
    assert await read(url, kept, new) == [early, new]
    assert await read(url, lost, new) == [new]
    assert (await migrate(url)).epoch is None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the archive and the backup, beside the servers', who run as somebody else and write to it."""
    with tempfile.TemporaryDirectory(prefix="holdfast-archive-", dir=place.below) as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def primary(folder: Path) -> Iterator[Postgres]:
    with closing(Postgres()) as server:
        server.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("alter system set archive_mode = on")
            connection.execute(f"alter system set archive_command = 'cp %p {folder}/%f'".encode())
        server.restart()
        yield server


def base_backup(primary: Postgres, folder: Path, signal: str, settings: dict[str, str]) -> Path:
    backup = folder / "backup"
    primary.run("pg_basebackup", "-d", primary.url, "-D", backup, "--checkpoint=fast", "--no-sync")
    (backup / signal).touch()
    with (backup / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in (settings | {"archive_mode": "off"}).items())
    return backup


def await_primary(url: str) -> None:
    while ask(url, "select pg_is_in_recovery()"):
        pass


async def test_after_a_restore_to_an_earlier_moment_cursors_from_before_pass_over_nothing_new(
    primary: Postgres, folder: Path
) -> None:
    await migrate(primary.url)
    backup = base_backup(
        primary,
        folder,
        "recovery.signal",
        {
            "restore_command": f"cp {folder}/%f %p",
            "recovery_target_name": "before the mishap",
            "recovery_target_action": "promote",
        },
    )
    kept = await write(primary.url)
    ask(primary.url, "select pg_create_restore_point('before the mishap')")
    lost = await write(primary.url, 20)
    # Stopped in order, it archives all that it has.
    primary.stop()
    with closing(Postgres(backup=backup)) as restored:
        restored.start()
        await_primary(restored.url)
        await check_that_no_event_is_passed_over(restored.url, kept, lost)


async def test_after_the_promotion_of_a_standby_cursors_from_before_pass_over_nothing_new(
    primary: Postgres, folder: Path
) -> None:
    await migrate(primary.url)
    backup = base_backup(primary, folder, "standby.signal", {"primary_conninfo": primary.url})
    kept = await write(primary.url)
    with closing(Postgres(backup=backup)) as standby:
        standby.start()
        while ask(standby.url, "select count(*) from holdfast.events") != 1:
            pass
        # Who only looks may ask a standby, which is on no timeline of its own.
        assert await check(standby.url)
        standby.stop()
        lost = await write(primary.url, 20)
        primary.stop("immediate")
        standby.start()
        assert ask(standby.url, "select pg_promote()")
        await check_that_no_event_is_passed_over(standby.url, kept, lost)


def rights(url: str) -> set[tuple[str, str, str]]:
    """Return what each role may do with what."""
    with psycopg.connect(url) as connection:
        return {*connection.execute(load("holdfast.schemas.postgres")["rights"]).fetchall()}


def login(url: str, user: str, role: LiteralString) -> str:
    """Make a user who is in a role, and return the address that he uses."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create role {} login in role {}").format(sql.Identifier(user), sql.Identifier(role))
        )
    return url.replace("postgres@", f"{user}@", 1)


def test_roles_that_were_made_after_a_dump_was_restored_get_their_rights_by_migrate(
    folder: Path, amqp_url: str, tmp_path: Path
) -> None:
    with closing(Postgres()) as former, closing(Postgres()) as restored:
        former.start()
        restored.start()
        asyncio.run(migrate(former.url))
        with psycopg.connect(former.url) as connection:
            connection.execute(CONTENTS.encode())
        asyncio.run(write(former.url))
        dump = folder / "dump.sql"
        dump.write_text(former.run("pg_dump", "-d", former.url))
        dump.chmod(0o644)
        with pytest.raises(ServerError, match='role "holdfast_worker" does not exist'):
            restored.run("psql", "-d", restored.url, "-1", "-v", "ON_ERROR_STOP=1", "-f", dump)
        restored.run("psql", "-d", restored.url, "-f", dump)
        for role in ("holdfast_worker", "holdfast_observer", "holdfast_retention"):
            with psycopg.connect(restored.url) as connection:
                connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        worker_url = login(restored.url, "shop_worker", "holdfast_worker")
        observer_url = login(restored.url, "shop_observer", "holdfast_observer")
        assert rights(restored.url) == set()

        done = asyncio.run(migrate(restored.url))

        assert done.granted == ("holdfast_observer", "holdfast_retention", "holdfast_worker")
        assert (done.applied, done.epoch) == ((), 2)
        assert rights(restored.url) == rights(former.url)
        assert asyncio.run(migrate(restored.url)).granted == ()
        check_that_it_may_only_look(observer_url)
        remove_app(amqp_url, "shutdowns")
        env = environment(worker_url, amqp_url) | {"SHUTDOWNS_FOLDER": str(tmp_path)}
        with Workers("tests.faults.shutdowns:app", env, tmp_path) as workers:
            worker = workers.start()
            await_hosts(restored.url, 1)
            publish(amqp_url, "shutdowns", [Raw(body=b'{"key":"k"}', type="Ordered", message_id="m", key="k")])
            is_done = "select count(*) from holdfast.instances where outcome = 'completed' and app = 'shutdowns'"
            eventually("the order is completed", lambda: ask(observer_url, is_done) == 1)
            assert worker.stop() == 0
        remove_app(amqp_url, "shutdowns")


def test_who_may_make_no_roles_is_told_which_are_missing_and_grants_their_rights_once_they_are_there() -> None:
    with closing(Postgres()) as server:
        server.start()
        for statement in ("create role plain login", "grant create on database postgres to plain"):
            ask(server.url, statement)
        owner_url = server.url.replace("postgres@", "plain@", 1)
        roles = ("holdfast_observer", "holdfast_retention", "holdfast_worker")

        first = asyncio.run(migrate(owner_url))

        assert (first.missing, first.granted) == (roles, ())
        assert holdfast("migrate", env=environment(owner_url, "")).stdout == (
            "nothing to do: the database is up to date\n"
            f"not there, and this user may not create it: {', '.join(roles)}; run it again when it is there\n"
        )
        for statement in (
            "create role holdfast_worker",
            "create role holdfast_observer",
            "create role holdfast_retention",
        ):
            ask(server.url, statement)
        assert (
            holdfast("migrate", env=environment(owner_url, "")).stdout == f"gave their rights to {', '.join(roles)}\n"
        )


def check_that_it_may_only_look(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name in relations(connection, "rv"):
            table = sql.Identifier("holdfast", name)
            connection.execute(sql.SQL("select * from {} limit 1").format(table))
        connection.execute("select * from shop_sales.sold")
        for name in relations(connection, "r"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("delete from {}").format(sql.Identifier("holdfast", name)))
