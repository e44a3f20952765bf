"""Does something for as long as nobody says that it is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def unless(stop: asyncio.Event, doing: Coroutine[Any, Any, object]) -> bool:
    """Return True when it is done, or cancel it as soon as ``stop`` is set and return False; raise what it raises."""
    task, stopping = asyncio.ensure_future(doing), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
