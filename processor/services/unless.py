"""Does something for as long as nobody says that it is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from holdfast.processor.services.first_of import first_of


async def unless(stop: asyncio.Event, doing: Coroutine[Any, Any, object]) -> bool:
    """Return True when it is done, or cancel it as soon as ``stop`` is set and return False; raise what it raises."""
    task = asyncio.ensure_future(doing)
    if task not in await first_of(task, stop.wait()):
        return False
    task.result()
    return True
