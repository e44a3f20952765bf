"""Collects what is ready and serves it in one go.

While one group is on its way the next one gathers; an idle system serves a single item at once, without
a timer. Commits, routes, registrations and loads all go through a batcher of their own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Turns many concurrent ``put`` calls into few calls of ``serve``.

    ``serve`` takes at most ``limit`` items and answers each in order; an answer that is an exception is
    raised from that item's ``put`` alone, an exception raised by ``serve`` from all of the group's.
    """

    def __init__(self, serve: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, limit: int) -> None:
        self._serve = serve
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def put(self, item: T) -> R:
        """Hand one item in and return its answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                if group:
                    await self._serve_group(group)
        finally:
            self._task = None

    def _next_group(self) -> list[tuple[T, asyncio.Future[R]]]:
        group: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(group) < self._limit:
            item, future = self._waiting.popleft()
            # Who was cancelled while waiting wants nothing any more.
            if not future.done():
                group.append((item, future))
        return group

    async def _serve_group(self, group: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._serve([item for item, _ in group])
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    if isinstance(error, Exception):
                        future.set_exception(error)
                    else:
                        future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
