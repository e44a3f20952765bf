"""Ends what has no time left: code of the app may pay no heed to being cancelled, and is not waited for then."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

HEED = 1.0
"""Seconds that cancelled code has to end."""


async def cut_short(tasks: Collection[asyncio.Future[Any]], *, seconds: float = HEED) -> int:
    """Cancel tasks and wait until they have ended, ``seconds`` at most; return how many go on."""
    for task in tasks:
        task.cancel()
    return await ended(tasks, seconds=seconds)


async def ended(tasks: Collection[asyncio.Future[Any]], *, seconds: float = HEED) -> int:
    """Wait until tasks have ended, however they do, ``seconds`` at most; return how many go on."""
    if not tasks:
        return 0
    done, pending = await asyncio.wait(tasks, timeout=seconds)
    # Nobody wants to know of their errors, and asyncio is not to complain that nobody asked.
    for task in done:
        _ = task.cancelled() or task.exception()
    return len(pending)
