"""What the store says of how it stands, said again for a while, so that many scrapes ask it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from holdfast.processor.engine.environment import Environment
from holdfast.processor.store.connections import Connection, Connections
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.monitoring")

T = TypeVar("T")

FRESH = 15.0
"""Seconds for which an answer is given again."""

SHARE = 50
"""How many times as long as it took to ask the store it is left alone: its share of the database stays below 2 %."""

PATIENCE = 4.0
"""Seconds that the store may take to answer."""


class Remembered(Generic[T]):
    """The answer to one question."""

    def __init__(
        self, database: Connections, environment: Environment, ask: Callable[[Connection], Awaitable[T]]
    ) -> None:
        self._database = database
        self._environment = environment
        self._ask = ask
        self._asking = asyncio.Lock()
        self._answer: T | None = None
        self._fresh_until = 0.0

    async def get(self) -> T | None:
        """Return the answer; None if the store gave none."""
        async with self._asking:
            began = self._environment.monotonic()
            if began < self._fresh_until:
                return self._answer
            try:
                async with asyncio.timeout(PATIENCE):
                    self._answer = await self._database.run(self._ask)
            except (StorageError, TimeoutError) as error:
                log.warning("store not asked", error=str(error) or f"no answer within {PATIENCE:g} s")
                self._answer = None
            now = self._environment.monotonic()
            self._fresh_until = now + max(FRESH, SHARE * (now - began))
            return self._answer
