"""One instance through time: what happened to it, at which lines, and its state at any version."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
    InstanceResumed,
    InstanceStarted,
    InstanceTerminated,
    Persisted,
    PersistRequested,
    UnloadRequested,
)
from holdfast.projections.instance import InstanceState, fold
from holdfast.schemas.errors import InstanceNotFound, VersionNotFound
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded event and the place in the user's file: frame path and line, where the event has one."""

    recorded: RecordedEvent
    frame: str | None
    line: int | None


async def history(
    connection: AsyncConnection[Any], instance_id: UUID, from_version: int = 1, to_version: int | None = None
) -> AsyncIterator[Entry]:
    """Yield what happened to an instance, both ends included.

    Nothing is yielded for an instance that is not persisted; ``InstanceNotFound`` if there is none at all.
    """
    await _last_version(connection, instance_id)
    async for recorded in read_stream(connection, instance_id, from_version, to_version):
        frame, line = place(recorded.event)
        yield Entry(recorded, frame, line)


async def state_at(
    connection: AsyncConnection[Any], instance_id: UUID, at: int | datetime | None = None
) -> InstanceState:
    """Return the state of an instance at a version or a moment, or as it is now, by folding its events.

    Before its first event that is the initial state. Raises ``InstanceNotFound``, and ``VersionNotFound``
    for a version that the instance has not come to.
    """
    last = await _last_version(connection, instance_id)
    if isinstance(at, datetime):
        version: int = await _scalar(connection, "version_at", instance_id=instance_id, at=at)
    else:
        version = last if at is None else at
    if not 0 <= version <= last:
        raise VersionNotFound(instance_id, asked=version, last=last)
    return fold([recorded.event async for recorded in read_stream(connection, instance_id, to_version=version)])


def place(event: Event) -> tuple[str | None, int | None]:
    """Return the frame path and the source line at which an event found its instance.

    A persistence point has the place of the innermost frame that it changed.
    """
    match event:
        case InstanceStarted() | InstanceResumed() | CancelRequested():
            return None, None
        case InstanceAbandoned() | PersistRequested() | UnloadRequested():
            return None, None
        case InstanceCompleted() | InstanceContinued() | InstanceTerminated():
            return None, None
        case Persisted():
            if not event.frames:
                return None, None
            path = max(event.frames, key=lambda path: path.count("."))
            return path, event.frames[path].line
    return (event.where.frame, event.where.line) if event.where else (None, None)


async def _last_version(connection: AsyncConnection[Any], instance_id: UUID) -> int:
    version: int | None = await _scalar(connection, "last_version", instance_id=instance_id)
    if version is None:
        raise InstanceNotFound(instance_id)
    return version


async def _scalar(connection: AsyncConnection[Any], name: str, **parameters: Any) -> Any:
    async with connection.cursor(row_factory=scalar_row, binary=True) as cursor:
        await cursor.execute(_SQL[name], parameters)
        return await cursor.fetchone()
