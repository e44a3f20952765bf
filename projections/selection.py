"""Which events of the log are meant: a stretch of it, and what fits criteria there.

The caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from holdfast.events.log import Page
from holdfast.events.postgres import page_of
from holdfast.events.recorded import Cursor
from holdfast.projections.lag import end_of_log
from holdfast.schemas.errors import ReplayRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_START = Cursor(0, 0, 0)

Place = Cursor | datetime | None
"""A place in the log, or a moment by which events were recorded; None for the end that is meant."""


class EventCriteria(TypedDict, total=False):
    """Events that fit all that is given.

    ``type`` is the event's; ``workflow`` and ``correlation_key`` are those that its instance was started with, and
    ``promoted`` are values that the instance shows for queries now, by name: nothing fits it that is discarded.
    """

    type: str | None
    workflow: str | None
    correlation_key: str | None
    instance_id: UUID | None
    promoted: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Events of an app behind ``after`` and up to ``end``, recorded from ``since`` to ``until``, that fit criteria.

    ``types`` are the event types that are wanted beside ``criteria``, None for all. With ``skipped_by`` it is those
    that this projection passed over.
    """

    app: str
    after: Cursor
    end: Cursor
    since: datetime | None
    until: datetime | None
    criteria: EventCriteria
    types: Collection[str] | None = None
    skipped_by: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements take."""
        promoted, wanted = self.criteria.get("promoted"), self.criteria.get("type")
        types = self.types
        if wanted is not None:
            types = [wanted] if types is None or wanted in types else []
        return {
            "app": self.app,
            "epoch": self.after.epoch,
            "xid": str(self.after.xid),
            "position": self.after.position,
            "end_epoch": self.end.epoch,
            "end_xid": str(self.end.xid),
            "end_position": self.end.position,
            "since": self.since,
            "until": self.until,
            "types": None if types is None else list(types),
            "workflow": self.criteria.get("workflow"),
            "correlation_key": self.criteria.get("correlation_key"),
            "instance_id": self.criteria.get("instance_id"),
            "promoted": None if promoted is None else orjson.dumps(promoted).decode(),
            "skipped_by": self.skipped_by,
        }


async def choose(
    connection: AsyncConnection[Any], app: str, first: Place, last: Place, criteria: EventCriteria
) -> Selection:
    """Return the events from ``first`` to ``last``, both included, that fit criteria.

    Without ``last`` they end where the log ends now. Where it is a moment, they end with the last event that was
    recorded by then and is committed: who wants all lets the transactions end that run now. Raises ``ReplayRefused``
    for a cursor behind the end of the log, a ``first`` that is to come, and a stretch that ends before it begins.
    """
    if isinstance(first, datetime) and await _is_to_come(connection, first):
        raise ReplayRefused(f"nothing was recorded since {first}, which is still to come")
    log_end = await end_of_log(connection) or _START
    for place in (first, last):
        if isinstance(place, Cursor) and place > log_end:
            raise ReplayRefused(f"{place} lies behind the end of the log, which is {log_end}")
    begin, end = await _begin(connection, first, log_end), await _end(connection, last, log_end)
    if _is_reversed(first, last, begin, end):
        raise ReplayRefused(f"nothing lies between {first} and {last}: the second comes before the first")
    return Selection(
        app=app,
        after=begin,
        end=end,
        since=first if isinstance(first, datetime) else None,
        until=last if isinstance(last, datetime) else None,
        criteria=criteria,
    )


async def require_app(connection: AsyncConnection[Any], app: str) -> None:
    """Raise ``ReplayRefused`` for an app that has no history here, and that no worker was ever seen of."""
    cursor = await connection.execute(_SQL["is_known"], {"app": app})
    is_known, others = await cursor.fetchone() or (False, [])
    if not is_known:
        raise ReplayRefused(f"there is no app {app!r} here, there is {', '.join(others) or 'none'}")


async def read(connection: AsyncConnection[Any], selection: Selection, limit: int) -> Page:
    """Look at no more than ``limit`` events behind the beginning of a selection, and return those that belong to it."""
    async with connection.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_SQL["select_events"], selection.parameters | {"limit": limit})
        return page_of(await cursor.fetchone(), selection.after)


async def count(connection: AsyncConnection[Any], selection: Selection) -> dict[str, int]:
    """Return how many events of each type a selection has."""
    cursor = await connection.execute(_SQL["count_selected"], selection.parameters)
    return dict(await cursor.fetchall())


async def _is_to_come(connection: AsyncConnection[Any], moment: datetime) -> bool:
    cursor = await connection.execute(_SQL["is_to_come"], {"moment": moment})
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def first_since(connection: AsyncConnection[Any], moment: datetime) -> Cursor | None:
    """Return the first event recorded since a moment, or the safe horizon, behind which more such may appear."""
    return await _at(connection, "first_since", moment)


async def last_until(connection: AsyncConnection[Any], moment: datetime) -> Cursor | None:
    """Return the last event that was recorded by a moment; None if none was."""
    return await _at(connection, "last_until", moment)


def _is_reversed(first: Place, last: Place, begin: Cursor, end: Cursor) -> bool:
    if first is None or last is None:
        return False
    if isinstance(first, datetime) and isinstance(last, datetime):
        return first > last
    return begin >= end


async def _begin(connection: AsyncConnection[Any], first: Place, log_end: Cursor) -> Cursor:
    if isinstance(first, datetime):
        first = await first_since(connection, first)
    return _START if first is None else min(Cursor(first.epoch, first.xid, first.position - 1), log_end)


async def _end(connection: AsyncConnection[Any], last: Place, log_end: Cursor) -> Cursor:
    if isinstance(last, datetime):
        return await last_until(connection, last) or _START
    return log_end if last is None else last


async def _at(connection: AsyncConnection[Any], statement: str, moment: datetime) -> Cursor | None:
    cursor = await connection.execute(_SQL[statement], {"moment": moment})
    row = await cursor.fetchone()
    return Cursor(*row) if row else None
