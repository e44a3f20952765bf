"""How many instances a host has loaded at a time."""

from __future__ import annotations

import asyncio

from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.environment import Environment


class NoPlace(Exception):
    """The host has as many instances loaded as it may, and all are busy."""


class Places:
    """Places for ``limit`` loaded instances; who finds none waits, in the order of coming.

    ``wanted`` is how many wait. ``was_refused`` says that somebody did not wait, and is to hear of the next free one.
    """

    def __init__(self, environment: Environment, limit: int) -> None:
        self._environment = environment
        self._free = asyncio.Semaphore(limit)
        self.wanted = 0
        self.was_refused = False

    @property
    def are_taken(self) -> bool:
        """Whether who comes now has to wait."""
        return self._free.locked()

    async def take(self, patience: float) -> None:
        """Take a place, or raise ``NoPlace`` if there is none within so many seconds."""
        if not self.are_taken:
            await self._free.acquire()
            return
        if patience <= 0:
            self.was_refused = True
            raise NoPlace
        self.wanted += 1
        try:
            await within(self._environment, patience, self._free.acquire())
        except OutOfTime:
            raise NoPlace from None
        finally:
            self.wanted -= 1

    def give_back(self) -> None:
        """Have the next one take this place."""
        self._free.release()
