"""The database says no: the log is append-only, and each role may do its part only."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

TABLES = (
    "attempts",
    "bookmarks",
    "cluster",
    "events",
    "heartbeats",
    "hosts",
    "inbox",
    "instance_rows",
    "instance_states",
    "message_tally_rows",
    "outbox",
    "programs",
    "projections",
    "replays",
    "schema_version",
    "scratches",
    "settings",
    "skipped_events",
    "tally_rows",
)
WRITTEN_BY_WORKERS = {
    "attempts",
    "bookmarks",
    "heartbeats",
    "hosts",
    "inbox",
    "instance_rows",
    "instance_states",
    "message_tally_rows",
    "outbox",
    "projections",
    "replays",
    "scratches",
    "skipped_events",
    "tally_rows",
}
APPENDED_BY_WORKERS = {"events", "programs"}

APPEND_ONLY = "HF001"
NOT_ALLOWED = "42501"

INSERT = """
    insert into holdfast.events (instance_id, version, type, data, metadata)
    values (gen_random_uuid(), 1, 'InstanceResumed', '{"by": "ops"}', '{}')
"""


@pytest.fixture
def connection(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_database_url) as connection:
        connection.execute(INSERT)
        yield connection
        connection.rollback()


def refuse(connection: psycopg.Connection, statement: str) -> str | None:
    """Run what the database must refuse, and return its SQLSTATE; the transaction goes on."""
    with pytest.raises(psycopg.Error) as refused, connection.transaction():
        connection.execute(statement.encode())
    return refused.value.sqlstate


@pytest.mark.parametrize("mode", ["origin", "replica"])
@pytest.mark.parametrize(
    "statement",
    [
        "update holdfast.events set type = 'InstanceCompleted'",
        "update holdfast.events set version = version",
        "delete from holdfast.events",
        "truncate holdfast.events",
    ],
)
def test_even_its_owner_cannot_change_the_log(connection: psycopg.Connection, statement: str, mode: str) -> None:
    connection.execute(b"set session_replication_role = " + mode.encode())
    assert refuse(connection, statement) == APPEND_ONLY
    assert connection.execute("select type, version from holdfast.events").fetchall() == [("InstanceResumed", 1)]


def test_an_insert_does_not_replace(connection: psycopg.Connection) -> None:
    again = """
        insert into holdfast.events (instance_id, version, type, data, metadata)
        select instance_id, version, 'InstanceCompleted', data, metadata from holdfast.events
        on conflict (instance_id, version) do update set type = excluded.type
    """
    assert refuse(connection, again) == APPEND_ONLY


def test_the_tables_named_here_are_all_there_are(connection: psycopg.Connection) -> None:
    found = connection.execute("select tablename from pg_tables where schemaname = 'holdfast' order by 1").fetchall()
    assert [name for (name,) in found] == list(TABLES)


@pytest.mark.parametrize("table", [*TABLES, "instances", "non_persisted"])
@pytest.mark.parametrize("role", ["holdfast_worker", "holdfast_observer"])
def test_both_roles_may_read_everything(connection: psycopg.Connection, role: str, table: str) -> None:
    connection.execute(b"set role " + role.encode())
    connection.execute(f"table holdfast.{table}".encode())


@pytest.mark.parametrize("table", TABLES)
def test_an_observer_writes_nothing(connection: psycopg.Connection, table: str) -> None:
    connection.execute("set role holdfast_observer")
    for statement in (
        "insert into holdfast.{} default values",
        "delete from holdfast.{}",
        "truncate holdfast.{}",
        "select * from holdfast.{} for update",
        "drop table holdfast.{}",
    ):
        assert refuse(connection, statement.format(table)) == NOT_ALLOWED


@pytest.mark.parametrize("table", sorted(set(TABLES) - WRITTEN_BY_WORKERS))
def test_a_worker_changes_nothing_that_is_kept_for_good(connection: psycopg.Connection, table: str) -> None:
    connection.execute("set role holdfast_worker")
    statements = ["delete from holdfast.{}", "truncate holdfast.{}"]
    if table != "programs":
        statements.append("select * from holdfast.{} for update")
    if table not in APPENDED_BY_WORKERS:
        statements.append("insert into holdfast.{} default values")
    for statement in statements:
        assert refuse(connection, statement.format(table)) == NOT_ALLOWED


@pytest.mark.parametrize("table", sorted(WRITTEN_BY_WORKERS))
def test_a_worker_writes_what_is_in_motion(connection: psycopg.Connection, table: str) -> None:
    connection.execute("set role holdfast_worker")
    for statement in ("select * from holdfast.{} for update", "delete from holdfast.{}"):
        connection.execute(statement.format(table).encode())
    for statement in ("truncate holdfast.{}", "drop table holdfast.{}"):
        assert refuse(connection, statement.format(table)) == NOT_ALLOWED


def test_a_worker_signs_a_program_and_changes_nothing_else_of_it(connection: psycopg.Connection) -> None:
    connection.execute("set role holdfast_worker")
    connection.execute("update holdfast.programs set signature = 'signed'")
    assert refuse(connection, "update holdfast.programs set program = '{}'") == NOT_ALLOWED


def test_a_worker_appends_to_the_log(connection: psycopg.Connection) -> None:
    connection.execute("set role holdfast_worker")
    connection.execute(INSERT)
    assert connection.execute("select count(*) from holdfast.events").fetchone() == (2,)


@pytest.mark.parametrize("role", ["holdfast_worker", "holdfast_observer"])
def test_no_role_changes_the_schema(connection: psycopg.Connection, role: str) -> None:
    connection.execute(b"set role " + role.encode())
    for statement in (
        "create table holdfast.more (id int)",
        "alter table holdfast.events disable trigger all",
        "drop function holdfast.refuse_change() cascade",
    ):
        assert refuse(connection, statement) == NOT_ALLOWED


def test_a_stranger_sees_nothing(connection: psycopg.Connection) -> None:
    name = f"holdfast_test_{uuid4().hex[:8]}".encode()
    connection.execute(b"create role " + name)
    connection.execute(b"set role " + name)
    assert refuse(connection, "select * from holdfast.events") == NOT_ALLOWED
