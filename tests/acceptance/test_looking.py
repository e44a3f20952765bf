"""``holdfast explain``, ``messages`` and ``timers`` as a user meets them, on a database that no worker is at."""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from holdfast import Client
from holdfast.events.types import Persisted
from tests.support.commands import holdfast
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order
from tests.support.workers import environment

Run = Callable[..., str]

MESSAGE = """
    insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, received_at, verdict, reason)
    values ('shop', %s, %s, %s, '{}', '', %s, %s, %s)
"""


BATCHES = ((WAITING,), (WAITING,), (WAITING, SUSPENDED))
"""What three orders have lived through."""


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command that succeeds, and return what it prints."""

    def run(*arguments: str) -> str:
        done = holdfast(*arguments, env=environment(database_url, ""))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


async def key_of(connection: psycopg.AsyncConnection, instance_id: UUID) -> str:
    cursor = await connection.execute(
        "select correlation_key from holdfast.instance_rows where instance_id = %s", [instance_id]
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


async def test_a_waiting_instance_is_explained(database_url: str, run: Run) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        instance_id = await add_order(connection, await add_host(connection), WAITING)
        await connection.execute("update holdfast.hosts set lease_expiration = now() - interval '1 s'")
        key = await key_of(connection, instance_id)
        await connection.execute(MESSAGE, ["m-1", "Paid", f" {key.upper()}", "2026-01-01", "buffered", None])
    printed = run("explain", str(instance_id))
    assert re.search(r"^status +idle$", printed, re.MULTILINE)
    assert re.search(r"^workers alive +0 of app shop$", printed, re.MULTILINE)
    assert re.search(rf"^  0:paid: Paid with key {key}, since .+, line 11$", printed, re.MULTILINE)
    assert f"  a Paid with key '{key}', to exchange holdfast.shop\n" in printed
    assert "  first of all a worker of the app shop: none is alive\n" in printed
    assert f"  another key that looks alike: Paid m-1 with key ' {key.upper()}', buffered" in printed
    (document,) = lines(run("explain", str(instance_id), "--json"))
    assert document["instance"]["instance_id"] == str(instance_id)
    assert [wait["kind"] for wait in document["waits"]] == ["timer", "message"]
    assert [way["by"] for way in document["ways"]] == ["timer", "message", "worker"]
    assert [miss["message_id"] for miss in document["near_misses"]] == ["m-1"]


async def test_a_suspended_instance_is_explained_with_the_command_that_lets_it_go_on(
    database_url: str, run: Run
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        instance_id = await add_order(connection, await add_host(connection), WAITING, SUSPENDED)
    printed = run("explain", str(instance_id))
    assert re.search(r"^status +suspended, because of ValueError$", printed, re.MULTILINE)
    assert f"  holdfast resume {instance_id}, once the cause is mended\n" in printed
    assert "a worker that can run its program" in printed


async def test_messages_are_listed_counted_and_paged(database_url: str, run: Run) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for number, (verdict, reason) in enumerate(
            [("applied", None), ("buffered", None), ("rejected", "completed"), ("dead_lettered", "not_json")]
        ):
            message = [f"m-{number}", "Paid", "k", f"2026-01-0{number + 1}T00:00:00Z", verdict, reason]
            await connection.execute(MESSAGE, message)
    found = lines(run("messages", "--json"))
    assert [it["message_id"] for it in found] == ["m-3", "m-2", "m-1", "m-0"]
    page = run("messages", "--limit", "2", "--after", str(found[0]["sequence"]), "--json")
    assert lines(page) == found[1:3]
    assert lines(run("messages", "--verdict", "dead_lettered", "--json")) == found[:1]
    assert lines(run("messages", "--since", "2026-01-03T00:00:00+00:00", "--type", "Paid", "--json")) == found[:2]
    assert re.search(r"^\d+ +m-2 +message +Paid +k +rejected +completed", run("messages", "--key", "k"), re.MULTILINE)
    assert [re.split("  +", line) for line in run("messages", "--count").splitlines()] == [
        ["app", "kind", "verdict", "reason", "messages"],
        ["shop", "message", "applied", "1"],
        ["shop", "message", "buffered", "1"],
        ["shop", "message", "dead_lettered", "not_json", "1"],
        ["shop", "message", "rejected", "completed", "1"],
    ]
    printed = run("messages", "--tally", "--app", "shop", "--type", "Paid")
    assert [re.split("  +", line) for line in printed.splitlines()] == [
        ["app", "type", "verdict", "messages"],
        ["shop", "Paid", "applied", "1"],
        ["shop", "Paid", "buffered", "1"],
        ["shop", "Paid", "dead_lettered", "1"],
        ["shop", "Paid", "rejected", "1"],
    ]
    assert lines(run("messages", "--tally", "--verdict", "applied", "--json")) == [
        {"app": "shop", "type": "Paid", "verdict": "applied", "messages": 1}
    ]


async def test_timers_are_listed_the_next_one_first(database_url: str, run: Run) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        later, sooner, held = [await add_order(connection, host, *batches) for batches in BATCHES]
        for instance_id, due in ((later, "2126-01-02"), (sooner, "2026-01-01"), (held, "2026-01-02")):
            await connection.execute(
                "update holdfast.bookmarks set due = %s where instance_id = %s and kind = 'timer'", [due, instance_id]
            )
    found = lines(run("timers", "list", "--json"))
    assert [(it["instance_id"], it["is_due"], it["is_suspended"]) for it in found] == [
        (str(sooner), True, False),
        (str(held), True, True),
        (str(later), False, False),
    ]
    assert lines(run("timers", "list", "--before", "2026-01-02T12:00:00Z", "--json")) == found[:2]
    assert lines(run("timers", "list", "--instance", str(later), "--json")) == found[2:]
    assert [re.split("  +", line)[4:] for line in run("timers", "list").splitlines()] == [
        ["bookmark", "line", "state"],
        ["0:late", "11", "due"],
        ["0:late", "11", "held back, suspended"],
        ["0:late", "11"],
    ]
    async with Client(database_url, app="shop") as client:
        first = await client.timers(limit=1)
        rest = await client.timers(after=first[0])
    assert [str(it.instance_id) for it in first + rest] == [it["instance_id"] for it in found]


async def test_what_is_over_is_counted_and_then_removed(database_url: str, run: Run) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        closed, waiting = await add_order(connection, host, WAITING, PAID), await add_order(connection, host, WAITING)
        await connection.execute(MESSAGE, ["m-1", "Paid", "k", "2026-01-01", "applied", None])
    nothing = dict.fromkeys(("dead_letters", "attempts", "heartbeats", "programs"), 0)
    expected = {"instances": 1, "streams": 0, "events": 0, "messages": 1, **nothing}
    ages = ("--app", "shop", "--instances", "0s", "--inbox", "30d")
    assert lines(run("retention", "apply", *ages, "--dry-run", "--json")) == [{**expected, "dry_run": True}]
    assert {it["instance_id"] for it in lines(run("instances", "--json"))} == {str(closed), str(waiting)}
    assert re.search(r"^instances +1$", run("retention", "apply", *ages), re.MULTILINE)
    (left,) = lines(run("instances", "--json"))
    assert (left["instance_id"], left["state_encoding"]) == (str(waiting), "none")
    assert lines(run("messages", "--json")) == []
    shown = run("show", str(closed))
    assert re.search(r"^kept +its history alone$", shown, re.MULTILINE)
    assert re.search(r"^status +completed$", shown, re.MULTILINE)
    (document,) = lines(run("show", str(closed), "--json"))
    assert (document["is_discarded"], document["partition"], document["subflows"]) == (True, None, [])
    assert "nothing: it is closed" in run("explain", str(closed))
    assert len(lines(run("history", str(closed), "--json"))) == 7
    run("verify")
    (counted,) = lines(run("retention", "apply", "--streams", "0s", "--json"))
    assert (counted["streams"], counted["events"]) == (1, 7)
    done = holdfast("show", str(closed), env=environment(database_url, ""))
    assert done.returncode == 1
    assert holdfast("retention", "apply", env=environment(database_url, "")).returncode == 2


async def test_instances_are_found_by_promoted_values_of_a_type(database_url: str, run: Run) -> None:
    promoted = {"items": 3, "stage": "waiting", "code": "3"}
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        found = await add_order(connection, host, WAITING, [Persisted(reason="checkpoint", promoted=promoted)])
        await add_order(connection, host, WAITING)
    for given, is_found in (
        ("items=3", True),
        ('items="3"', False),
        ("stage=waiting", True),
        ('stage="waiting"', True),
        ("code=3", False),
        ('code="3"', True),
    ):
        listed = lines(run("instances", "--promoted", given, "--json"))
        assert [it["instance_id"] for it in listed] == ([str(found)] if is_found else [])
    both = lines(run("instances", "--promoted", "items=3", "--promoted", "stage=gone", "--json"))
    assert both == []
    assert re.search(r"^  stage = \"waiting\"$", run("show", str(found)), re.MULTILINE)
    assert holdfast("instances", "--promoted", "items", env=environment(database_url, "")).returncode == 2
