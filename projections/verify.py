"""Check the instance store against the log: refold every stream and compare.

The store is a cache of the log and never a second truth. Workers may run meanwhile: what is compared with
a row are the events up to the row's version, and these no longer change. Memory is bounded by a page of
instances and a chunk of events of each. Instances without a persistence point have no events and are passed over. Of
one that is discarded, the log is all there is: nothing is compared, and it must be closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.rows import dict_row, tuple_row

from holdfast.events.codec import decode
from holdfast.projections.instance import InstanceState, fold, initial
from holdfast.projections.snapshot import dumps, loads
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.errors import InstanceNotFound, StorageError, UnreadableEvent
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_PAGE = 100
_CHUNK = 500

_COLUMNS = (
    "workflow",
    "program_hash",
    "correlation_key",
    "execution_status",
    "outcome",
    "is_suspended",
    "suspension_reason",
    "suspension_exception_name",
    "subflow",
)
"""Columns of the row that are fields of the state under the same name."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the store holds (``stored``) where the log says ``folded``; ``what`` names the place."""

    what: str
    stored: object
    folded: object


@dataclass(frozen=True, slots=True)
class Checked:
    """One instance that was checked; all is well if there are no differences. ``events`` counts its events."""

    instance_id: UUID
    events: int
    differences: tuple[Difference, ...]


async def verify(
    connection: AsyncConnection[Any], *, app: str | None = None, instance_id: UUID | None = None
) -> AsyncIterator[Checked]:
    """Yield the result for every persisted instance, of one app if given, or for a single instance.

    Raises ``InstanceNotFound`` if the single instance does not exist or is not persisted.
    """
    after: UUID | None = None
    while True:
        async with connection.cursor(row_factory=dict_row, binary=True) as cursor:
            await cursor.execute(
                _SQL["stored"], {"instance_id": instance_id, "app": app, "after": after, "limit": _PAGE}
            )
            rows = await cursor.fetchall()
        streams = {row["instance_id"]: _Stream(row["version"]) for row in rows}
        await _run(connection, streams)
        for row in rows:
            stream = streams[row["instance_id"]]
            # What retention removed since its row was read is gone as a whole, and differs from nothing.
            if stream.broken is None or await _has_row(connection, row["instance_id"]):
                yield _compare(row, stream)
        if len(rows) < _PAGE:
            break
        after = rows[-1]["instance_id"]
    if instance_id is None or not rows:
        async for checked in _without_row(connection, app, instance_id):
            yield checked


async def _has_row(connection: AsyncConnection[Any], instance_id: UUID) -> bool:
    cursor = await connection.execute(_SQL["has_row"], {"instance_id": instance_id})
    return await cursor.fetchone() is not None


async def _without_row(
    connection: AsyncConnection[Any], app: str | None, instance_id: UUID | None
) -> AsyncIterator[Checked]:
    """Yield the streams that should have a row and have none; a single one that need not have one is in order."""
    cursor = await connection.execute(_SQL["without_row"], {"instance_id": instance_id, "app": app}, binary=True)
    found = await cursor.fetchall()
    if instance_id is not None and not found:
        raise InstanceNotFound(instance_id)
    for each, version, is_closed in found:
        yield Checked(each, version, () if is_closed else (Difference("row", None, "an instance that is not closed"),))


@dataclass(slots=True)
class _Stream:
    """A stream on its way to ``version``; ``broken`` says why it cannot get there."""

    version: int
    state: InstanceState = initial
    broken: str | None = None

    @property
    def has_more(self) -> bool:
        return self.state.version < self.version and self.broken is None


async def _run(connection: AsyncConnection[Any], streams: Mapping[UUID, _Stream]) -> None:
    """Fold all streams to their versions, a chunk of each at a time."""
    while left := {key: stream for key, stream in streams.items() if stream.has_more}:
        async with connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            await cursor.execute(
                _SQL["next_events"],
                {
                    "instance_ids": list(left),
                    "done": [stream.state.version for stream in left.values()],
                    "versions": [stream.version for stream in left.values()],
                    "limit": _CHUNK,
                },
            )
            chunks = {key: [*rows] for key, rows in groupby(await cursor.fetchall(), key=itemgetter(0))}
        for key, stream in left.items():
            _advance(stream, chunks.get(key, []))


def _advance(stream: _Stream, rows: Sequence[tuple[UUID, int, str, str]]) -> None:
    expected = range(stream.state.version + 1, stream.state.version + 1 + len(rows))
    if not rows or [version for _, version, _, _ in rows] != [*expected]:
        stream.broken = f"the log has a gap after version {stream.state.version}"
        return
    try:
        stream.state = fold([decode(name, data) for _, _, name, data in rows], stream.state)
    except UnreadableEvent as error:
        stream.broken = str(error)


def _compare(row: Mapping[str, Any], stream: _Stream) -> Checked:
    instance_id, version = row["instance_id"], row["version"]
    if stream.broken:
        return Checked(instance_id, stream.state.version, (Difference("log", version, stream.broken),))
    state = stream.state
    pairs = [
        ("version", version, row["last_version"] or 0),
        ("is_initialized", row["is_initialized"], version > 0),
        *((name, row[name], getattr(state, name)) for name in _COLUMNS),
        ("parent_id", row["parent_id"], state.parent and UUID(state.parent)),
        ("awaited_as", row["awaited_as"], state.awaited_as and UUID(state.awaited_as)),
        ("promoted", orjson.loads(row["promoted"] or "{}"), state.promoted),
        ("pending_timer", row["pending_timer"], _pending_timer(state)),
        ("bookmarks", _stored_bookmarks(row["bookmarks"]), _bookmarks(state)),
        *_snapshot(row["state"], row["state_encoding"], state),
    ]
    differences = tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])
    return Checked(instance_id, state.version, differences)


def _snapshot(
    stored: bytes | None, encoding: StateEncoding | None, state: InstanceState
) -> list[tuple[str, object, object]]:
    """Return what differs inside a snapshot, field by field, where its bytes are not those of the state."""
    if stored is None or encoding is None:
        return [("state", None, state)]
    wanted = dumps(state, encoding)
    if stored == wanted:
        return []
    try:
        found = loads(stored, encoding)
    except StorageError as error:
        return [("state", str(error), state)]
    pairs = [(f"state.{it.name}", getattr(found, it.name), getattr(state, it.name)) for it in fields(InstanceState)]
    return [pair for pair in pairs if pair[1] != pair[2]] or [("state", stored, wanted)]


_Place = tuple[str, str | None, str | None, datetime | None, int]


def _bookmarks(state: InstanceState) -> dict[str, _Place]:
    return {
        name: (mark.kind, mark.message_type, mark.correlation_key, _time(mark.due), mark.line)
        for name, mark in state.bookmarks.items()
    }


def _stored_bookmarks(rows: str) -> dict[str, _Place]:
    return {
        row["name"]: (row["kind"], row["message_type"], row["correlation_key"], _time(row["due"]), row["line"])
        for row in orjson.loads(rows)
    }


def _pending_timer(state: InstanceState) -> datetime | None:
    times = (_time(mark.due) for mark in state.bookmarks.values())
    return min((time for time in times if time is not None), default=None)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
