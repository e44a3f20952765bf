"""Instances found by each thing that is known of them, in pages and one by one, while they change."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast import Client
from holdfast.processor import finding
from holdfast.projections import queries
from holdfast.projections.queries import Instance
from holdfast.schemas.errors import InstanceNotFound, InvalidQuery
from tests.support.finding import CASES, DAY, NOW, add_many, five_orders
from tests.support.instances import register


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


@pytest.fixture
async def orders(connection: psycopg.AsyncConnection) -> list[UUID]:
    return await five_orders(connection)


@pytest.mark.parametrize("size", [1, 100])
async def test_every_criterion_finds_what_fits_in_pages_of_any_size(
    client: Client, orders: list[UUID], size: int
) -> None:
    for criteria, expected in CASES:
        found: list[Instance] = []
        while page := await client.instances(**criteria, limit=size, after=found[-1] if found else None):
            found += page
        assert [it.instance_id for it in found] == [orders[place] for place in expected], criteria


async def test_keys_of_both_kinds_find_one_instance(client: Client, orders: list[UUID]) -> None:
    waiting, _ = await client.instance(orders[1])
    key = waiting.correlation_key
    assert await client.instances(correlation_key=key) == [waiting]
    assert await client.instances(waits_for="Paid", waits_for_key=key) == [waiting]
    async with Client(client._database_url, app="shop") as shop, Client(client._database_url, app="other") as other:
        for criteria in ({"correlation_key": key}, {"waits_for": "Paid", "waits_for_key": key}):
            assert await shop.instances(**criteria) == [waiting]  # type: ignore[arg-type]  # They are criteria.
            assert await other.instances(**criteria) == []  # type: ignore[arg-type]  # They are criteria.
        assert len(await shop.instances()) == 5
        assert await other.instances() == []


async def test_a_page_begins_behind_an_instance_of_which_only_the_id_is_known(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    for criteria, expected in CASES:
        if len(expected) > 1:
            page = await client.instances(**criteria, after=orders[expected[0]])
            assert [it.instance_id for it in page] == [orders[place] for place in expected[1:]], criteria
    gone = uuid4()
    assert isinstance(await client.instances(after=gone), list)
    with pytest.raises(InstanceNotFound):
        await client.instances(older_than=DAY, after=gone)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"worklow": "order"}, "there is no criterion 'worklow'"),
    ({"execution_status": "happy"}, "execution_status is one of executing, idle, closed, not 'happy'"),
    ({"outcome": "won"}, "outcome is one of completed, faulted, cancelled, terminated, not 'won'"),
    ({"waits_for_kind": "luck"}, "waits_for_kind is one of message, timer, child, activity, not 'luck'"),
    ({"created_since": datetime(2026, 1, 1)}, "created_since is a moment with an offset from UTC"),  # noqa: DTZ001 It is so.
    ({"older_than": -DAY}, "older_than is an age, which is not negative"),
    ({"waits_for_key": "k"}, "give its type too, as waits_for"),
    ({"waits_for_kind": "timer", "waits_for": "Paid"}, "a timer is no message"),
    ({"sort": "size"}, "instances are sorted by created or updated, not by 'size'"),
    ({"sort": "updated"}, "sort=updated is for instances that have ended, give is_completed=True or an outcome"),
    ({"updated_since": NOW}, "updated_since is for instances that have ended"),
    ({"limit": 0}, "a page has one instance at least, not 0"),
]


@pytest.mark.parametrize(("criteria", "sentence"), REFUSED)
async def test_what_means_nothing_is_refused_in_one_sentence(
    client: Client, criteria: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidQuery) as refused:
        await client.instances(**criteria)
    assert sentence in str(refused.value)


async def test_an_instance_with_two_bookmarks_of_a_type_is_found_once(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    await connection.execute(
        """insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, line)
        values (%s, '0:again', 'shop', 'message', 'Paid', 'another', 1)""",
        [orders[1]],
    )
    assert [it.instance_id for it in await client.instances(waits_for="Paid")] == [orders[2], orders[1]]
    found = await client.instances(waits_for="Paid", waits_for_key="another")
    assert [it.instance_id for it in found] == [orders[1]]


async def test_a_value_that_only_old_instances_promote_is_found_behind_those_looked_through(
    client: Client, orders: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_FEW", 1)
    for size in (1, 2, 3):
        page = await client.instances(promoted={"stage": 1}, limit=size)
        assert [it.instance_id for it in page] == [orders[3], orders[2], orders[1]][:size]


async def test_pages_stay_whole_while_instances_come_go_and_change(
    client: Client, connection: psycopg.AsyncConnection, orders: list[UUID]
) -> None:
    first = await client.instances(limit=2)
    came = await register(connection)  # Newer than all: on a page that is past.
    await connection.execute("update holdfast.settings set removal_age = '0'")
    await connection.execute("update holdfast.instance_rows set lock_owner = null, is_suspended = true")
    await connection.execute("delete from holdfast.instances where instance_id = %s", [orders[0]])
    rest = [it async for it in client.every_instance()]
    second = await client.instances(limit=10, after=first[-1])
    assert [it.instance_id for it in first + second] == [orders[4], orders[3], orders[2], orders[1]]
    assert [it.instance_id for it in rest] == [came, orders[4], orders[3], orders[2], orders[1]]


async def test_all_come_one_by_one_and_no_more_than_a_page_is_under_way(
    client: Client, connection: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PAGE", 50)
    await add_many(connection, 1_020)
    pages: list[int] = []
    look = queries._all

    async def watched(*arguments: Any, **parameters: Any) -> list[Any]:
        rows = await look(*arguments, **parameters)
        pages.append(len(rows))
        return rows

    monkeypatch.setattr(queries, "_all", watched)
    seen = []
    async for instance in client.every_instance(workflow="order"):
        seen.append(instance.instance_id)
        assert sum(pages) - len(seen) < 50
    assert len({*seen}) == len(seen) == 1_020
    assert max(pages) == 50

    messages = [it.sequence async for it in client.every_message(type="Paid")]
    assert messages == sorted({*messages}, reverse=True)
    assert len(messages) == 1_020


async def busy(connection: psycopg.AsyncConnection) -> int:
    """Return how many other connections to this database are not idle: in a transaction, or at work."""
    cursor = await connection.execute(
        """select count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
            and state <> 'idle'"""
    )
    return int((await cursor.fetchone() or (0,))[0])


async def test_who_stops_early_leaves_no_connection_taken(client: Client, connection: psycopg.AsyncConnection) -> None:
    await add_many(connection, 1_200)
    streams = [client.every_instance() for _ in range(10)] + [client.every_message() for _ in range(10)]
    for stream in streams:
        await anext(stream)  # More of them than the client has connections, and none is waited for.
    assert len(client._connections._idle) <= 4
    assert await busy(connection) == 0
    async with asyncio.timeout(60):
        assert len(await client.instances(limit=1)) == 1
