"""What the log on Postgres promises beyond the contract of all logs."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest

from holdfast.events.log import Append, Expected
from holdfast.events.postgres import _SQL, append, append_many, horizon_lag, read_all, read_stream
from holdfast.events.types import Event, InstanceCompleted, InstanceResumed
from holdfast.schemas.errors import StorageError, UnreadableEvent, WrongExpectedVersion

EVENTS: list[Event] = [InstanceResumed(by="ops")]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


async def wait_until_blocked(database_url: str, process_id: int) -> None:
    """Wait until a backend waits for a lock of another."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watcher:
        blockers: list[int] = []
        while not blockers:
            row = await (await watcher.execute("select pg_blocking_pids(%s)", [process_id])).fetchone()
            blockers = row[0] if row else []


async def test_a_writer_that_waited_for_another_looks_again(
    connection: psycopg.AsyncConnection, other: psycopg.AsyncConnection, database_url: str
) -> None:
    stream = uuid4()
    await append(connection, stream, Expected.NO_STREAM, EVENTS)
    waiting = asyncio.create_task(append(other, stream, Expected.NO_STREAM, EVENTS))
    await wait_until_blocked(database_url, other.info.backend_pid)
    await connection.commit()
    with pytest.raises(WrongExpectedVersion) as refused:
        await waiting
    assert refused.value.actual == 1
    await append(other, stream, 1, EVENTS)


async def test_a_writer_that_waited_for_one_who_gave_up_appends(
    connection: psycopg.AsyncConnection, other: psycopg.AsyncConnection, database_url: str
) -> None:
    stream = uuid4()
    await append(connection, stream, Expected.NO_STREAM, EVENTS)
    waiting = asyncio.create_task(append(other, stream, Expected.NO_STREAM, EVENTS))
    await wait_until_blocked(database_url, other.info.backend_pid)
    await connection.rollback()
    await waiting
    assert len([it async for it in read_stream(other, stream)]) == 1


async def test_a_race_inside_a_group_fails_the_group(
    connection: psycopg.AsyncConnection, other: psycopg.AsyncConnection, database_url: str
) -> None:
    stream = uuid4()
    group = [Append(instance_id=key, expected=0, events=EVENTS) for key in (uuid4(), stream)]
    await append(connection, stream, 0, EVENTS)
    waiting = asyncio.create_task(append_many(other, group))
    await wait_until_blocked(database_url, other.info.backend_pid)
    await connection.commit()
    with pytest.raises(StorageError, match="another writer appended"):
        await waiting
    await other.rollback()
    assert isinstance((await append_many(other, group))[1], WrongExpectedVersion)


async def test_a_transaction_in_another_database_holds_the_horizon_back(
    connection: psycopg.AsyncConnection, empty_database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database_url) as elsewhere:
        await elsewhere.execute("select pg_current_xact_id()")
        await append(connection, uuid4(), 0, EVENTS)
        await connection.commit()
        assert await read_all(connection) == ([], None)
        assert (await horizon_lag(connection)).events == 1
        await connection.commit()
    while (await horizon_lag(connection)).events:
        await connection.commit()
    assert len((await read_all(connection))[0]) == 1


async def test_one_group_is_one_transaction(connection: psycopg.AsyncConnection) -> None:
    group = [Append(instance_id=uuid4(), expected=0, events=EVENTS * 3) for _ in range(4)]
    await append_many(connection, group)
    row = await connection.execute(
        "select count(*), count(distinct xid), count(distinct position) from holdfast.events"
    )
    assert await row.fetchone() == (12, 1, 12)


async def test_any_text_survives(connection: psycopg.AsyncConnection) -> None:
    result = {"": "\u0000 \\u0000 \u2028 \U0001f9ed ' \" \\", "$": [1, -0.0, 2**63 - 1, 1e300, None]}
    stream = uuid4()
    await append(connection, stream, 0, [InstanceCompleted(result=result)], {"$": "\u0000"})
    (recorded,) = [it async for it in read_stream(connection, stream)]
    assert recorded.event == InstanceCompleted(result=result)
    assert recorded.metadata == {"$": "\u0000"}


async def test_an_event_of_a_later_version_is_named(connection: psycopg.AsyncConnection) -> None:
    stream = uuid4()
    await connection.execute(
        """insert into holdfast.events (instance_id, version, type, data, metadata)
        values (%s, 1, 'InstanceTeleported', '{}', '{}')""",
        [stream],
    )
    with pytest.raises(UnreadableEvent, match="InstanceTeleported"):
        [it async for it in read_stream(connection, stream)]


async def test_readers_of_the_whole_log_go_by_the_index(connection: psycopg.AsyncConnection) -> None:
    """The index gives the order; nothing is sorted, whatever the cursor is."""
    await append_many(connection, [Append(instance_id=uuid4(), expected=0, events=EVENTS * 20) for _ in range(100)])
    await connection.execute("analyze holdfast.events")
    parameters = {"epoch": 1, "xid": "3", "position": 0, "limit": 100}
    plan = await connection.execute(b"explain " + _SQL["read_all"], parameters)
    text = "\n".join(line for (line,) in await plan.fetchall())
    assert "events_in_commit_order" in text
    assert "Sort" not in text
