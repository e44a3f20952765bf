"""SQL finds what the client finds: by the columns that ``docs/queries.md`` names, and by the queries that it shows."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from holdfast import Client
from tests.support.commands import ROOT
from tests.support.finding import DAY, five_orders

PAGE = (ROOT / "docs" / "queries.md").read_text()
(QUERIES,) = re.findall(r"^```sql\n(.*?);\n```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app="shop") as client:
        yield client


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def orders(connection: psycopg.AsyncConnection) -> list[UUID]:
    """Five orders, and something of all else that the page asks for; from then on an observer asks."""
    found = await five_orders(connection)
    await connection.execute(
        """insert into holdfast.inbox (app, message_id, type, correlation_key, digest, verdict)
        values ('shop', 'm-1', 'Paid', 'k', '', 'applied'), ('shop', 'm-2', 'Note', 'k', '', 'buffered')"""
    )
    await connection.execute("insert into holdfast.projections (app, name, version) values ('shop', 'sales', 1)")
    await connection.execute("set role holdfast_observer")
    return found


async def ask(
    connection: psycopg.AsyncConnection, query: str, parameters: dict[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode(), parameters)).fetchall()


async def ids(client: Client, **criteria: Any) -> list[UUID]:
    return [it.instance_id for it in await client.instances(**criteria)]


async def test_each_column_finds_what_the_criterion_beside_it_finds(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    waiting, suspended, paid = [(await client.instance(orders[place]))[0] for place in (1, 2, 3)]
    key, time, updated = waiting.correlation_key, suspended.creation_time, paid.last_updated_time
    columns: list[tuple[str, dict[str, Any]]] = [
        ("workflow = 'order'", {"workflow": "order"}),
        ("program_hash = 'p-2'", {"program_hash": "p-2"}),
        (f"correlation_key = '{key}'", {"correlation_key": key}),
        ("execution_status = 'idle'", {"execution_status": "idle"}),
        ("outcome = 'completed'", {"outcome": "completed"}),
        ("is_suspended", {"is_suspended": True}),
        ("not is_initialized", {"is_initialized": False}),
        ("is_completed", {"is_completed": True}),
        ("creation_time < now() - interval '2 days'", {"older_than": 2 * DAY}),
        ("creation_time > now() - interval '2 days'", {"younger_than": 2 * DAY}),
        (f"creation_time >= '{time}'", {"created_since": time}),
        (f"creation_time < '{time}'", {"created_before": time}),
        (f"is_completed and last_updated_time >= '{updated}'", {"is_completed": True, "updated_since": updated}),
        (f"is_completed and last_updated_time < '{updated}'", {"is_completed": True, "updated_before": updated}),
        ("""promoted @> '{"stage": 1}'""", {"promoted": {"stage": 1}}),
        ("'0:late' = any(active_bookmarks)", {"waits_at": "0:late"}),
    ]
    bookmarks: list[tuple[str, dict[str, Any]]] = [
        ("name = '0:late'", {"waits_at": "0:late"}),
        ("kind = 'timer'", {"waits_for_kind": "timer"}),
        (f"message_type = 'Paid' and correlation_key = '{key}'", {"waits_for": "Paid", "waits_for_key": key}),
    ]
    for table, conditions in (("instances", columns), ("bookmarks", bookmarks)):
        for condition, criteria in conditions:
            found = await ask(connection, f"select instance_id from holdfast.{table} where {condition}")  # noqa: S608
            wanted = await ids(client, **criteria)
            assert {it for (it,) in found} == {*wanted}, condition
            assert 0 < len(found) == len(wanted), condition


KEYSET = """
select instance_id, creation_time from holdfast.instances
where (creation_time, instance_id) < (%(time)s, %(id)s)
order by creation_time desc, instance_id desc limit 2
"""


async def test_keyset_pages_are_the_pages_of_the_client(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    # Created within one moment: their ids decide.
    await connection.execute("reset role")
    await connection.execute(
        """update holdfast.instance_rows set creation_time = (select min(creation_time) from holdfast.instance_rows)
        where instance_id = any(%s)""",
        [orders[:3]],
    )
    await connection.execute("set role holdfast_observer")
    (newest,) = await client.instances(limit=1)
    last, time, pages = newest.instance_id, newest.creation_time, []
    while page := await ask(connection, KEYSET, {"id": last, "time": time}):
        pages.append([it for it, _ in page])
        assert pages[-1] == await ids(client, older_than=timedelta(), after=last, limit=2)
        last, time = page[-1]
    assert pages == [[orders[3], orders[2]], [orders[1], orders[0]]]


async def test_the_queries_of_the_page_give_what_the_client_gives(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    (waiting, (_, bookmark)), (suspended, (_, other)) = [await client.instance(it) for it in orders[1:3]]
    words = {
        "'orders'": "'shop'",
        "7 days": "2 days",
        "order-17": waiting.correlation_key,
        "2026-01-31 12:00": f"{waiting.creation_time.astimezone(UTC):%F %T.%f}",
        "0199c1a2-0000-7000-8000-000000000000": f"{waiting.instance_id}",
        "PaymentReceived": "Paid",
        '"waiting"': "1",
    }
    assert [word for word in words if word not in QUERIES] == []
    asked = re.sub("|".join(words), lambda word: words[word[0]], QUERIES)
    given = [await ask(connection, query) for query in asked.split(";")]
    old = await client.instances(workflow="order", execution_status="idle", older_than=2 * DAY)
    behind = await client.instances(older_than=timedelta(), after=waiting)
    promoting = await client.instances(promoted={"stage": 1})
    living = Counter((it.workflow, it.program_hash) for it in await client.instances(is_completed=False))
    (registered,) = await client.non_persisted()
    (lag,) = await client.projections.lag()
    tally = await client.message_tally()
    aged, key, page, waits, promoted, counts, non_persisted, lags, messages = given
    assert aged == [(it.instance_id, it.correlation_key, list(it.active_bookmarks)) for it in old]
    assert key == [(waiting.instance_id, waiting.execution_status, waiting.outcome)]
    assert page == [(it.instance_id, it.creation_time) for it in behind]
    assert sorted(waits) == [
        (it.instance_id, open_.message_type, open_.opened_at) for it, open_ in ((waiting, bookmark), (suspended, other))
    ]
    assert sorted(promoted, reverse=True) == [(it.instance_id, it.promoted) for it in promoting]
    assert counts == [(*it, number) for it, number in living.items()]
    assert [(class_, number, age < registered.age) for class_, number, age in non_persisted] == [
        (registered.class_, 1, True)
    ]
    assert [(*row[:3], row[3] <= lag.time_behind) for row in lags] == [(lag.name, lag.build, lag.events_behind, True)]
    assert sorted(messages) == [(it.type, it.verdict, it.messages) for it in tally]
    assert all(given)
