"""Rebuilds a projection as of a place in the log, into a schema of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg

from holdfast.events.log import Page
from holdfast.events.recorded import Cursor
from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.settling import settle
from holdfast.processor.store.connections import Connection, Connections, failure
from holdfast.processor.store.unit_of_work import Handle
from holdfast.projections import scratch
from holdfast.projections.definition import Subscription
from holdfast.projections.lag import Progress
from holdfast.projections.scratch import AsOf, Scratch
from holdfast.projections.subscription import HandlerFailed, is_transient
from holdfast.schemas.errors import ProjectionStopped, RebuildRefused
from holdfast.schemas.settings import Settings

_PAUSE = 0.1
"""Seconds before another look at what is waited for."""


async def rebuild_as_of(
    connections: Connections,
    subscription: Subscription,
    settings: Settings,
    environment: Environment,
    *,
    as_of: AsOf,
    into: str,
    restart: bool = False,
) -> AsyncIterator[Progress]:
    """Compute a projection's tables as of a place in the log, and yield how far that is, at first and after every page.

    What readers see, and its checkpoint, are left as they are. One that was interrupted is gone on with, unless
    ``restart``. Transactions are waited for that may still add events before the place. Raises ``RebuildRefused``, and
    ``ProjectionStopped`` at an event that a handler cannot take; the projection's own decisions about such events hold.
    """
    if subscription.schema is None:
        raise RebuildRefused(subscription.name, f"{subscription.name} has no tables to rebuild")
    it = _Rebuild(connections, subscription, settings.transaction_timeout, into)
    found = await connections.run(lambda connection: scratch.find(connection, into))
    if found is None or restart or not scratch.fits(found, subscription, as_of):
        await connections.run(lambda connection: scratch.refuse_unknown(connection, subscription.name, as_of))
        until = as_of if isinstance(as_of, Cursor) else await _place_at(connections, environment, as_of)
    else:
        until = Cursor.parse(found.until)
    await it.begin(as_of, until, restart=restart)
    while (found := await connections.run(lambda connection: scratch.find(connection, into))) is not None:
        position, end = Cursor.parse(found.cursor).position, until.position
        yield Progress(end if found.is_complete else min(position, end), end, None)
        if found.is_complete:
            return
        if not await it.step(found):
            await environment.sleep(_PAUSE)


async def _place_at(connections: Connections, environment: Environment, moment: datetime) -> Cursor:
    """Return the place that a moment stands for, once no transaction runs that could add to it."""
    await settle(connections, environment)
    return await connections.run(lambda connection: scratch.place_at(connection, moment))


class _Rebuild:
    """One rebuild under way: its pages, each in a transaction of its own; where one fails, its events singly."""

    def __init__(self, connections: Connections, subscription: Subscription, timeout: float, into: str) -> None:
        self._connections = connections
        self._subscription = subscription
        self._timeout = timeout
        self._into = into
        self._careful = 0

    async def begin(self, as_of: AsOf, until: Cursor, *, restart: bool) -> None:
        async with self._transaction() as connection:
            await scratch.begin(connection, self._subscription, self._into, as_of, until, restart=restart)

    async def step(self, found: Scratch) -> bool:
        """Handle a page, or a single event while care is needed; False if there is none to be had yet."""
        try:
            page = await self._advance(found, 1 if self._careful else None)
        except HandlerFailed as failed:
            if len(failed.page.events) > 1:
                self._careful = failed.page.seen
            else:
                await self._give_up(found, failed)
            return True
        except TimeoutError:
            if self._careful:
                raise
            self._careful = self._subscription.page
            return True
        if page is not None:
            self._careful = max(0, self._careful - page.seen) if page.seen else 0
        return page is None or page.seen > 0

    async def _advance(self, found: Scratch, limit: int | None) -> Page | None:
        page: Page | None = None
        async with asyncio.timeout(self._timeout), self._connections.take() as connection:
            try:
                async with connection.transaction():
                    page = await scratch.advance(connection, self._subscription, found, Handle(connection), limit)
            except psycopg.Error as error:
                if page is None or not page.events or is_transient(error):
                    raise failure(error) from error
                raise HandlerFailed(page, error) from error
        return page

    async def _give_up(self, found: Scratch, failed: HandlerFailed) -> None:
        self._careful = 0
        async with self._transaction() as connection:
            if not await scratch.skip(connection, self._subscription, found, failed):
                raise ProjectionStopped(self._subscription.name, str(failed))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._connections.take() as connection:
            try:
                async with connection.transaction():
                    yield connection
            except psycopg.Error as error:
                raise failure(error) from error
