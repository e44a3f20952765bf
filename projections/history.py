"""One instance through time: what happened to it, at which lines, what that changed, and its state at any version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from holdfast.events.postgres import read_stream
from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import (
    CancelRequested,
    Event,
    InstanceAbandoned,
    InstanceCompleted,
    InstanceContinued,
    InstanceForked,
    InstanceMigrated,
    InstanceResumed,
    InstanceStarted,
    InstanceTerminated,
    Persisted,
    PersistRequested,
    UnloadRequested,
    Where,
)
from holdfast.projections.difference import Change, difference
from holdfast.projections.instance import InstanceState, evolve, fold, initial
from holdfast.schemas.errors import InstanceNotFound, InvalidQuery, VersionNotFound
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's source; ``text`` has no indentation and is None if it is not known.

    With ``is_stored`` the text was written anew from the stored program: the file is not at hand, or has changed.
    """

    file: str
    line: int
    text: str | None
    is_stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A recorded event, where it found the instance, and what it changed.

    ``where`` is the place in the program with the hash ``program``; both are None for events that have no place, and
    ``program`` for a routine that began and ended between two persistence points. ``source`` is the line there, where
    somebody has looked it up, as a client does. ``changes`` are those of the stored state: variables change at
    persistence points.
    """

    recorded: RecordedEvent
    where: Where | None
    program: str | None
    changes: tuple[Change, ...]
    source: SourceLine | None = None


async def history(
    connection: AsyncConnection[Any],
    instance_id: UUID,
    first: int | datetime = 1,
    last: int | datetime | None = None,
) -> AsyncIterator[Entry]:
    """Yield what happened to an instance, both ends included; an end is a version or a moment.

    Memory is bounded by what is written between two persistence points, however long the stream is. Nothing is
    yielded for an instance that is not persisted; ``InstanceNotFound`` if there is none at all, ``InvalidQuery`` if the
    last end comes before the first.
    """
    match first, last:
        case (int(), int()) | (datetime(), datetime()) if first > last:  # type: ignore[operator]  # They are of one kind.
            raise InvalidQuery(f"nothing lies between {first} and {last}: the second comes before the first")
    await _last_version(connection, instance_id)
    start = await _first_from(connection, instance_id, first) if isinstance(first, datetime) else max(first, 1)
    end = await _last_by(connection, instance_id, last) if isinstance(last, datetime) else last
    state = await _fold_to(connection, instance_id, start - 1)
    batch: list[RecordedEvent] = []
    async for recorded in read_stream(connection, instance_id, start, end):
        batch.append(recorded)
        if isinstance(recorded.event, Persisted):
            entries, state = _entries(batch, state)
            for entry in entries:
                yield entry
            batch.clear()
    for entry in _entries(batch, state)[0]:
        yield entry


async def events_of(connection: AsyncConnection[Any], instance_id: UUID) -> AsyncIterator[RecordedEvent]:
    """Yield the events of an instance; ``InstanceNotFound`` if there is none at all."""
    await _last_version(connection, instance_id)
    async for recorded in read_stream(connection, instance_id):
        yield recorded


async def state_at(
    connection: AsyncConnection[Any], instance_id: UUID, at: int | datetime | None = None
) -> InstanceState:
    """Return the state of an instance at a version or a moment, or as it is now, by folding its events.

    At a moment, that is after the last event recorded by then; in the future, as it is now. Raises
    ``InstanceNotFound``, ``VersionNotFound`` for a version or moment of which it has no event, and ``ValueError`` for
    a moment without an offset from UTC.
    """
    last = await _last_version(connection, instance_id)
    if at is None:
        return await _fold_to(connection, instance_id, last)
    version = await _last_by(connection, instance_id, at) if isinstance(at, datetime) else at
    if not 1 <= version <= last:
        raise VersionNotFound(instance_id, asked=at, last=last)
    return await _fold_to(connection, instance_id, version)


def place(event: Event) -> Where | None:
    """Return the place in the program at which an event found its instance.

    A persistence point has the place of the innermost frame that it changed.
    """
    match event:
        case InstanceStarted() | InstanceForked() | InstanceResumed() | CancelRequested():
            return None
        case InstanceAbandoned() | PersistRequested() | UnloadRequested() | InstanceMigrated():
            return None
        case InstanceCompleted() | InstanceContinued() | InstanceTerminated():
            return None
        case Persisted():
            if not event.frames:
                return None
            path = max(event.frames, key=lambda path: path.count("."))
            return Where(path, event.frames[path].step, event.frames[path].line)
    return event.where


def _entries(batch: Sequence[RecordedEvent], state: InstanceState) -> tuple[list[Entry], InstanceState]:
    """Return the entries of a batch that begins with a state, and the state after it."""
    entries = []
    programs = {path: frame.program for path, frame in state.frames.items()}
    for recorded in batch:
        if isinstance(recorded.event, Persisted):
            programs |= {path: it.program for path, it in recorded.event.frames.items() if it.program is not None}
    for recorded in batch:
        before, state = state, evolve(state, recorded.event)
        where = place(recorded.event)
        program = None
        if where is not None:
            # A branch of a gather that is no routine stands where its caller does.
            around = where.frame.rpartition(".")[0]
            program = programs.get(where.frame) or programs.get(around if "-" in where.frame[len(around) :] else "")
            program = program or (state.program_hash if where.frame == "0" else None)
        changes = difference(before, state)
        entries.append(Entry(recorded=recorded, where=where, program=program, changes=changes))
    return entries, state


async def _fold_to(connection: AsyncConnection[Any], instance_id: UUID, version: int) -> InstanceState:
    state, chunk = initial, list[Event]()
    async for recorded in read_stream(connection, instance_id, to_version=version):
        chunk.append(recorded.event)
        if len(chunk) == _CHUNK:
            state = fold(chunk, state)
            chunk.clear()
    return fold(chunk, state)


async def _last_by(connection: AsyncConnection[Any], instance_id: UUID, moment: datetime) -> int:
    version: int = await _scalar(connection, "last_by", instance_id=instance_id, moment=_certain(moment))
    return version


async def _first_from(connection: AsyncConnection[Any], instance_id: UUID, moment: datetime) -> int:
    version: int = await _scalar(connection, "first_from", instance_id=instance_id, moment=_certain(moment))
    return version


def _certain(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} is no certain moment: give its offset from UTC")
    return moment


async def _last_version(connection: AsyncConnection[Any], instance_id: UUID) -> int:
    version: int | None = await _scalar(connection, "last_version", instance_id=instance_id)
    if version is None:
        raise InstanceNotFound(instance_id)
    return version


async def _scalar(connection: AsyncConnection[Any], name: str, **parameters: Any) -> Any:
    async with connection.cursor(row_factory=scalar_row, binary=True) as cursor:
        await cursor.execute(_SQL[name], parameters)
        return await cursor.fetchone()
