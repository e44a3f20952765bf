"""The next page of the log is read while the one before it is handled."""

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from holdfast.processor.services.reading_ahead import ReadingAhead
from holdfast.processor.store.connections import Connections
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import read
from holdfast.schemas.errors import StorageError
from tests.support.projections import Started, app_with, start, write

PAGE = 3


class Paged(Started):
    name = "started"
    page = PAGE


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[Connections]:
    connections = Connections(database_url, limit=2)
    yield connections
    await connections.close()


@pytest.fixture
def subscription() -> Subscription:
    return app_with(Paged).subscriptions[0]


async def closed(url: str) -> AsyncConnection:
    connection = await AsyncConnection.connect(url)
    await connection.close()
    return connection


async def test_pages_are_those_that_are_read_one_by_one(
    database_url: str, connections: Connections, subscription: Subscription
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await write(connection, [[start("order")] for _ in range(2 * PAGE + 1)])
        ahead, cursor = ReadingAhead(connections), None
        for seen in (PAGE, PAGE, 1, 0):
            expected = await read(connection, subscription, cursor, PAGE)
            page = await ahead.read(connection, subscription, cursor, PAGE)
            assert (page.seen, page.cursor, page.events) == (seen, expected.cursor, expected.events)
            cursor = page.cursor
        await ahead.close()


async def test_the_page_behind_one_that_was_full_needs_no_connection_of_the_one_who_asks(
    database_url: str, connections: Connections, subscription: Subscription
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await write(connection, [[start("order")] for _ in range(2 * PAGE)])
        ahead = ReadingAhead(connections)
        first = await ahead.read(connection, subscription, None, PAGE)
    page = await ahead.read(await closed(database_url), subscription, first.cursor, PAGE)
    assert page.seen == PAGE
    await ahead.close()


@pytest.mark.parametrize("limit", [PAGE, 1])
async def test_a_page_that_was_not_asked_for_is_let_go_of(
    database_url: str, connections: Connections, subscription: Subscription, limit: int
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await write(connection, [[start("order")] for _ in range(3 * PAGE)])
        ahead = ReadingAhead(connections)
        first = await ahead.read(connection, subscription, None, PAGE)
        # Another process has gone on meanwhile, or an event of the first page is to blame for something.
        start_ = None if limit == PAGE else first.cursor
        page = await ahead.read(connection, subscription, start_, limit)
        expected = await read(connection, subscription, start_, limit)
        assert (page.cursor, page.seen) == (expected.cursor, limit)
        await ahead.close()


async def test_what_fails_while_reading_ahead_is_raised_where_it_is_asked_for(
    database_url: str, connections: Connections, subscription: Subscription
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await write(connection, [[start("order")] for _ in range(PAGE)])
        ahead = ReadingAhead(connections)
        await connections.close()
        first = await ahead.read(connection, subscription, None, PAGE)
        with pytest.raises(StorageError, match="closed"):
            await ahead.read(connection, subscription, first.cursor, PAGE)
        again = await ahead.read(connection, subscription, first.cursor, PAGE)
        assert again.seen == 0
