"""The event log in memory: the adapter of ``EventLog`` whose connection is a ``MemoryTransaction``.

It keeps what Postgres keeps, events as type and JSON text, and it isolates as Postgres does: a transaction
gets its id with its first append, its events are its own until it commits, and a second writer of the
same stream waits for the end of the first. It is made for one event loop.
"""

from __future__ import annotations

from asyncio import Lock
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from holdfast.events.codec import decode, encode
from holdfast.events.log import Append, Expected, ExpectedVersion, HorizonLag, Page
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event
from holdfast.schemas.errors import StaleTransaction, WrongExpectedVersion

_EPOCH = 1


@dataclass(frozen=True, slots=True)
class _Row:
    cursor: Cursor
    instance_id: UUID
    version: int
    type: str
    data: bytes
    metadata: bytes
    recorded_at: datetime

    def event(self) -> RecordedEvent:
        return RecordedEvent(
            instance_id=self.instance_id,
            version=self.version,
            event=decode(self.type, self.data),
            cursor=self.cursor,
            metadata=orjson.loads(self.metadata),
            recorded_at=self.recorded_at,
        )


@dataclass(slots=True, eq=False)
class MemoryTransaction:
    """A transaction on a ``MemoryEventLog``, which makes it; ``xid`` is None until it appends."""

    xid: int | None = None
    rows: list[_Row] = field(default_factory=list)
    held: dict[UUID, Lock] = field(default_factory=dict)


class MemoryEventLog:
    """The log of one process; ``now`` is its clock."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._streams: dict[UUID, list[_Row]] = {}
        self._committed: list[_Row] = []
        self._open: set[int] = set()
        self._writers: dict[UUID, Lock] = {}
        self._last_xid = 0
        self._last_position = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction: it commits when the body ends, and is dropped when the body raises."""
        transaction = MemoryTransaction()
        try:
            yield transaction
            for row in transaction.rows:
                self._streams.setdefault(row.instance_id, []).append(row)
            self._committed.extend(transaction.rows)
        finally:
            self._open.discard(transaction.xid or 0)
            for lock in transaction.held.values():
                lock.release()

    async def append(
        self,
        connection: MemoryTransaction,
        instance_id: UUID,
        expected: ExpectedVersion,
        events: Sequence[Event],
        metadata: Mapping[str, Any] | None = None,
    ) -> Cursor:
        one = Append(instance_id=instance_id, expected=expected, events=events, metadata=metadata or {})
        (answer,) = await self.append_many(connection, [one])
        if isinstance(answer, Cursor):
            return answer
        raise answer

    async def append_many(
        self, connection: MemoryTransaction, appends: Sequence[Append]
    ) -> list[Cursor | WrongExpectedVersion | StaleTransaction]:
        encoded = [(append, [encode(event) for event in append.events]) for append in appends]
        if connection.xid is None:
            self._last_xid += 1
            connection.xid = self._last_xid
            self._open.add(connection.xid)
        return [await self._append(connection, connection.xid, append, data) for append, data in encoded]

    async def _append(
        self, transaction: MemoryTransaction, xid: int, append: Append, encoded: Sequence[tuple[str, bytes]]
    ) -> Cursor | WrongExpectedVersion | StaleTransaction:
        instance_id = append.instance_id
        if instance_id not in transaction.held:
            lock = self._writers.setdefault(instance_id, Lock())
            await lock.acquire()
            transaction.held[instance_id] = lock
        head = next(self._newest_first(transaction, instance_id), None)
        actual = head.version if head else 0
        if not _matches(append.expected, actual):
            return WrongExpectedVersion(instance_id, expected=append.expected, actual=actual)
        if head and head.cursor.xid > xid:
            return StaleTransaction(instance_id)
        metadata = orjson.dumps(append.metadata)
        for version, (name, data) in enumerate(encoded, actual + 1):
            self._last_position += 1
            cursor = Cursor(_EPOCH, xid, self._last_position)
            transaction.rows.append(_Row(cursor, instance_id, version, name, data, metadata, self._now()))
        return transaction.rows[-1].cursor

    async def read_stream(
        self, connection: MemoryTransaction, instance_id: UUID, from_version: int = 1, to_version: int | None = None
    ) -> AsyncIterator[RecordedEvent]:
        for row in reversed([*self._newest_first(connection, instance_id)]):
            if row.version >= from_version and (to_version is None or row.version <= to_version):
                yield row.event()

    async def read_all(
        self,
        connection: MemoryTransaction,  # noqa: ARG002 - the port's argument: only committed events are read here
        after: Cursor | None = None,
        limit: int = 1000,
    ) -> tuple[list[RecordedEvent], Cursor | None]:
        events = [row.event() for row in self._below_horizon(after, limit)]
        return events, events[-1].cursor if events else after

    async def read_log(
        self, connection: MemoryTransaction, after: Cursor | None = None, limit: int = 1000
    ) -> AsyncGenerator[list[RecordedEvent], None]:
        while (page := await self.read_all(connection, after, limit))[0]:
            events, after = page
            yield events

    async def read_page(
        self,
        connection: MemoryTransaction,  # noqa: ARG002 - the port's argument: only committed events are read here
        after: Cursor | None = None,
        limit: int = 1000,
        *,
        app: str,
        types: Collection[str] | None = None,
    ) -> Page:
        rows = self._below_horizon(after, limit)
        last = rows[-1] if rows else None
        return Page(
            events=[
                row.event()
                for row in rows
                if (types is None or row.type in types) and orjson.loads(row.metadata).get("app") == app
            ],
            seen=len(rows),
            cursor=last.cursor if last else after,
            recorded_at=last.recorded_at if last else None,
        )

    async def horizon_lag(self, connection: MemoryTransaction) -> HorizonLag:
        horizon = self._horizon()
        above = [row for row in (*self._committed, *connection.rows) if row.cursor.xid >= horizon]
        if not above:
            return HorizonLag(0, 0.0)
        oldest = min(row.recorded_at for row in above)
        return HorizonLag(len(above), (self._now() - oldest).total_seconds())

    def _below_horizon(self, after: Cursor | None, limit: int) -> list[_Row]:
        horizon = self._horizon()
        rows = (row for row in self._committed if row.cursor.xid < horizon and (after is None or row.cursor > after))
        return sorted(rows, key=lambda row: row.cursor)[:limit]

    def _horizon(self) -> int:
        return min(self._open, default=self._last_xid + 1)

    def _newest_first(self, transaction: MemoryTransaction, instance_id: UUID) -> Iterator[_Row]:
        yield from (row for row in reversed(transaction.rows) if row.instance_id == instance_id)
        yield from reversed(self._streams.get(instance_id, []))


def _matches(expected: ExpectedVersion, actual: int) -> bool:
    match expected:
        case Expected.ANY:
            return True
        case Expected.STREAM_EXISTS:
            return actual > 0
        case Expected.NO_STREAM:
            return actual == 0
    return actual == expected
