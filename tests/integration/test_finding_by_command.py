"""Instances and messages found on the command line: each option finds what the criterion of that name finds."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any, LiteralString

import psycopg
import pytest
from typer.core import TyperGroup
from typer.main import get_command

from holdfast import Client
from holdfast.processor.cli import application, main
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.results import SubflowResult
from tests.support.commands import HOLDFAST
from tests.support.finding import CASES, add_many, five_orders
from tests.support.instances import PAID, WAITING, add_host, add_order, register
from tests.support.workers import environment

Printed = pytest.CaptureFixture[str]

OPTIONS = {
    "app": "--app",
    "workflow": "--workflow",
    "program_hash": "--program",
    "correlation_key": "--key",
    "older_than": "--older-than",
    "younger_than": "--younger-than",
    "created_since": "--created-since",
    "created_before": "--created-before",
    "updated_since": "--updated-since",
    "updated_before": "--updated-before",
    "waits_for": "--waits-for",
    "waits_for_key": "--waits-for-key",
    "waits_for_kind": "--waits-for-kind",
    "waits_at": "--waits-at",
    "sort": "--sort",
}
STATUSES: dict[str, dict[str, Any]] = {
    "executing": {"execution_status": "executing", "is_suspended": False, "is_initialized": True},
    "idle": {"execution_status": "idle", "is_suspended": False},
    "suspended": {"is_suspended": True},
    "nonpersisted": {"is_initialized": False},
    "living": {"is_completed": False},
    "closed": {"is_completed": True},
    **{it: {"outcome": it} for it in ("completed", "faulted", "cancelled", "terminated")},
}
MORE: list[dict[str, Any]] = [
    {"app": "shop"},
    {"app": "other"},
    {"correlation_key": "special"},
    {"correlation_key": "another"},
    {"waits_for": "Paid", "waits_for_key": "another"},
]
LIKE_THESE = {"--json", "--all", "--limit", "--after", "--count", "--database-url"}
"""Options that are about how instances are listed, and from where."""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def orders(connection: psycopg.AsyncConnection) -> None:
    """Orders of which each status finds others, and each kind of wait does."""
    _, waiting, suspended, *_ = await five_orders(connection)
    async with connection.transaction():
        host = await add_host(connection)
        await register(connection, app="other", key="special")
        executing = await add_order(connection, host, WAITING)
        await connection.execute(
            """update holdfast.instance_rows set execution_status = 'executing', lock_owner = %s
            where instance_id = %s""",
            [host, executing],
        )
        for outcome in ("faulted", "cancelled", "terminated"):
            ended = await add_order(connection, host, WAITING, PAID)
            await connection.execute(
                "update holdfast.instance_rows set outcome = %s where instance_id = %s", [outcome, ended]
            )
        for instance_id, name, kind, type_ in (
            (waiting, "0:again", "message", "Paid"),
            (waiting, "0:child", "child", SubflowResult.message_type),
            (suspended, "0:packed", "activity", ActivityResult.message_type),
        ):
            await connection.execute(
                """insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, line)
                values (%s, %s, 'shop', %s, %s, 'another', 1)""",
                [instance_id, name, kind, type_],
            )


def options(criteria: dict[str, Any]) -> list[str] | None:
    """Return the options that ask for criteria; None if what they say of the status is said by none."""
    given = []
    about_status = {}
    for name, value in criteria.items():
        if name in OPTIONS:
            given += [OPTIONS[name], as_text(value)]
        elif name == "promoted":
            given += [part for key, it in value.items() for part in ("--promoted", f"{key}={json.dumps(it)}")]
        elif name == "ascending":
            given.append("--ascending")
        else:
            about_status[name] = value
    if about_status:
        statuses = [status for status, meaning in STATUSES.items() if meaning == about_status]
        return [*given, "--status", *statuses] if statuses else None
    return given


def as_text(value: object) -> str:
    match value:
        case timedelta():
            return f"{value.total_seconds()}s"
        case datetime():
            return value.isoformat()
    return str(value)


async def lines(printed: Printed, *arguments: str) -> list[dict[str, Any]]:
    """Run a command and return the lines of JSON that it prints."""
    code = await asyncio.to_thread(main, arguments)
    out, err = printed.readouterr()
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def all_options(command: str) -> set[str]:
    group = get_command(application.app)
    assert isinstance(group, TyperGroup)
    return {option for parameter in group.commands[command].params for option in parameter.opts}


@pytest.mark.usefixtures("orders")
async def test_each_option_finds_what_its_criterion_finds(database_url: str, capsys: Printed) -> None:
    finding: set[str] = set()
    by_status: dict[str, tuple[str, ...]] = {}
    asked = [(criteria, options(criteria)) for criteria in [*(it for it, _ in CASES), *STATUSES.values(), *MORE]]
    for how, (criteria, given) in zip(cycle(["--json", "--all"]), asked, strict=False):
        if given is None:
            continue
        async with Client(database_url, app=criteria.get("app")) as client:
            wanted = [
                str(it.instance_id)
                for it in await client.instances(**{name: it for name, it in criteria.items() if name != "app"})
            ]
        found = await lines(capsys, "instances", "--database-url", database_url, how, *given)
        assert [it["instance_id"] for it in found] == wanted, given
        if wanted:
            finding |= {it for it in given if it.startswith("--")}
        if given[:1] == ["--status"] and len(given) == 2:
            by_status[given[1]] = tuple(wanted)
    assert finding == all_options("instances") - LIKE_THESE
    # What finds nothing, or the same as another one, could be taken for that.
    assert by_status.keys() == STATUSES.keys()
    assert len({*by_status.values()} - {()}) == len(STATUSES)


@pytest.mark.usefixtures("orders")
async def test_pages_and_counts_are_of_what_is_asked_for(database_url: str, capsys: Printed) -> None:
    asked = ("instances", "--database-url", database_url, "--workflow", "order", "--app", "shop", "--program", "p-1")
    found: list[str] = []
    while page := await lines(capsys, *asked, "--json", "--limit", "3", *(["--after", found[-1]] if found else [])):
        assert len(page) <= 3
        found += [it["instance_id"] for it in page]
    async with Client(database_url, app="shop") as client:
        wanted = await client.instances(workflow="order", program_hash="p-1")
    assert found == [str(it.instance_id) for it in wanted]
    counted = await lines(capsys, *asked, "--count", "--json")
    assert sum(it["instances"] for it in counted) == len(found)
    assert {(it["execution_status"], it["outcome"]) for it in counted} == {
        (it.execution_status, it.outcome) for it in wanted
    }


Listing = tuple[str, str, LiteralString]
ALL: list[Listing] = [
    ("instances", "instance_id", "select instance_id::text from holdfast.instance_rows order by instance_id desc"),
    ("messages", "message_id", "select message_id from holdfast.inbox order by sequence desc"),
]
"""Commands, the name of an id there, and the ids in the order in which they are printed."""


@pytest.mark.parametrize("listing", ALL, ids=lambda listing: listing[0])
async def test_all_of_several_pages_are_printed_once_each(
    connection: psycopg.AsyncConnection, database_url: str, capsys: Printed, listing: Listing
) -> None:
    command, name, ids = listing
    await add_many(connection, 1_020)
    found = await lines(capsys, command, "--all", "--database-url", database_url)
    there = await (await connection.execute(ids)).fetchall()
    assert [(it[name],) for it in found] == there
    assert len({*there}) == 1_020


@pytest.mark.parametrize("listing", ALL, ids=lambda listing: listing[0])
async def test_who_reads_only_the_beginning_of_all_gets_it_quietly(
    connection: psycopg.AsyncConnection, database_url: str, listing: Listing
) -> None:
    command, name, ids = listing
    await add_many(connection, 1_020)
    shell = ["sh", "-c", f"{HOLDFAST} {command} --all | head -1"]
    done = await asyncio.to_thread(
        subprocess.run, shell, env=environment(database_url, ""), capture_output=True, text=True, check=False
    )
    assert (json.loads(done.stdout)[name],) == await (await connection.execute(ids)).fetchone()
    assert done.stderr == ""
