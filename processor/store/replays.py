"""Replays as the store keeps them: what each means, and up to where all of it is out.

The caller owns the connection and its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from holdfast.events.recorded import Cursor
from holdfast.processor.core.destination import Destination
from holdfast.processor.store.connections import Connection
from holdfast.projections.selection import EventCriteria, Selection
from holdfast.schemas.errors import ReplayNotFound, ReplayRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """History that is published again, to ``destination``.

    ``selection`` is what of it is still to come: it begins behind the event up to which all are confirmed.
    ``published`` counts the events that the broker has confirmed, ``run`` how often a process has begun to run it, and
    ``finished_at`` is None until all are out.
    """

    name: str
    destination: Destination
    selection: Selection
    published: int
    run: int
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def app(self) -> str:
        """The app whose history it is."""
        return self.selection.app

    def at(self, cursor: Cursor, published: int) -> Replay:
        """Return the replay as it stands at a place further on."""
        return replace(self, selection=replace(self.selection, after=cursor), published=published)


async def begin(connection: Connection, name: str, destination: Destination, selection: Selection) -> Replay:
    """Keep a new replay; ``ReplayRefused`` if there is one of its name."""
    cursor = await connection.execute(
        _SQL["begin_replay"],
        _place(selection.after)
        | {
            "name": name,
            "app": selection.app,
            "exchange": destination.exchange,
            "queue": destination.queue,
            "criteria": orjson.dumps(_criteria(selection)).decode(),
            "end_epoch": selection.end.epoch,
            "end_xid": str(selection.end.xid),
            "end_position": selection.end.position,
        },
    )
    if await cursor.fetchone() is None:
        raise ReplayRefused(f"there is a replay {name!r} already: resume it, remove it, or choose another name")
    return await find(connection, name)


async def find(connection: Connection, name: str) -> Replay:
    """Return one replay, or raise ``ReplayNotFound``."""
    found = await replays(connection, name=name)
    if not found:
        raise ReplayNotFound(name)
    return found[0]


async def replays(connection: Connection, *, app: str | None = None, name: str | None = None) -> list[Replay]:
    """Return the replays, the newest first."""
    cursor = await connection.execute(_SQL["replays"], {"app": app, "name": name})
    return [_replay(row) for row in await cursor.fetchall()]


async def take(connection: Connection, name: str) -> Replay:
    """Begin to run a replay, from which moment nobody else gets on with it; raises ``ReplayNotFound``."""
    await connection.execute(_SQL["take_replay"], {"name": name})
    return await find(connection, name)


async def move(connection: Connection, replay: Replay) -> None:
    """Keep that all up to where a replay stands is out.

    Raises ``ReplayRefused`` if somebody else has begun to run it since, or has removed it.
    """
    cursor = await connection.execute(
        _SQL["move_replay"],
        _place(replay.selection.after)
        | {
            "name": replay.name,
            "started_at": replay.started_at,
            "run": replay.run,
            "published": replay.published,
        },
    )
    if cursor.rowcount != 1:
        raise ReplayRefused(f"replay {replay.name!r} is run by another process, or was removed")


async def finish(connection: Connection, replay: Replay) -> Replay:
    """Keep that all of a replay is out, and return it."""
    await connection.execute(_SQL["finish_replay"], {"name": replay.name, "started_at": replay.started_at})
    return await find(connection, replay.name)


async def remove(connection: Connection, name: str) -> None:
    """Forget a replay; what is published stays published. Raises ``ReplayNotFound``."""
    cursor = await connection.execute(_SQL["remove_replay"], {"name": name})
    if await cursor.fetchone() is None:
        raise ReplayNotFound(name)


def _place(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "position": cursor.position}


def _criteria(selection: Selection) -> dict[str, Any]:
    given = {"since": selection.since, "until": selection.until, **selection.criteria}
    return {name: value for name, value in given.items() if value is not None}


def _replay(row: Sequence[Any]) -> Replay:
    name, app, exchange, queue, text, epoch, xid, position, end_epoch, end_xid, end_position, *rest = row
    published, run, started_at, updated_at, finished_at = rest
    given = orjson.loads(text)
    since, until = (datetime.fromisoformat(given.pop(it)) if it in given else None for it in ("since", "until"))
    if "instance_id" in given:
        given["instance_id"] = UUID(given["instance_id"])
    criteria: EventCriteria = given
    return Replay(
        name=name,
        destination=Destination(exchange, queue),
        selection=Selection(
            app=app,
            after=Cursor(epoch, xid, position),
            end=Cursor(end_epoch, end_xid, end_position),
            since=since,
            until=until,
            criteria=criteria,
        ),
        published=published,
        run=run,
        started_at=started_at,
        updated_at=updated_at,
        finished_at=finished_at,
    )
