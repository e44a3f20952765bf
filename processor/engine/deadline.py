"""Bounds the time that something may take, by the clock of the host's environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from holdfast.processor.engine.environment import Environment

T = TypeVar("T")


class OutOfTime(Exception):
    """The time was over; what ran was cancelled, and has ended."""


async def within(environment: Environment, seconds: float, running: Awaitable[T]) -> T:
    """Return what ``running`` gives, or cancel it after ``seconds`` and raise ``OutOfTime``.

    What has ended by then counts, however late its end was noticed.
    """
    task = asyncio.ensure_future(running)
    timer = asyncio.ensure_future(environment.sleep(max(0.0, seconds)))
    try:
        await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None:
            return task.result()
        raise OutOfTime
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
