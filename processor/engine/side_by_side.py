"""The code activities of a ``gather`` while they run at the same time, each as a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.activities import Postponed, Result, attempts_in
from holdfast.processor.engine.call import Call
from holdfast.schemas.errors import Cancelled

Ended = tuple[Call, Returned | Raised | Postponed, int]
"""The call of an activity, how it ended, and with how many attempts."""


@dataclass(frozen=True, slots=True)
class _Run:
    call: Call
    task: asyncio.Task[Result]
    context: Context
    can_be_cancelled: bool

    def result(self) -> Ended:
        if self.task.cancelled():
            return self.call, Raised(Cancelled()), attempts_in(self.context)
        outcome, attempts = self.task.result()
        return self.call, outcome, attempts


class SideBySide:
    """Running activities, by idempotency key."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __contains__(self, call: Call) -> bool:
        return call.key in self._runs

    def __iter__(self) -> Iterator[Call]:
        return iter([run.call for run in self._runs.values()])

    def start(self, call: Call, running: Coroutine[Any, Any, Result], *, can_be_cancelled: bool) -> None:
        """Let one more run; a thread cannot be cancelled."""
        context = copy_context()
        task = asyncio.create_task(running, context=context)
        self._runs[call.key] = _Run(call, task, context, can_be_cancelled)

    async def first(self) -> list[Ended]:
        """Wait until one has ended; return each that has, in the order of their start, with its attempts."""
        await asyncio.wait([run.task for run in self._runs.values()], return_when=asyncio.FIRST_COMPLETED)
        ended = [key for key, run in self._runs.items() if run.task.done()]
        return [self._runs.pop(key).result() for key in ended]

    async def cancel(self, calls: Iterable[Call]) -> list[Ended]:
        """Cancel those of them that run and can be, wait for these, and return how each ended."""
        calls = [call for call in calls if call in self]
        for call in calls:
            if self._runs[call.key].can_be_cancelled:
                self._runs[call.key].task.cancel()
        return await self.end(calls)

    async def end(self, calls: Iterable[Call]) -> list[Ended]:
        """Wait for all of these, and return how each ended."""
        runs = [self._runs[call.key] for call in calls]
        if runs:
            await asyncio.wait([run.task for run in runs])
        for run in runs:
            del self._runs[run.call.key]
        return [run.result() for run in runs]

    async def stop(self) -> None:
        """Cancel all: the burst is over, and nobody wants to know how they end."""
        tasks = [run.task for run in self._runs.values()]
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
