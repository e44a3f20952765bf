"""Projections rebuilt as of a place in the log, and compared."""

from __future__ import annotations

from holdfast import Client, Projection
from holdfast.events.recorded import Cursor
from holdfast.processor import projecting
from holdfast.projections.lag import Progress
from holdfast.projections.rows import RowChange
from holdfast.projections.scratch import AsOf, Scratch
from holdfast.schemas.settings import Settings
from tests.support.projections import APP, Started, app_with, rows

THEN = "select workflow, instances from past.started order by 1"


class Small(Started):
    """In pages that are cut by every place."""

    name = "started"
    page = 7


async def rebuild(
    url: str, as_of: AsOf, into: str = "past", projection: type[Projection] = Small, *, restart: bool = False
) -> list[Progress]:
    app = app_with(projection)
    progress = projecting.rebuild_as_of(
        app, app.subscriptions[0].name, Settings(database_url=url), as_of, into, restart=restart
    )
    return [step async for step in progress]


async def end_of(url: str) -> Cursor:
    async with Client(url, app=APP) as client:
        return Cursor.parse(await client.projections.cursor())


async def scratches(url: str) -> list[Scratch]:
    async with Client(url, app=APP) as client:
        return await client.projections.scratches()


async def diff(url: str, before: str | AsOf, after: str | AsOf, kind: type[Projection] = Small) -> list[RowChange]:
    app = app_with(kind)
    found = projecting.diff(app, app.subscriptions[0].name, Settings(database_url=url), before, after)
    return [change async for change in found]


def schemas(url: str) -> list[str]:
    return [name for (name,) in rows(url, "select nspname from pg_namespace where nspname !~ '^(pg_|holdfast|inf)'")]
