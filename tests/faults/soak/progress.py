"""How far a soak is, looked at several times a second."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

INTERVAL = 0.2
CLOSED: LiteralString = "select count(*) from holdfast.instance_rows where is_completed"


@dataclass
class Progress:
    """How many instances are closed, and how long it took for another one to be."""

    database_url: str
    closed: int = 0
    longest: float = 0.0
    """Seconds without progress, at most, since the first instance closed."""
    since: dict[str, float] = field(default_factory=dict)
    """The same, by what had died last."""
    latest: str = "before any death"
    _mark: float | None = None

    async def watch(self) -> None:
        """Look on until cancelled, whatever becomes of Postgres."""
        while True:
            with suppress(psycopg.OperationalError):
                async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
                    while True:
                        cursor = await connection.execute(CLOSED)
                        row = await cursor.fetchone()
                        assert row is not None
                        self._note(row[0])
                        await asyncio.sleep(INTERVAL)
            await asyncio.sleep(INTERVAL)

    async def until_closed(self, instances: int, within: float) -> bool:
        """Wait until so many instances are closed; False if no progress was made for ``within`` seconds."""
        mark, seen = time.monotonic(), self.closed
        while self.closed < instances:
            if self.closed > seen:
                mark, seen = time.monotonic(), self.closed
            if time.monotonic() - mark > within:
                return False
            await asyncio.sleep(INTERVAL)
        return True

    def _note(self, closed: int) -> None:
        now = time.monotonic()
        if closed == self.closed and closed > 0:
            return
        if self._mark is not None:
            pause = now - self._mark
            self.longest = max(self.longest, pause)
            self.since[self.latest] = max(self.since.get(self.latest, 0.0), pause)
        if closed > 0:
            self._mark = now
        self.closed = closed
