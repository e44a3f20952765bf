"""The transaction for the SQL of users: open from a batch's first record activity until its commit."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

from holdfast.events.types import Where
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.provider import Batch, UnitOfWork
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.schemas.errors import HoldfastError

T = TypeVar("T")


class UserSql:
    """Opens the transaction when it is first needed, and bounds how long it stays open.

    ``committed_at`` is when the latest batch became durable, on the monotonic clock; 0 before the first.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._unit: UnitOfWork | None = None
        self._stack = AsyncExitStack()
        self._marks: list[bool] = []
        self._deadline = 0.0
        self.committed_at = 0.0

    @property
    def seconds_open(self) -> float | None:
        """For how long the transaction has been open; None if there is none."""
        if self._unit is None:
            return None
        runtime = self._runtime
        return runtime.environment.monotonic() - self._deadline + runtime.settings.transaction_timeout

    @property
    def is_open(self) -> bool:
        """Whether there is an open transaction."""
        return self._unit is not None

    async def unit(self) -> UnitOfWork:
        """Return the open transaction, opening it if there is none."""
        if self._unit is None:
            runtime = self._runtime
            self._unit = await self._stack.enter_async_context(runtime.provider.begin(runtime.host_id))
            self._deadline = runtime.environment.monotonic() + runtime.settings.transaction_timeout
        return self._unit

    async def mark(self) -> None:
        """Remember how far the user's SQL has come; marks nest."""
        if self._unit is not None:
            await self._unit.mark()
        self._marks.append(self._unit is not None)

    async def back_to_mark(self) -> None:
        """Roll back to the latest mark, and forget it."""
        if not self._marks.pop():
            await self._roll_back()
        elif self._unit is not None:
            await self._unit.back_to_mark()

    async def drop_mark(self) -> None:
        """Forget the latest mark."""
        if self._marks.pop() and self._unit is not None:
            await self._unit.drop_mark()

    async def bound(self, running: Awaitable[T], where: Where) -> T:
        """Await something, for as long as the transaction may still last if one is open.

        Raises ``UnhandledError``, at ``where``, when its time is over.
        """
        if self._unit is None:
            return await running
        environment = self._runtime.environment
        try:
            return await within(environment, self._deadline - environment.monotonic(), running)
        except OutOfTime:
            limit = self._runtime.settings.transaction_timeout
            error = TimeoutError(f"a transaction with user SQL was open for more than {limit:g} seconds")
            raise UnhandledError(error, where) from None

    async def commit(self, batch: Batch) -> None:
        """Commit a batch: with the open transaction, or with the host's next group if there is none."""
        runtime = self._runtime
        try:
            if self._unit is None:
                await runtime.commit.put(batch)
                self.committed_at = runtime.committed_at
            else:
                await self._unit.commit(batch)
                self.committed_at = runtime.environment.monotonic()
                runtime.counts.user_commits += 1
                self._unit = None
                await self._stack.aclose()
        except HoldfastError as error:
            runtime.counts.refused[type(error).__name__] += 1
            raise
        runtime.counts.committed(batch)

    async def drop(self) -> None:
        """Roll back the open transaction, if there is one, and forget all marks."""
        self._marks.clear()
        await self._roll_back()

    async def _roll_back(self) -> None:
        self._unit = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
