"""Time that passes only when told, and ids that are the same in every run."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import TypeVar
from uuid import UUID

from holdfast.processor.testing.work import Work
from holdfast.schemas.identifiers import uuid7

T = TypeVar("T")

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""When every simulation begins."""


class Clock:
    """The ``Environment`` of a simulation; ``time`` is now, in UTC, ``work`` what takes real time."""

    def __init__(self) -> None:
        self.time = BEGINNING
        self.work = Work()
        self.random = Random(0)  # noqa: S311  Ids that are the same in every run.
        self._sleepers: list[tuple[datetime, int, asyncio.Event]] = []
        self._numbers = count(1)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        event = asyncio.Event()
        until = self.time + timedelta(seconds=seconds)
        heapq.heappush(self._sleepers, (until, next(self._numbers), event))
        await event.wait()

    def new_id(self) -> UUID:
        return uuid7(int(self.time.timestamp() * 1000), self.random.randbytes(10))

    async def in_thread(self, function: Callable[[], T]) -> T:
        with self.work.going_on(function):
            return await asyncio.to_thread(function)

    def next_waking(self) -> datetime | None:
        """Return the next moment at which somebody wakes; None if nobody sleeps."""
        return self._sleepers[0][0] if self._sleepers else None

    def move_to(self, moment: datetime) -> None:
        """Move on to a moment, and wake whoever was to wake up to then."""
        while self.wake_next(moment):
            pass
        self.time = moment

    def wake_next(self, end: datetime) -> bool:
        """Move on to the next moment at which somebody wakes, and wake them; False if that is after ``end``."""
        if not self._sleepers or self._sleepers[0][0] > end:
            return False
        self.time, _, event = heapq.heappop(self._sleepers)
        event.set()
        return True
