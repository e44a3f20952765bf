"""The code activities of a ``gather`` while they run at the same time, each as a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.activities import Postponed, Result, attempts_in
from holdfast.schemas.errors import Cancelled

Ended = tuple[Ask, Returned | Raised | Postponed, int]
"""The ask of an activity, how it ended, and with how many attempts."""


@dataclass(frozen=True, slots=True)
class _Run:
    ask: Ask
    task: asyncio.Task[Result]
    context: Context
    can_be_cancelled: bool

    def result(self) -> Ended:
        if self.task.cancelled():
            return self.ask, Raised(Cancelled()), attempts_in(self.context)
        outcome, attempts = self.task.result()
        return self.ask, outcome, attempts


class SideBySide:
    """Running activities, by the path of the ask that each is to answer."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __contains__(self, ask: Ask) -> bool:
        return ask.path in self._runs

    def __iter__(self) -> Iterator[Ask]:
        return iter([run.ask for run in self._runs.values()])

    def start(self, ask: Ask, running: Coroutine[Any, Any, Result], *, can_be_cancelled: bool) -> None:
        """Let one more run; a thread cannot be cancelled."""
        context = copy_context()
        task = asyncio.create_task(running, context=context)
        self._runs[ask.path] = _Run(ask, task, context, can_be_cancelled)

    async def first(self) -> list[Ended]:
        """Wait until one has ended; return each that has, in the order of their start, with its attempts."""
        await asyncio.wait([run.task for run in self._runs.values()], return_when=asyncio.FIRST_COMPLETED)
        ended = [path for path, run in self._runs.items() if run.task.done()]
        return [self._runs.pop(path).result() for path in ended]

    async def cancel(self, paths: Iterable[str]) -> list[Ended]:
        """Cancel those that can be, wait for all of these, and return how each ended."""
        paths = [path for path in paths if path in self._runs]
        for path in paths:
            if self._runs[path].can_be_cancelled:
                self._runs[path].task.cancel()
        return await self.end(paths)

    async def end(self, paths: Iterable[str]) -> list[Ended]:
        """Wait for all of these, and return how each ended."""
        runs = [self._runs[path] for path in paths]
        if runs:
            await asyncio.wait([run.task for run in runs])
        for run in runs:
            del self._runs[run.ask.path]
        return [run.result() for run in runs]

    async def stop(self) -> None:
        """Cancel all: the burst is over, and nobody wants to know how they end."""
        tasks = [run.task for run in self._runs.values()]
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
