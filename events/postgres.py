"""The event log on Postgres: the adapter of ``EventLog`` whose connection is psycopg's.

See ``log.py`` for what it promises and ``sql/log.sql`` for how it keeps it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection, AsyncCursor
from psycopg.errors import UniqueViolation
from psycopg.rows import tuple_row

from holdfast.events.codec import decode, encode
from holdfast.events.log import Append, Expected, ExpectedVersion, HorizonLag, Page
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event
from holdfast.schemas.errors import StaleTransaction, StorageError, WrongExpectedVersion
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_PAGE = 1000
_LAST = (1 << 63) - 1
_START = Cursor(0, 0, 0)

_Columns = tuple[Any, ...]
"""One list for each column of the events of a page."""
_VERSIONS = 1
_Row = tuple[UUID, int, str, str, int, int, int, str, datetime]
_Answer = Cursor | WrongExpectedVersion | StaleTransaction


async def append_many(connection: AsyncConnection[Any], appends: Sequence[Append]) -> list[_Answer]:
    """Append to several streams in one statement; see ``EventLog.append_many``."""
    ordinals: list[int] = []
    indexes: list[int] = []
    types: list[str] = []
    data: list[str] = []
    metadata: list[str] = []
    for ordinal, append in enumerate(appends, 1):
        extra = orjson.dumps(append.metadata).decode()
        for index, event in enumerate(append.events, 1):
            name, text = encode(event)
            ordinals.append(ordinal)
            indexes.append(index)
            types.append(name)
            data.append(text.decode())
            metadata.append(extra)
    parameters = {
        "instance_ids": [append.instance_id for append in appends],
        "expected": [_number(append.expected) for append in appends],
        "ordinals": ordinals,
        "indexes": indexes,
        "types": types,
        "data": data,
        "metadata": metadata,
    }
    try:
        async with _cursor(connection) as cursor:
            await cursor.execute(_SQL["append_many"], parameters)
            rows = await cursor.fetchall()
    except UniqueViolation as error:
        raise StorageError("another writer appended to a stream of the group at the same time") from error
    return [_answer(append, row) for append, row in zip(appends, rows, strict=True)]


async def append(
    connection: AsyncConnection[Any],
    instance_id: UUID,
    expected: ExpectedVersion,
    events: Sequence[Event],
    metadata: Mapping[str, Any] | None = None,
) -> Cursor:
    """Append to one stream; see ``EventLog.append``.

    It runs under a savepoint: where another writer of the stream commits first, it looks again.
    """
    one = Append(instance_id=instance_id, expected=expected, events=events, metadata=metadata or {})
    while True:
        await connection.execute("savepoint holdfast_append")
        try:
            (answer,) = await append_many(connection, [one])
        except StorageError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
            await connection.execute("rollback to savepoint holdfast_append")
        else:
            await connection.execute("release savepoint holdfast_append")
            if isinstance(answer, Cursor):
                return answer
            raise answer


async def read_stream(
    connection: AsyncConnection[Any], instance_id: UUID, from_version: int = 1, to_version: int | None = None
) -> AsyncIterator[RecordedEvent]:
    """Yield the events of a stream, a page at a time; see ``EventLog.read_stream``."""
    last = _LAST if to_version is None else to_version

    async def page(before: _Columns | None) -> _Columns | None:
        start = from_version if before is None else before[_VERSIONS][-1] + 1
        if start > last or (before is not None and len(before[_VERSIONS]) < _PAGE):
            return None
        stretch = {"instance_id": instance_id, "from_version": start, "to_version": last, "limit": _PAGE}
        return await _columns(connection, "read_stream", stretch)

    async with aclosing(_pages(page)) as pages:
        async for columns in pages:
            for event in _read_columns(columns):
                yield event


async def read_all(
    connection: AsyncConnection[Any], after: Cursor | None = None, limit: int = _PAGE
) -> tuple[list[RecordedEvent], Cursor | None]:
    """Return the next events of the whole log; see ``EventLog.read_all``."""
    columns = await _columns(connection, "read_all", _stretch(after or _START, limit))
    events = [] if columns is None else _read_columns(columns)
    return events, events[-1].cursor if events else after


async def read_log(
    connection: AsyncConnection[Any], after: Cursor | None = None, limit: int = _PAGE
) -> AsyncGenerator[list[RecordedEvent], None]:
    """Yield the events of the whole log page by page; see ``EventLog.read_log``."""

    async def page(before: _Columns | None) -> _Columns | None:
        start = after or _START
        if before is not None:
            *_, epochs, xids, positions, _, _ = before
            start = Cursor(epochs[-1], xids[-1], positions[-1])
        return await _columns(connection, "read_all", _stretch(start, limit))

    async with aclosing(_pages(page)) as pages:
        async for columns in pages:
            yield _read_columns(columns)


async def read_page(
    connection: AsyncConnection[Any],
    after: Cursor | None = None,
    limit: int = _PAGE,
    *,
    app: str,
    types: Collection[str] | None = None,
) -> Page:
    """Return the events of an app among the next ones of the whole log; see ``EventLog.read_page``."""
    wanted = {"app": app, "types": None if types is None else list(types)}
    return page_of(await _columns(connection, "read_page", _stretch(after or _START, limit) | wanted), after)


def page_of(columns: _Columns | None, after: Cursor | None) -> Page:
    """Return the page that columns as of the statement ``read_page`` hold."""
    if columns is None or columns[0] is None:
        return Page(events=(), seen=0, cursor=after, recorded_at=None)
    _, seen, _, _, epoch, xid, position, _, recorded_at = [column.pop() for column in columns]
    return Page(events=_read_columns(columns), seen=seen, cursor=Cursor(epoch, xid, position), recorded_at=recorded_at)


async def horizon_lag(connection: AsyncConnection[Any]) -> HorizonLag:
    """Return how far the end of the log lies above the safe horizon."""
    async with _cursor(connection) as cursor:
        await cursor.execute(_SQL["horizon_lag"])
        row = await cursor.fetchone()
    events, seconds = row or (0, 0.0)
    return HorizonLag(events, seconds)


def _cursor(connection: AsyncConnection[Any]) -> AsyncCursor[Any]:
    return connection.cursor(row_factory=tuple_row, binary=True)


def _number(expected: ExpectedVersion) -> int:
    match expected:
        case Expected.ANY:
            return -1
        case Expected.STREAM_EXISTS:
            return -2
        case Expected.NO_STREAM:
            return 0
    return expected


def _answer(append: Append, row: tuple[int, bool, int, int, int | None]) -> _Answer:
    actual, as_expected, epoch, xid, position = row
    if position is not None:
        return Cursor(epoch, xid, position)
    if not as_expected:
        return WrongExpectedVersion(append.instance_id, expected=append.expected, actual=actual)
    return StaleTransaction(append.instance_id)


def _stretch(after: Cursor, limit: int) -> dict[str, Any]:
    return {"epoch": after.epoch, "xid": str(after.xid), "position": after.position, "limit": limit}


async def _columns(connection: AsyncConnection[Any], statement: str, stretch: dict[str, Any]) -> _Columns | None:
    """Return the events of a stretch as columns; None if there are none."""
    async with _cursor(connection) as cursor:
        await cursor.execute(_SQL[statement], stretch)
        columns: _Columns | None = await cursor.fetchone()
    return None if columns is None or columns[0] is None else columns


async def _pages(
    page: Callable[[_Columns | None], Coroutine[Any, Any, _Columns | None]],
) -> AsyncGenerator[_Columns, None]:
    """Yield pages, of which each is asked for with the one before it, up to the last.

    The server makes the next page while this one is decoded and gone through.
    """
    coming = asyncio.create_task(page(None))
    try:
        while (columns := await coming) is not None:
            coming = asyncio.create_task(page(columns))
            # The task begins, and asks for the page.
            await asyncio.sleep(0)
            yield columns
    finally:
        # Who stops early gets the connection back when it is free; cut off, the query would spoil the transaction.
        await asyncio.wait([coming])
        _ = coming.cancelled() or coming.exception()


def _read_columns(columns: _Columns) -> list[RecordedEvent]:
    return _read(zip(*columns, strict=True))


def _read(rows: Iterable[_Row]) -> list[RecordedEvent]:
    """Return the events that rows hold.

    They are trees, and they stay for a while: that Python looks among them for cycles meanwhile, again and again, takes
    longer than reading them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return [_recorded(row) for row in rows]
    finally:
        if was_enabled:
            gc.enable()


def _recorded(row: _Row) -> RecordedEvent:
    instance_id, version, name, data, epoch, xid, position, metadata, recorded_at = row
    return RecordedEvent(
        instance_id, version, decode(name, data), Cursor(epoch, xid, position), _metadata(metadata).copy(), recorded_at
    )


@lru_cache(maxsize=1000)
def _metadata(text: str) -> dict[str, Any]:
    """Return metadata as it was given: the same for all events of an append, so that it is read once, and copied."""
    metadata: dict[str, Any] = orjson.loads(text)
    return metadata
