"""What a client asks of projections: how far they are, to wait for them, to set them going again, and how they were."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import timedelta
from typing import Protocol, TypeVar

from psycopg import IsolationLevel

from holdfast.events.recorded import Cursor
from holdfast.processor.engine.environment import Environment
from holdfast.processor.store.connections import Connection
from holdfast.projections import builds, lag, rows, scratch
from holdfast.projections.lag import Lag, SkippedEvent
from holdfast.projections.rows import RowChange
from holdfast.projections.scratch import Scratch
from holdfast.schemas.errors import SettingsError

T = TypeVar("T")

_BEGINNING = Cursor(0, 0, 0)
_LOOK = 0.02
"""Seconds between two looks at what is waited for."""


class Run(Protocol):
    """Does work on a connection and gives its result."""

    async def __call__(self, work: Callable[[Connection], Awaitable[T]], /) -> T: ...


class Projections:
    """The projections of a client's app: ``Client.projections``."""

    def __init__(
        self,
        run: Run,
        connection: Callable[[], AbstractAsyncContextManager[Connection]],
        app: str | None,
        environment: Environment,
    ) -> None:
        self._run = run
        self._connection = connection
        self._app = app
        self._environment = environment

    async def lag(self) -> list[Lag]:
        """Return the builds of subscribed projections and event feeds, and how far each is behind."""
        return await self._run(lambda connection: lag.lags(connection, self._app))

    async def cursor(self) -> str:
        """Return the place in the log up to which it is committed now, for ``wait_until``."""
        return str(await self._run(lag.end_of_log) or _BEGINNING)

    async def wait_until(
        self, name: str, cursor: str | None = None, *, timeout: timedelta = timedelta(seconds=30)
    ) -> None:
        """Wait until what readers see of a projection has come to a place in the log.

        ``cursor`` is what ``cursor`` gave, or any other cursor; without it, it is what is committed now. Raises
        ``ProjectionNotFound``, ``ProjectionStopped`` if it stands still before that place, and ``TimeoutError``.
        """
        app = self._require_app()
        end = Cursor.parse(cursor if cursor is not None else await self.cursor())
        async with asyncio.timeout(timeout.total_seconds()):
            while not await self._run(lambda connection: lag.has_come_to(connection, app, name, end)):
                await self._environment.sleep(_LOOK)

    async def resume(self, name: str) -> bool:
        """Let a stopped projection try the same event again; tells whether it was stopped.

        Raises ``ProjectionNotFound``.
        """
        app = self._require_app()
        return await self._run(lambda connection: lag.resume(connection, app, name))

    async def skip(self, name: str) -> bool:
        """Have a stopped projection pass over the event that it stopped at, and go on; tells whether it was stopped.

        Raises ``ProjectionNotFound``.
        """
        app = self._require_app()
        return await self._run(lambda connection: lag.skip(connection, app, name))

    async def skipped(self, name: str | None = None, limit: int = 100) -> list[SkippedEvent]:
        """Return the events that projections passed over, the newest first."""
        return await self._run(lambda connection: lag.skipped_events(connection, self._app, name, limit))

    async def scratches(self) -> list[Scratch]:
        """Return the projections that were rebuilt as of a place in the log, by their schemas."""
        return await self._run(lambda connection: scratch.scratches(connection, self._app))

    async def drop(self, schema: str) -> bool:
        """Drop the scratch in a schema; tells whether there was one. A schema that is something else is left alone.

        So is given up what is built in ``…__next``, to take the place of a projection's tables, by a rebuild.
        """
        return await self._run(lambda connection: _drop(connection, schema))

    async def diff(self, name: str, before: str, after: str) -> AsyncIterator[RowChange]:
        """Yield the rows in which two builds of a projection differ; each is ``live`` or the schema of a scratch.

        Both are seen as of one moment. Raises ``ProjectionError`` for what is neither, or not complete.
        """
        app = self._require_app()
        async with (
            self._connection() as connection,
            aclosing(compare(connection, app, name, before, after)) as changes,
        ):
            async for change in changes:
                yield change

    def _require_app(self) -> str:
        if not self._app:
            raise SettingsError("the client was not told which app is meant")
        return self._app


async def _drop(connection: Connection, schema: str) -> bool:
    async with connection.transaction():
        return await scratch.drop(connection, schema) or await builds.drop_next(connection, schema)


async def compare(
    connection: Connection, app: str, name: str, before: str, after: str
) -> AsyncGenerator[RowChange, None]:
    """Yield the rows in which two builds of a projection differ; see ``Projections.diff``.

    The connection is nobody else's.
    """
    schemas = [await scratch.schema_of(connection, app, name, side) for side in (before, after)]
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    async with connection.transaction(), aclosing(rows.changes(connection, *schemas)) as changes:
        async for change in changes:
            yield change
