"""While a projection is rebuilt, whoever reads its tables finds them whole, whatever transaction that is in."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection, IsolationLevel
from psycopg.errors import UndefinedTable
from structlog.testing import capture_logs

from holdfast import RebuildRefused
from holdfast.processor import projecting
from holdfast.projections.lag import Progress
from holdfast.schemas.settings import Settings
from tests.support.projections import (
    Started,
    app_with,
    catch_up,
    projector,
    rows,
    settle,
)
from tests.support.rebuilds import SCHEMAS, STARTED, Counted, fill, rebuild
from tests.support.workers import eventually


async def until_whole(rebuilding: AsyncIterator[Progress]) -> None:
    """Go on with a rebuild until it has come to the end of the log and has looked who is to end before the swap."""
    while (step := await anext(rebuilding)).position < step.end:
        pass
    await anext(rebuilding)


async def test_readers_never_see_a_half_built_table_while_events_keep_coming(database_url: str) -> None:
    class Slow(Started):
        name = "started"
        page = 100

    await fill(database_url, 3000)
    app = app_with(Slow)
    await catch_up(database_url, app)
    done = asyncio.Event()

    async def read() -> int:
        looks, last = 0, 3000
        async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
            while not done.is_set():
                cursor = await connection.execute("select sum(instances)::int from shop_started.started")
                row = await cursor.fetchone()
                assert row is not None
                # What was there before the rebuild is there all the time, and what was seen once stays.
                assert row[0] >= last
                looks, last = looks + 1, row[0]
        return looks

    async def publish() -> None:
        while not done.is_set():
            await fill(database_url, 7)

    async def follow() -> None:
        async with projector(database_url, app, projection_poll=0.01) as it:
            await it.run()

    readers = [asyncio.create_task(read()) for _ in range(2)]
    publishing = asyncio.create_task(publish())
    following = asyncio.create_task(follow())
    for _ in range(4):
        await rebuild(database_url, Slow)
    done.set()
    looks = await asyncio.gather(*readers)
    await publishing
    following.cancel()
    await asyncio.wait([following])
    await catch_up(database_url, app)
    assert rows(database_url, STARTED) == rows(database_url, "select count(*)::int from holdfast.events")
    assert min(looks) > 20


async def test_a_transaction_that_began_before_the_tables_were_whole_finds_the_old_ones(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    async with (
        asyncio.timeout(60),
        await AsyncConnection.connect(database_url) as older,
        await AsyncConnection.connect(database_url) as newer,
    ):
        for reader in (older, newer):
            await reader.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await older.execute("select 1")
        rebuilding = projecting.rebuild(app_with(Counted), "started", Settings(database_url=database_url))
        await until_whole(rebuilding)
        # It is whole, and could be promoted, but for the one that would not see it.
        await newer.execute("select 1")
        with capture_logs() as logs:
            for _ in range(3):
                await anext(rebuilding)
        (told,) = [it for it in logs if it["event"] == "built, and waits for older transactions"]
        assert told["pids"] == [older.info.backend_pid]
        assert await (await older.execute(STARTED)).fetchall() == [(1000,)]
        await older.rollback()
        _ = [step async for step in rebuilding]
        assert await (await newer.execute(STARTED)).fetchall() == [(2000,)]


async def test_a_first_build_waits_for_older_transactions_too(database_url: str) -> None:
    await fill(database_url, 1000)
    await settle(database_url)
    async with projector(database_url, app_with(Started)) as it, await AsyncConnection.connect(database_url) as older:
        await older.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await older.execute("select 1")
        running = asyncio.create_task(it.run())
        handled = "select handled::int from holdfast.projections where build = 'next'"
        await asyncio.to_thread(eventually, "it is whole", lambda: rows(database_url, handled) == [(1000,)])
        await fill(database_url, 1)
        await asyncio.to_thread(eventually, "it goes on", lambda: rows(database_url, handled) == [(1001,)])
        with pytest.raises(UndefinedTable):
            await older.execute(STARTED)
        await older.rollback()
        await asyncio.to_thread(eventually, "it is live", lambda: rows(database_url, SCHEMAS) == [("shop_started",)])
        running.cancel()
        await asyncio.wait([running])


async def test_a_reader_in_the_middle_of_a_transaction_is_not_cut_off(database_url: str) -> None:
    await fill(database_url, 10)
    await catch_up(database_url, app_with(Started))
    async with (
        asyncio.timeout(60),
        await AsyncConnection.connect(database_url) as older,
        await AsyncConnection.connect(database_url) as reader,
    ):
        await older.execute("declare hold cursor for select 1")
        rebuilding = projecting.rebuild(app_with(Counted), "started", Settings(database_url=database_url))
        await until_whole(rebuilding)
        await reader.execute("declare walk cursor for select * from shop_started.started")
        await older.rollback()
        _ = [step async for step in rebuilding]  # It does not wait for the reader; the old tables do.
        assert rows(database_url, STARTED) == [(20,)]
        found = await (await reader.execute("fetch all from walk")).fetchall()
        assert found == [("order", 10)]
        with pytest.raises(RebuildRefused, match="in schema shop_started__old, are still read in a transaction"):
            await rebuild(database_url, Counted)
    assert rows(database_url, SCHEMAS) == [("shop_started",), ("shop_started__old",)]
    # Once nobody reads them any more they go, without another rebuild.
    async with projector(database_url, app_with(Counted)) as it:
        running = asyncio.create_task(it.run())
        await asyncio.to_thread(eventually, "they are gone", lambda: rows(database_url, SCHEMAS) == [("shop_started",)])
        running.cancel()
        await asyncio.wait([running])
