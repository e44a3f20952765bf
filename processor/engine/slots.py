"""How many instances a host runs at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.processor.language.workflow import Workflow


class Slots:
    """Slots for ``limit`` instances in all, and for ``max_bursts`` of a workflow that says so.

    An instance has a slot while it has something to do. Who finds none free waits, in the order of coming: for one of
    its workflow first, so that a workflow at its own limit holds up no other.
    """

    def __init__(self, limit: int, workflows: Iterable[Workflow]) -> None:
        self._all = asyncio.Semaphore(limit)
        self._own = {w.name: asyncio.Semaphore(w.max_bursts) for w in workflows if w.max_bursts is not None}

    async def take(self, workflow: str) -> None:
        """Wait for a slot and take it."""
        own = self._own.get(workflow)
        if own is None:
            await self._all.acquire()
            return
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise

    def give_back(self, workflow: str) -> None:
        """Have the next one go on in this place."""
        own = self._own.get(workflow)
        if own is not None:
            own.release()
        self._all.release()

    async def pass_on(self, workflow: str) -> None:
        """Let others go first that wait for this slot, so that one instance with much to do keeps nobody waiting."""
        own = self._own.get(workflow)
        if self._all.locked() or (own is not None and own.locked()):
            self.give_back(workflow)
            await self.take(workflow)
