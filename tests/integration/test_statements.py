"""Every SQL statement of the tree, as the server reads it."""

import re
from pathlib import Path

import psycopg
import pytest

import holdfast
from holdfast import Durations, Overview, Variants
from holdfast.schemas.postgres.statements import load, parse

ROOT = Path(holdfast.__file__).parent
PACKAGES = sorted(
    ".".join(("holdfast", *folder.parent.relative_to(ROOT.parent).parts))
    for part in ("schemas", "events", "projections", "processor")
    for folder in ROOT.parent.joinpath(part).rglob("sql")
)
STATEMENTS = [(package, name) for package in PACKAGES for name in load(package)]

_PREPARED = re.compile(r"(--.*\n|\s)*(select|insert|update|delete|merge|with|values)\b")
_PARAMETER = re.compile(r"%%|%\((\w+)\)[sbt]")


def numbered(statement: str) -> str:
    """Return a statement with the server's own parameters, `$1`, in place of psycopg's."""
    numbers: dict[str, int] = {}

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        return "%" if name is None else f"${numbers.setdefault(name, len(numbers) + 1)}"

    return _PARAMETER.sub(replace, statement)


@pytest.mark.parametrize(("package", "name"), STATEMENTS)
def test_the_server_understands_it(shared_database_url: str, package: str, name: str) -> None:
    statement = numbered(load(package)[name].decode())
    with psycopg.connect(shared_database_url) as connection:
        if package == "holdfast.projections.builtin":  # These are about tables that each projection makes for itself.
            for kind in (Durations, Overview, Variants):
                if kind.create != load(package)[name].decode():
                    connection.execute(kind.create.encode())
        if _PREPARED.match(statement):
            connection.execute(f"prepare it as {statement}".encode())
        else:  # What the server does not prepare, such as `commit`, it can do here and now.
            connection.execute("savepoint holdfast_mark")
            connection.execute(statement.encode())
        connection.rollback()


def test_there_are_statements() -> None:
    assert {"holdfast.schemas.postgres", "holdfast.events", "holdfast.projections"} <= set(PACKAGES)


def test_a_file_is_cut_at_its_headings() -> None:
    text = "-- name: one\n-- Why.\nselect 1;\n\n-- name: two\nselect ';'\n"
    assert parse(text) == [("one", "-- Why.\nselect 1"), ("two", "select ';'")]


def test_what_statements_have_in_common_stands_once() -> None:
    text = "-- part: a\n1, 2\n\n-- part: b\n-- a\n, 3\n\n-- name: one\nselect\n    -- b\n-- a bit more\n;\n"
    assert parse(text) == [("one", "select\n1, 2\n, 3\n-- a bit more\n")]


def test_sql_under_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="SQL stands under no name: 'select 1"):
        parse("select 1;\n-- name: two\nselect 2;\n")
