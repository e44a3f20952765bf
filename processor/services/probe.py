"""Asks the database a small question for a probe, which waits no longer than a probe may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from holdfast.processor.store.connections import Connection, Connections
from holdfast.schemas.errors import StorageError

PATIENCE = 2.0
"""Seconds that the database may take to answer."""

T = TypeVar("T")


async def probe(database: Connections, ask: Callable[[Connection], Awaitable[T]]) -> T:
    """Return the answer; raise ``StorageError`` if there is none, or none within ``PATIENCE``."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await database.run(ask)
    except TimeoutError:
        raise StorageError(f"gave no answer within {PATIENCE:g} s") from None
