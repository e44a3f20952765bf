"""What a statement of a record activity gives back in a simulation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any


class Rows:
    """The rows of a result, read as from a cursor of psycopg; ``rowcount`` is how many there are."""

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self.rowcount = len(rows)
        self._left = list(rows)

    async def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; None after the last."""
        return self._left.pop(0) if self._left else None

    async def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        rows, self._left = self._left, []
        return rows

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        for row in await self.fetchall():
            yield row
