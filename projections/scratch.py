"""Projections as of a place in the log: built into a schema of their own, beside all that anybody reads.

A place is a cursor, and what belongs to it are all events up to it in the order of the log. A moment stands for the
place of the last event, in that order, that was recorded by then. Events are recorded before they commit, and not in
the order of the log: one that was recorded a little later belongs to it too if it stands before that one. While a
transaction runs that may still add events before the place, nothing is known for good, so it is waited for.

A scratch has its checkpoint in a row of ``holdfast.scratches``, which commits with its tables. The caller owns the
transaction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

from holdfast.events.log import Page
from holdfast.events.recorded import Cursor
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Connection, HandlerFailed, enter, handle, read
from holdfast.schemas.errors import ProjectionError, RebuildRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_KEPT = ("holdfast", "pg_", "information_schema")
_START = Cursor(0, 0, 0)

AsOf = Cursor | datetime
"""A place in the log, or a moment with an offset from UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A projection as of a place in the log.

    Its tables stand in ``schema``. ``as_of`` is what was asked for, ``until`` the cursor that it stands for, and
    ``cursor`` how far it is built. ``handled`` counts the events that its handlers took, ``skipped`` those that were
    passed over.
    """

    schema: str
    app: str
    name: str
    version: int
    as_of: str
    until: str
    cursor: str
    handled: int
    skipped: int
    is_complete: bool
    created_at: datetime
    updated_at: datetime


async def scratches(
    connection: AsyncConnection[Any], app: str | None = None, schema: str | None = None
) -> list[Scratch]:
    """Return the scratches that there are, of one app or in one schema if given."""
    async with connection.cursor(row_factory=class_row(Scratch)) as cursor:
        await cursor.execute(_SQL["scratches"], {"app": app, "schema": schema})
        return await cursor.fetchall()


async def find(connection: AsyncConnection[Any], schema: str) -> Scratch | None:
    """Return the scratch in a schema; None if that is none or not there."""
    found = await scratches(connection, schema=schema)
    return found[0] if found else None


async def drop(connection: AsyncConnection[Any], schema: str) -> bool:
    """Drop a scratch and its tables; tells whether there was one. Another schema of that name is left alone."""
    dropped: bool = await _scalar(connection, "drop_scratch", schema=schema)
    return dropped


def text_of(as_of: AsOf) -> str:
    """Return how a place or a moment is written."""
    return str(as_of) if isinstance(as_of, Cursor) else as_of.astimezone(UTC).isoformat()


# Places.


async def refuse_unknown(connection: AsyncConnection[Any], name: str, as_of: AsOf) -> None:
    """Raise ``RebuildRefused`` for a place beyond the end of the log, or a moment that is still to come."""
    if isinstance(as_of, Cursor):
        if await _scalar(connection, "is_beyond_log", epoch=as_of.epoch, xid=str(as_of.xid)):
            raise RebuildRefused(name, f"{as_of} lies beyond the end of the log")
    elif as_of.tzinfo is None:
        raise ValueError(f"{as_of.isoformat()} is no certain moment: give its offset from UTC")
    elif await _scalar(connection, "is_future", moment=as_of):
        raise RebuildRefused(name, f"{as_of.isoformat()} is still to come")


async def place_at(connection: AsyncConnection[Any], moment: datetime) -> Cursor:
    """Return the place that a moment stands for, that of no event at all if none had been recorded."""
    cursor = await connection.execute(_SQL["place_at"], {"moment": moment})
    row = await cursor.fetchone()
    return _START if row is None else Cursor(*row)


# Building.


def fits(found: Scratch, subscription: Subscription, as_of: AsOf) -> bool:
    """Tell whether a scratch is one of this projection, by this version of its code, as of this place."""
    wanted = (subscription.app, subscription.name, subscription.version, text_of(as_of))
    return (found.app, found.name, found.version, found.as_of) == wanted


async def begin(
    connection: Connection, subscription: Subscription, schema: str, as_of: AsOf, until: Cursor, *, restart: bool
) -> None:
    """Create a scratch, or go on with it if it was begun before and ``restart`` is not wanted.

    Raises ``RebuildRefused`` if the schema is something else.
    """
    name = subscription.name
    await connection.execute(_SQL["lock_scratch"], {"schema": schema})
    found = await find(connection, schema)
    if found is not None and not restart:
        if fits(found, subscription, as_of):
            return
        raise RebuildRefused(
            name,
            f"schema {schema} holds projection {found.name}, version {found.version}, as of {found.as_of}: name "
            "another one, or have it built anew",
        )
    if found is not None:
        await drop(connection, schema)
    if not _NAME.fullmatch(schema) or schema.startswith(_KEPT) or schema.endswith(("__next", "__old")):
        raise RebuildRefused(
            name,
            f"{schema!r} is no name for a scratch: use lower-case letters, digits and underscores, and nothing that "
            f"begins with {', '.join(_KEPT)} or ends with __next or __old",
        )
    if schema == subscription.schema or await _scalar(connection, "schema_is_taken", schema=schema):
        raise RebuildRefused(name, f"schema {schema} is something else than a scratch: name one that is not there")
    await drop(connection, schema)  # What is left of one whose schema somebody has dropped by hand.
    await connection.execute(_SQL["create_schema"], {"schema": schema})
    await enter(connection, schema)
    await connection.execute(subscription.create.encode())
    await connection.execute(_SQL["open_to_observers"], {"schema": schema})
    key = {"schema": schema, "app": subscription.app, "name": name, "version": subscription.version}
    place = {"epoch": until.epoch, "xid": str(until.xid), "position": until.position}
    await connection.execute(_SQL["add_scratch"], key | place | {"as_of": text_of(as_of)})


async def advance(
    connection: Connection, subscription: Subscription, scratch: Scratch, tx: Any, limit: int | None = None
) -> Page | None:
    """Handle the next events of a scratch; None if it is complete, an empty page if there is something to wait for.

    Raises ``HandlerFailed``, and then the transaction is to be rolled back.
    """
    cursor = await connection.execute(_SQL["take_scratch"], {"schema": scratch.schema})
    row = await cursor.fetchone()
    if row is None:
        return None
    epoch, xid, position, is_settled = row
    start, until = Cursor(epoch, xid, position), Cursor.parse(scratch.until)
    limit = limit or subscription.page
    whole = await read(connection, subscription, start, limit)
    is_complete = (whole.cursor or start) >= until or (whole.seen < limit and is_settled)
    page = _up_to(whole, until)
    if page.events:
        await handle(connection, subscription, scratch.schema, page, tx)
    if page.seen or is_complete:
        await _move(connection, scratch, page.cursor or start, handled=len(page.events), is_complete=is_complete)
    return page


async def skip(connection: Connection, subscription: Subscription, scratch: Scratch, failed: HandlerFailed) -> bool:
    """Pass over the one event of a page that failed, if that is to be done; tells whether it was.

    It is if the projection says so, or if it was done in what readers see.
    """
    (recorded,) = failed.page.events
    cursor = await connection.execute(_SQL["take_scratch"], {"schema": scratch.schema})
    row = await cursor.fetchone()
    if row is None or Cursor(*row[:3]) >= recorded.cursor:  # Another process was faster.
        return True
    event = {"instance_id": recorded.instance_id, "event_version": recorded.version}
    key = {"app": subscription.app, "name": subscription.name}
    if subscription.on_poison != "skip" and not await _scalar(connection, "was_skipped", **key, **event):
        return False
    is_complete = recorded.cursor >= Cursor.parse(scratch.until)
    await _move(connection, scratch, failed.page.cursor or recorded.cursor, skipped=1, is_complete=is_complete)
    return True


def _up_to(page: Page, until: Cursor) -> Page:
    """Return the part of a page that belongs to a place."""
    if page.cursor is None or page.cursor <= until:
        return page
    events = [recorded for recorded in page.events if recorded.cursor <= until]
    return replace(page, events=events, cursor=until)


async def _move(
    connection: Connection, scratch: Scratch, end: Cursor, *, handled: int = 0, skipped: int = 0, is_complete: bool
) -> None:
    await connection.execute(
        _SQL["move_scratch"],
        {
            "schema": scratch.schema,
            "epoch": end.epoch,
            "xid": str(end.xid),
            "position": end.position,
            "handled": handled,
            "skipped": skipped,
            "is_complete": is_complete,
        },
    )


async def _scalar(connection: AsyncConnection[Any], statement: str, **parameters: Any) -> Any:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(_SQL[statement], parameters)
        return await cursor.fetchone()


async def schema_of(connection: AsyncConnection[Any], app: str, name: str, side: str) -> str:
    """Return the schema of ``live`` or of a complete scratch of a projection, or raise ``ProjectionError``."""
    if side == "live":
        live: str | None = await _scalar(connection, "live_schema", app=app, name=name)
        if live is None:
            raise ProjectionError(name, f"projection {name} has no tables yet that readers see")
        return live
    found = await find(connection, side)
    if found is None or (found.app, found.name) != (app, name):
        raise ProjectionError(name, f"schema {side} is no scratch of projection {name}")
    if not found.is_complete:
        raise ProjectionError(name, f"scratch {side} is not complete: go on with its rebuild first")
    return found.schema
