"""What takes real time in a simulation: activities that run in threads or wait for something outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.schemas.errors import AppError


class Work:
    """Counts what is going on, so that a simulation at rest is one in which nothing is."""

    def __init__(self) -> None:
        self.begun = 0
        self._going_on: dict[int, object] = {}
        self._ended = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._going_on)

    @contextmanager
    def going_on(self, what: object) -> Iterator[None]:
        """Say that something takes real time until the body ends."""
        self.begun += 1
        number = self.begun
        self._going_on[number] = what
        try:
            yield
        finally:
            del self._going_on[number]
            self._ended.set()

    async def wait(self, seconds: float) -> None:
        """Return once something has ended; ``AppError`` if nothing does for so many real seconds."""
        self._ended.clear()
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            names = ", ".join(sorted(str(what) for what in self._going_on.values()))
            raise AppError(
                f"{names} has not ended for {seconds:g} seconds of real time; if the test is to end it, "
                "deliver with rest=False and call rest() when it is done"
            ) from None
