"""How far subscriptions are behind the end of the log, what they passed over, and how they are set going again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import args_row, class_row, scalar_row

from holdfast.events.recorded import Cursor
from holdfast.projections.subscription import Build, Stage
from holdfast.schemas.errors import ProjectionNotFound, ProjectionStopped
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

MOST_BEHIND = 100_000
"""Up to which number ``Lag.events_behind`` is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """A build of a subscription, a row of the view ``holdfast.projection_lag``.

    ``build`` is ``live``, or ``next`` for what is being built and not seen yet. ``cursor`` is the checkpoint;
    ``events_behind`` counts the committed events that it has not come to, up to ``MOST_BEHIND``, and ``time_behind``
    is the age of the first of them. ``handled`` counts the events that its handlers took, ``skipped`` those that were
    passed over. ``error`` says why it is ``stopped``, then at the event that ``failed_instance_id`` and
    ``failed_version`` name, or what it is trying again.
    """

    app: str
    name: str
    build: Stage
    version: int
    schema_name: str | None
    status: Literal["running", "stopped"]
    cursor: str
    events_behind: int
    time_behind: timedelta
    handled: int
    skipped: int
    error: str | None
    failed_instance_id: UUID | None
    failed_version: int | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedEvent:
    """An event that a projection could not take and passed over, with the error."""

    app: str
    name: str
    build: Stage
    instance_id: UUID
    version: int
    type: str
    error: str
    skipped_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build has come in the log: the number of the last event behind it, and of the last that there is.

    ``stopped_by`` says why it stands still, if it does.
    """

    position: int
    end: int
    stopped_by: str | None


async def progress(connection: AsyncConnection[Any], build: Build) -> Progress | None:
    """Return how far a build has come; None if there is no such build any more."""
    async with connection.cursor(row_factory=args_row(Progress)) as cursor:
        await cursor.execute(_SQL["progress"], build.key)
        return await cursor.fetchone()


async def lags(connection: AsyncConnection[Any], app: str | None = None) -> list[Lag]:
    """Return every build of every subscription, of one app if given."""
    async with connection.cursor(row_factory=class_row(Lag)) as cursor:
        await cursor.execute(_SQL["lags"], {"app": app})
        return await cursor.fetchall()


async def skipped_events(
    connection: AsyncConnection[Any], app: str | None, name: str | None, limit: int
) -> list[SkippedEvent]:
    """Return the events that were passed over, the newest first."""
    async with connection.cursor(row_factory=class_row(SkippedEvent)) as cursor:
        await cursor.execute(_SQL["skipped_events"], {"app": app, "name": name, "limit": limit})
        return await cursor.fetchall()


async def end_of_log(connection: AsyncConnection[Any]) -> Cursor | None:
    """Return the place of the last event that is committed; None if there is none."""
    cursor = await connection.execute(_SQL["end_of_log"])
    row = await cursor.fetchone()
    return Cursor(*row) if row else None


async def has_come_to(connection: AsyncConnection[Any], app: str, name: str, end: Cursor) -> bool:
    """Tell whether what readers see of a projection has come to a place in the log.

    Raises ``ProjectionNotFound``, and ``ProjectionStopped`` if it stands still before that place.
    """
    cursor = await connection.execute(_SQL["places"], {"app": app, "name": name})
    rows = await cursor.fetchall()
    if not rows:
        raise ProjectionNotFound(name)
    for build, epoch, xid, position, stopped_by in rows:
        if build == "live" and Cursor(epoch, xid, position) >= end:
            return True
        if stopped_by is not None and (build == "live" or len(rows) == 1):
            raise ProjectionStopped(name, stopped_by)
    return False


async def resume(connection: AsyncConnection[Any], app: str, name: str) -> bool:
    """Let a stopped projection try the same event again; tells whether it was stopped."""
    await _require(connection, app, name)
    return await _count(connection, "resume_stopped", app, name) > 0


async def skip(connection: AsyncConnection[Any], app: str, name: str) -> bool:
    """Have a stopped projection pass over the event that it stopped at, and go on; tells whether it was stopped."""
    await _require(connection, app, name)
    return await _count(connection, "skip_failed", app, name) > 0


async def _require(connection: AsyncConnection[Any], app: str, name: str) -> None:
    cursor = await connection.execute(_SQL["places"], {"app": app, "name": name})
    if await cursor.fetchone() is None:
        raise ProjectionNotFound(name)


async def _count(connection: AsyncConnection[Any], statement: str, app: str, name: str) -> int:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(_SQL[statement], {"app": app, "name": name})
        return len(await cursor.fetchall())
