"""Who is a member of `holdfast_observer`, and of nothing else, may look at everything and change nothing.

What there is to look at and to change is read from the catalog, the client and the command line themselves, so that
nothing new is forgotten here.
"""

import asyncio
import inspect
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from typer.core import TyperGroup
from typer.main import get_command

from compose.local.services import Services
from holdfast import App, Client, Projection, Transaction
from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceCompleted
from holdfast.processor import projecting
from holdfast.processor.cli import application
from holdfast.processor.store.retention import Retention
from holdfast.schemas.control import Command
from holdfast.schemas.errors import StorageError
from holdfast.schemas.settings import Settings
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, register
from tests.support.projections import Started, app_with

NOT_ALLOWED = "42501"
LETTER, TIMER = "letter", "0:late"

CONTENTS = """
insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict, reason)
values ('shop', 'letter', 'OrderPlaced', 'k', '{}', '', 'dead_lettered', 'not_json');
insert into holdfast.projections (app, name, schema_name, version, status, error)
values ('shop', 'sales', 'shop_sales', 1, 'stopped', 'no');
create schema shop_sales;
create table shop_sales.sold (item text primary key, pieces integer);
insert into shop_sales.sold values ('chair', 2);
select holdfast.open_to_observers('shop_sales');
create schema past;
create table past.sold (item text primary key, pieces integer);
insert into past.sold values ('chair', 1);
select holdfast.open_to_observers('past');
insert into holdfast.scratches (
    schema_name, schema_oid, app, name, version, as_of, until_epoch, until_xid, until_position, is_complete
)
values ('past', 'past'::regnamespace, 'shop', 'sales', 1, '0-0-0', 0, '0', 0, true);
"""


class World:
    """A store with something of everything, and the address at which an observer finds it."""

    def __init__(self, url: str, name: str) -> None:
        self.owner_url = url
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self.url = parts._replace(netloc=f"{name}:secret@{host}").geturl()
        self.waiting = self.suspended = self.non_persisted = UUID(int=0)

    async def fill(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.owner_url) as connection:
            host = await add_host(connection)
            self.waiting = await add_order(connection, host, WAITING)
            self.suspended = await add_order(connection, host, WAITING, SUSPENDED)
            await add_order(connection, host, WAITING, PAID)
            self.non_persisted = await register(connection)
            await connection.execute("update holdfast.settings set removal_age = '0'")
            await connection.execute(CONTENTS.encode())

    def contents(self) -> dict[str, str | None]:
        """Return a digest of what each table holds."""
        with psycopg.connect(self.owner_url) as connection:
            digest = "select md5(string_agg(t::text, '|' order by t::text)) from {} t"
            return {
                name: (connection.execute(sql.SQL(digest).format(sql.Identifier("holdfast", name))).fetchone() or [""])[
                    0
                ]
                for name in relations(connection, "r")
            }


def relations(connection: psycopg.Connection, kinds: str) -> list[str]:
    cursor = connection.execute(
        """select relname from pg_class
        where relnamespace = 'holdfast'::regnamespace and relkind = any(%s::"char"[]) order by relname""",
        [list(kinds)],
    )
    return [name for (name,) in cursor.fetchall()]


@pytest.fixture(scope="module")
def world(services: Services, migrated_template: str) -> Iterator[World]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = services.new_database(name, template=migrated_template)
    login = sql.SQL("create role {} login password 'secret' in role holdfast_observer")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(login.format(sql.Identifier(name)))
    world = World(url, name)
    asyncio.run(world.fill())
    yield world
    services.drop_database(name)
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with Client(world.url, app="shop") as client:
        yield client


@pytest.fixture
def changes_nothing(world: World) -> Iterator[None]:
    before = world.contents()
    yield
    assert world.contents() == before


async def drain(found: AsyncIterator[Any]) -> None:
    _ = [each async for each in found]


async def enter(found: AbstractAsyncContextManager[Any]) -> None:
    async with found:
        pass


Call = Callable[[Client, World], Awaitable[object]]
SHOP = App("shop")


@SHOP.projection
class Sales(Projection):
    """What the world's tables of this name are of."""

    name = "sales"
    create = "create table sold (item text primary key, pieces integer)"

    async def completed(self, tx: Transaction, event: InstanceCompleted) -> None: ...


READING: dict[str, Call] = {
    "instances": lambda c, _: c.instances(),
    "every_instance": lambda c, _: drain(c.every_instance()),
    "instance": lambda c, w: c.instance(w.waiting),
    "tree": lambda c, w: c.tree(w.waiting),
    "tally": lambda c, _: c.tally(),
    "non_persisted": lambda c, _: c.non_persisted(),
    "messages": lambda c, _: c.messages(),
    "every_message": lambda c, _: drain(c.every_message()),
    "count_messages": lambda c, _: c.count_messages(),
    "message_tally": lambda c, _: c.message_tally(),
    "explain": lambda c, w: c.explain(w.waiting),
    "hosts": lambda c, _: c.hosts(),
    "timers": lambda c, _: c.timers(),
    "program": lambda c, _: c.program("shop", "p-1"),
    "history": lambda c, w: drain(c.history(w.waiting)),
    "transactions": lambda c, w: drain(c.transactions(w.waiting)),
    "compensation": lambda c, w: c.compensation(w.waiting),
    "state": lambda c, w: c.state(w.waiting),
    "diff": lambda c, w: c.diff(w.waiting, 1, 2),
    "origin": lambda c, w: c.origin(w.waiting),
    "forks": lambda c, w: c.forks(w.waiting),
    "verify": lambda c, _: drain(c.verify()),
    "dead_letters": lambda c, _: c.dead_letters(),
    "dead_letter": lambda c, _: c.dead_letter(LETTER),
    "export.events": lambda c, _: c.export.events(BytesIO(), "jsonl"),
    "export.instances": lambda c, _: c.export.instances(BytesIO(), "jsonl"),
    "export.traces": lambda c, _: c.export.traces(BytesIO()),
    "replays.list": lambda c, _: c.replays.list(),
    "replays.count": lambda c, _: c.replays.count(),
    "replays.count_into": lambda c, _: c.replays.count_into(SHOP, "sales"),
    "projections.lag": lambda c, _: c.projections.lag(),
    "projections.scratches": lambda c, _: c.projections.scratches(),
    "projections.diff": lambda c, _: drain(c.projections.diff("sales", "past", "live")),
    "preflight": lambda c, _: drain(c.preflight(SHOP)),
    "projections.cursor": lambda c, _: c.projections.cursor(),
    "projections.skipped": lambda c, _: c.projections.skipped(),
    "projections.wait_until": lambda c, _: c.projections.wait_until("sales", "0-0-0"),
}
SUSPEND = Command(command="suspend", by="me")
WRITING: dict[str, Call] = {
    "suspend": lambda c, w: c.suspend(w.waiting, by="me"),
    "resume": lambda c, w: c.resume(w.suspended, by="me"),
    "cancel": lambda c, w: c.cancel(w.waiting, by="me"),
    "terminate": lambda c, w: c.terminate(w.waiting, by="me"),
    "abandon": lambda c, w: c.abandon(w.waiting, by="me"),
    "persist": lambda c, w: c.persist(w.waiting, by="me"),
    "unload": lambda c, w: c.unload(w.waiting, by="me"),
    "resolve": lambda c, w: c.resolve(w.suspended, "retry", by="me"),
    "reschedule_timer": lambda c, w: c.reschedule_timer(w.waiting, TIMER, datetime.now(UTC), by="me"),
    "fire_timer": lambda c, w: c.fire_timer(w.waiting, TIMER, by="me"),
    "cancel_timer": lambda c, w: c.cancel_timer(w.waiting, TIMER, by="me"),
    "command": lambda c, w: c.command(w.waiting, SUSPEND),
    "command_all": lambda c, _: drain(c.command_all(SUSPEND, execution_status="idle", is_suspended=False)),
    "fork": lambda c, w: c.fork(w.waiting, 4, by="me", key="other"),
    "hold": lambda c, w: enter(c.hold(w.waiting)),
    "remove": lambda c, w: c.remove(w.non_persisted),
    "apply_retention": lambda c, _: c.apply_retention(Retention(inbox=timedelta())),
    "requeue": lambda c, _: c.requeue(LETTER),
    "drop": lambda c, _: c.drop(LETTER),
    "migrate": lambda c, w: c.migrate(SHOP, w.waiting, by="me"),
    "projections.drop": lambda c, _: c.projections.drop("past"),
    "replays.run": lambda c, _: drain(c.replays.run("july")),
    "replays.remove": lambda c, _: c.replays.remove("july"),
    "projections.resume": lambda c, _: c.projections.resume("sales"),
    "projections.skip": lambda c, _: c.projections.skip("sales"),
}
NEEDS_MORE = {
    *("publish", "publish_all", "close"),  # They know no database.
    *("replays.begin", "replays.into"),  # They are about a broker, or about projections with code.
}


def test_every_method_of_the_client_is_looked_at_here() -> None:
    def public(of: object) -> set[str]:
        return {name for name, _ in inspect.getmembers(of, inspect.ismethod) if not name.startswith("_")}

    client = Client()
    lazily = [name for name, it in inspect.getmembers_static(Client) if isinstance(it, cached_property)]
    parts = {name: getattr(client, name) for name in lazily if not name.startswith("_")}
    methods = public(client) | {f"{name}.{method}" for name, part in parts.items() for method in public(part)}
    assert methods - NEEDS_MORE == {*READING, *WRITING}


@pytest.mark.parametrize("name", READING)
async def test_an_observer_may_ask_the_client_for_everything(client: Client, world: World, name: str) -> None:
    await READING[name](client, world)


@pytest.mark.usefixtures("changes_nothing")
@pytest.mark.parametrize("name", WRITING)
async def test_an_observer_is_refused_what_changes_anything(client: Client, world: World, name: str) -> None:
    with pytest.raises(StorageError, match=r"the database failed: permission denied for (table|view|function)"):
        await WRITING[name](client, world)


LOOKING = {
    "instances": ["instances"],
    "instances of each status": ["instances", "--count"],
    "instances of every page": ["instances", "--all"],
    "show": ["show", "WAITING"],
    "explain": ["explain", "WAITING"],
    "history": ["history", "WAITING"],
    "transactions": ["transactions", "WAITING"],
    "compensation": ["compensation", "WAITING"],
    "state": ["state", "WAITING"],
    "diff": ["diff", "WAITING", "@now"],
    "hosts": ["hosts"],
    "export": ["export", "--format", "jsonl"],
    "export of lines of one status": ["export", "--format", "jsonl", "--where", "status=completed"],
    "export of instances": ["export", "--format", "jsonl", "--instances"],
    "export of Parquet": ["export", "--format", "parquet", "--out", "FILE"],
    "export of XES": ["export", "--format", "xes", "--all-events", "--out", "FILE"],
    "messages": ["messages"],
    "messages of each type": ["messages", "--tally"],
    "verify": ["verify"],
    "dead-letters list": ["dead-letters", "list"],
    "dead-letters show": ["dead-letters", "show", LETTER],
    "timers list": ["timers", "list"],
    "nonpersisted list": ["nonpersisted", "list"],
    "preflight": ["preflight", "examples.orders.app:app"],
    "projections list": ["projections", "list"],
    "replay": ["replay", "--app", "shop", "--to-queue", "lab", "--dry-run"],
    "replay of a projection's events": ["replay", "--app", f"{__name__}:SHOP", "--into", "sales", "--dry-run"],
    "replays list": ["replays", "list"],
    "projections scratches": ["projections", "scratches"],
    "projections skipped": ["projections", "skipped"],
}
CHANGING = {
    **{name: [name, "WAITING"] for name in ("suspend", "cancel", "terminate", "abandon", "persist", "unload")},
    "resume": ["resume", "SUSPENDED"],
    "fork": ["fork", "WAITING", "--at", "4", "--key", "other"],
    "resolve": ["resolve", "SUSPENDED", "--retry"],
    "dead-letters requeue": ["dead-letters", "requeue", LETTER, "--app", "shop"],
    "dead-letters drop": ["dead-letters", "drop", LETTER, "--app", "shop"],
    "timers reschedule": ["timers", "reschedule", "WAITING", TIMER, "--in", "2d"],
    "timers fire": ["timers", "fire", "WAITING", TIMER],
    "timers cancel": ["timers", "cancel", "WAITING", TIMER],
    "nonpersisted remove": ["nonpersisted", "remove", "NON_PERSISTED"],
    "replays remove": ["replays", "remove", "july"],
    "projections drop": ["projections", "drop", "past"],
    "projections resume": ["projections", "resume", "sales", "--app", "shop"],
    "projections skip": ["projections", "skip", "sales", "--app", "shop"],
    "retention apply": ["retention", "apply", "--app", "shop", "--inbox", "0s"],
}
OF_WORKERS_AND_OWNERS = {
    # They write by what they are for; "projections diff" only where it has to build what it compares.
    *("migrate", "worker", "activities", "project", "projections rebuild", "projections diff", "migrate-instances"),
    *("publish", "broker-config", "schemas export"),  # They know no database.
}


def commands(group: TyperGroup, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_every_command_is_looked_at_here() -> None:
    group = get_command(application.app)
    assert isinstance(group, TyperGroup)
    assert {*commands(group)} - OF_WORKERS_AND_OWNERS == {name.partition(" of ")[0] for name in (*LOOKING, *CHANGING)}


def give(world: World, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", world.url)
    names = {"WAITING": world.waiting, "SUSPENDED": world.suspended, "NON_PERSISTED": world.non_persisted}
    return application.main([str(names.get(argument, argument)) for argument in arguments])


@pytest.mark.parametrize("name", LOOKING)
def test_an_observer_may_give_every_command_that_looks(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    arguments = [str(file) if each == "FILE" else each for each in LOOKING[name]]
    assert give(world, arguments, monkeypatch) == 0, capfd.readouterr().err
    assert file.exists() == ("FILE" in LOOKING[name])


def test_an_observer_may_compare_a_projection_with_how_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    differ = 1
    assert give(world, ["projections", "diff", f"{__name__}:SHOP", "sales", "past", "live"], monkeypatch) == differ
    assert "chair" in capfd.readouterr().out


@pytest.mark.usefixtures("changes_nothing")
@pytest.mark.parametrize("name", CHANGING)
def test_an_observer_is_told_that_a_command_is_not_for_him(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert give(world, CHANGING[name], monkeypatch) == 1
    assert "permission denied for" in "".join(capfd.readouterr())


@pytest.mark.usefixtures("changes_nothing")
def test_an_observer_reads_every_table_and_view_and_writes_none(world: World) -> None:
    with psycopg.connect(world.url, autocommit=True) as connection:
        for name in relations(connection, "rv"):
            table = sql.Identifier("holdfast", name)
            connection.execute(sql.SQL("select * from {} limit 1").format(table))
            (column,) = connection.execute(
                "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and attidentity = ''",
                [f"holdfast.{name}"],
            ).fetchone() or ("",)
            statements = [
                sql.SQL("insert into {} default values").format(table),
                sql.SQL("update {} set {} = null").format(table, sql.Identifier(column)),
                sql.SQL("delete from {}").format(table),
                sql.SQL("select * from {} for update").format(table),
            ]
            if name in relations(connection, "r"):
                statements.append(sql.SQL("truncate {}").format(table))
            for statement in statements:
                with pytest.raises(psycopg.Error) as refused:
                    connection.execute(statement)
                # A view of groups has no rows to write, whoever asks.
                assert refused.value.sqlstate in (NOT_ALLOWED, "55000", "0A000"), (name, refused.value)
                assert name in relations(connection, "v") or refused.value.sqlstate == NOT_ALLOWED


@pytest.mark.usefixtures("changes_nothing")
def test_an_observer_runs_no_function_that_writes(world: World) -> None:
    values = {"text": "'holdfast'", "interval": "'0'", "boolean": "true", "bigint": "0", "uuid[]": "'{}'"}
    with psycopg.connect(world.url, autocommit=True) as connection:
        functions = connection.execute(
            """select p.proname, array(select format_type(t, null) from unnest(p.proargtypes) t)
            from pg_proc p
            where p.pronamespace = 'holdfast'::regnamespace
                and p.provolatile = 'v'
                and p.prorettype <> 'trigger'::regtype"""
        ).fetchall()
        assert {"discard", "remove_streams", "drop_schema"} <= {name for name, _ in functions}
        for name, types in functions:
            call = f"select holdfast.{name}({', '.join(values[kind] for kind in types)})"
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(call.encode())
            assert refused.value.sqlstate == NOT_ALLOWED, call
            assert "permission denied for" in str(refused.value)


IN_THE_WAY = {
    "a lock of its own": "select pg_advisory_lock(1)",
    "a lock for a transaction": "select pg_try_advisory_xact_lock(1, 2)",
    "a transaction id": "select pg_current_xact_id()",
    "the same by its older name": "select txid_current()",
    "a notification": "select pg_notify('holdfast_inbox', 'shop')",
    "a large object": "select lo_create(0)",
}


def test_an_observer_can_be_kept_from_standing_in_the_way_as_the_guide_says(database_url: str) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    (script,) = (block for block in re.findall(r"```sql\n(.*?)```", guide, re.DOTALL) if "advisory" in block)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(script.replace("holdfast_owner", "current_user").encode())
        connection.execute("set role holdfast_observer")
        for statement in (*IN_THE_WAY.values(), "create temporary table t (n int)"):
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(statement.encode())
            assert refused.value.sqlstate == NOT_ALLOWED, statement
        connection.execute("select * from holdfast.instances")
        connection.execute("set role holdfast_worker")
        for statement in IN_THE_WAY.values():
            connection.execute(statement.encode())


@pytest.mark.usefixtures("changes_nothing")
async def test_an_observer_who_would_have_to_build_something_to_compare_is_told_so_in_one_line(world: World) -> None:
    sales = type("Sales", (Started,), {"name": "sales"})
    changes = projecting.diff(app_with(sales), "sales", Settings(database_url=world.url), Cursor(0, 0, 0), "live")
    with pytest.raises(StorageError) as refused:
        await drain(changes)
    assert str(refused.value) == "the database failed: permission denied for table scratches"
