"""The world outside: time, randomness and threads, passed in so that a simulation can supply its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Protocol, TypeVar
from uuid import UUID

from holdfast.schemas.identifiers import uuid7

T = TypeVar("T")


class Environment(Protocol):
    """What the engine may ask of the world besides storage and messages."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        ...

    def new_id(self) -> UUID:
        """Return a fresh UUIDv7."""
        ...

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function that may block, in a thread of its own, with this task's context."""
        ...


class RealEnvironment:
    """The machine's clock and randomness."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def new_id(self) -> UUID:
        return uuid7(time.time_ns() // 1_000_000, os.urandom(10))

    async def in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)
