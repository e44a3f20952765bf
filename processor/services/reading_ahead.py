"""Reads the next page of the log while the one before it is handled."""

from __future__ import annotations

import asyncio

from holdfast.events.log import Page
from holdfast.events.recorded import Cursor
from holdfast.processor.store.connections import Connection, Connections
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import read


class ReadingAhead:
    """What a subscription is to handle, page after page, each read on another connection while the last is handled.

    What lies below the safe horizon stays as it is, so that a page that was read early is the page to be read.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._coming: tuple[Cursor, asyncio.Task[Page]] | None = None

    async def read(self, connection: Connection, subscription: Subscription, start: Cursor | None, limit: int) -> Page:
        """Return what ``subscription.read`` returns; raises ``StorageError`` too."""
        whole = limit == subscription.page
        coming = self._coming
        if coming is not None and whole and coming[0] == start:
            self._coming = None
            page = await coming[1]
        else:
            await self.close()
            page = await read(connection, subscription, start, limit)
        if whole and page.seen == limit and page.cursor is not None:
            self._coming = page.cursor, asyncio.create_task(self._read(subscription, page.cursor))
        return page

    async def close(self) -> None:
        """Let go of what was read ahead, and of its connection."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming[1].cancel()
            await asyncio.wait([coming[1]])
            _ = coming[1].cancelled() or coming[1].exception()

    async def _read(self, subscription: Subscription, start: Cursor) -> Page:
        return await self._connections.run(lambda connection: read(connection, subscription, start, subscription.page))
