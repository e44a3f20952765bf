"""The views are documented where they are: in the database, and on a page whose queries run."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.architecture.house import ROOT

PAGE = (ROOT / "docs" / "queries.md").read_text()
QUERIES = [
    query
    for block in re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for query in block.split(";")
    if query.strip()
]


@pytest.fixture
def connection(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_database_url) as connection:
        yield connection
        connection.rollback()


def test_what_keeps_its_columns_has_a_comment_on_each_of_them(connection: psycopg.Connection) -> None:
    found = connection.execute(
        """select c.relname, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class')
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'holdfast'::regnamespace and (c.relkind = 'v' or c.relname = 'bookmarks')"""
    ).fetchall()
    assert {view for view, *_ in found} >= {"instances", "bookmarks", "non_persisted", "tally", "projection_lag"}
    assert [(view, column) for view, column, text, _ in found if not text] == []
    assert {view for view, _, _, text in found if not text} == set()


def test_the_table_of_bookmarks_keeps_its_columns_as_the_page_promises(connection: psycopg.Connection) -> None:
    assert "the table `holdfast.bookmarks` as the views do" in PAGE
    columns = connection.execute("select * from holdfast.bookmarks").description or ()
    promised = ("instance_id", "name", "app", "kind", "message_type", "correlation_key", "due", "line", "opened_at")
    assert tuple(it.name for it in columns)[: len(promised)] == promised


def test_every_table_has_a_comment(connection: psycopg.Connection) -> None:
    found = connection.execute(
        """select relname from pg_class
        where relnamespace = 'holdfast'::regnamespace and relkind = 'r' and relname <> 'schema_version'
            and obj_description(oid, 'pg_class') is null"""
    ).fetchall()
    assert found == []


def test_every_view_is_on_the_page(connection: psycopg.Connection) -> None:
    views = connection.execute(
        "select relname from pg_class where relnamespace = 'holdfast'::regnamespace and relkind = 'v'"
    ).fetchall()
    assert [view for (view,) in views if f"holdfast.{view}" not in PAGE] == []


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_of_the_page_run_for_an_observer(connection: psycopg.Connection, query: str) -> None:
    connection.execute("set role holdfast_observer")
    connection.execute(query.encode())
