"""What an export reads: events of the log, each with what tells of its instance, and instances.

The caller's transaction is one whose statements all see the same (repeatable read). Memory is bounded by a page of
events, or of instances, whatever their number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from holdfast.events.codec import decode
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event, SubflowEnded, SubflowStarted
from holdfast.projections import queries, selection
from holdfast.projections.criteria import LASTING, Criteria
from holdfast.projections.queries import Instance
from holdfast.schemas.errors import ExportRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_EVENTS = 500
_INSTANCES = 500
_BEGINNING = Cursor(0, 0, 0)

Place = Cursor | datetime
"""A place in the log, or a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedEvent:
    """An event with the app, the workflow and the correlation key of its instance."""

    recorded: RecordedEvent
    app: str
    workflow: str
    correlation_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The part of the log that is exported: behind ``after``, up to ``end``, which is complete.

    Of it, only what was recorded from ``since`` on and ``before`` a moment, where these are given.
    """

    after: Cursor
    end: Cursor
    since: datetime | None = None
    before: datetime | None = None


def name_of(event: Event) -> str | None:
    """Return the name of what an event is about: an activity, a message type, the workflow of a subflow; else None."""
    if isinstance(event, SubflowStarted | SubflowEnded):
        return event.workflow
    name: str | None = getattr(event, "activity", None) or getattr(event, "message_type", None)
    return name


async def complete_range(
    connection: AsyncConnection[Any], first: Place | None, last: Place | None, criteria: Criteria | None = None
) -> Range:
    """Return what lies between two places, or between the ends of the log; ``ExportRefused`` if some may be missing.

    A cursor ``first`` is the last event before the range, a cursor ``last`` its last one; moments include the first
    and not the last. The range ends below the safe horizon, so that no event of it can still appear. Behind a cursor,
    ``criteria`` may only be such as an instance always fits: of one that fits since, what came before is in no export.
    Refused is also a range that ends before it begins.
    """
    passing = [name for name, value in (criteria or {}).items() if value is not None and name not in LASTING]
    if isinstance(first, Cursor) and passing:
        raise ExportRefused(
            f"instances come to fit {passing[0]} as they run, and of those that fit only now, what came before {first} "
            "would be in no export: behind a cursor choose by workflow or key alone, or begin with the log"
        )
    cursor = await connection.execute(_SQL["export_end"])
    row = await cursor.fetchone()
    epoch, xmin, *end_of_log = row or (0, 0, None, None, None)
    end = _BEGINNING if None in end_of_log else Cursor(*end_of_log)
    for place, mend in ((first, "begin earlier"), (last, "try again, or leave out the end")):
        if isinstance(place, Cursor) and (place.epoch, place.xid) >= (epoch, xmin):
            raise ExportRefused(f"the log is complete up to {end} only, not up to {place}: {mend}")
    if await _is_reversed(connection, first, last):
        raise ExportRefused(f"nothing lies between {first} and {last}: the second comes before the first")
    if isinstance(last, Cursor):
        end = min(last, end)
    return Range(
        after=first if isinstance(first, Cursor) else _BEGINNING,
        end=end,
        since=first if isinstance(first, datetime) else None,
        before=last if isinstance(last, datetime) else None,
    )


async def _is_reversed(connection: AsyncConnection[Any], first: Place | None, last: Place | None) -> bool:
    match first, last:
        case (Cursor(), Cursor()) | (datetime(), datetime()):
            return first > last  # type: ignore[operator]  # Both are of the same kind.
        case (datetime(), Cursor()):
            begin = await selection.first_since(connection, first)
            return begin is None or begin > last
        case (Cursor(), datetime()):
            end = await selection.last_until(connection, last)
            return (end or _BEGINNING) < first
    return False


async def log(connection: AsyncConnection[Any], within: Range, app: str | None) -> AsyncIterator[list[ExportedEvent]]:
    """Yield the events of a range, of one app if given, page by page in the order of the log."""
    async for page in _events(connection, "export_log", within, app):
        yield page


async def streams(
    connection: AsyncConnection[Any],
    within: Range,
    app: str | None,
    *,
    criteria: Criteria | None = None,
    types: Collection[str] | None = None,
) -> AsyncIterator[list[ExportedEvent]]:
    """Yield the events of a range page by page, stream by stream: those of some types, and of instances that fit."""
    wanted = None if types is None else [*types]
    if criteria is None:
        async for page in _events(connection, "export_streams", within, app, types=wanted, instance_ids=None):
            yield page
        return
    async for found in instances(connection, app, criteria):
        ids = [each.instance_id for each in found]
        async for page in _events(connection, "export_streams", within, app, types=wanted, instance_ids=ids):
            yield page


async def instances(
    connection: AsyncConnection[Any], app: str | None, criteria: Criteria | None = None
) -> AsyncIterator[list[Instance]]:
    """Yield the instances that fit, page by page, newest first."""
    after: Instance | None = None
    while page := await queries.instances(connection, app=app, after=after, limit=_INSTANCES, **(criteria or {})):
        yield page
        after = page[-1]


async def _events(
    connection: AsyncConnection[Any], statement: str, within: Range, app: str | None, **parameters: Any
) -> AsyncIterator[list[ExportedEvent]]:
    parameters |= {
        "epoch": within.after.epoch,
        "xid": str(within.after.xid),
        "position": within.after.position,
        "end_epoch": within.end.epoch,
        "end_xid": str(within.end.xid),
        "end_position": within.end.position,
        "since": within.since,
        "before": within.before,
        "app": app,
    }
    # A cursor of the server: it gives rows as they are asked for, and keeps none.
    async with connection.cursor("holdfast_export", row_factory=tuple_row) as cursor:
        await cursor.execute(_SQL[statement], parameters, binary=True)
        while rows := await cursor.fetchmany(_EVENTS):
            yield _read(rows)


def _read(rows: Sequence[tuple[Any, ...]]) -> list[ExportedEvent]:
    return [
        ExportedEvent(
            recorded=RecordedEvent(
                instance_id,
                version,
                decode(name, data),
                Cursor(epoch, xid, position),
                orjson.loads(metadata),
                recorded_at,
            ),
            app=app,
            workflow=workflow,
            correlation_key=key,
        )
        for instance_id, version, name, data, epoch, xid, position, metadata, recorded_at, app, workflow, key in rows
    ]
