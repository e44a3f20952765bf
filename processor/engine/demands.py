"""Persistence points that somebody outside asks for while an instance is busy.

Each is taken between two asks of the burst, as soon as no scope is open in which nothing is persisted. What waits for
the end of such a scope for too long is given up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from holdfast.events.types import Event, PersistRequested, UnloadRequested
from holdfast.processor.core.machine import Machine
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.writer import Writer
from holdfast.schemas.control import Command


def requested(command: Command) -> Event:
    """Return the event that says who asked for a persistence point."""
    kind = UnloadRequested if command.command == "unload" else PersistRequested
    return kind(by=command.by, why=command.why)


@dataclass(frozen=True, slots=True)
class _Demand:
    arrival: Arrival
    command: Command
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Demands:
    """The commands ``persist`` and ``unload`` that wait in the middle of a burst, by message id."""

    def __init__(self, runtime: Runtime, writer: Writer, scopes: Scopes) -> None:
        self._runtime = runtime
        self._writer = writer
        self._scopes = scopes
        self._open: dict[str, _Demand] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, arrival: Arrival, command: Command) -> bool:
        """Have a command wait for the next point where it can be followed; False if it waits already."""
        if arrival.envelope.message_id in self._open:
            return False
        self._open[arrival.envelope.message_id] = _Demand(arrival, command)
        return True

    def clear(self) -> None:
        """Forget them: the burst is over, and the inbox has them still."""
        for message_id in [*self._open]:
            self._take(message_id)

    async def heed(self, machine: Machine, *, may_unload: bool) -> bool:
        """Take the persistence point that is asked for, if it can be taken here; True if it lets the instance go.

        Without ``may_unload`` something runs that must not be cut off, and ``unload`` has to wait for its end.
        """
        if self._scopes.around is not None:
            return False
        ids = [i for i, demand in self._open.items() if may_unload or demand.command.command != "unload"]
        if not ids:
            return False
        heeded = [self._take(message_id) for message_id in ids]
        for demand in heeded:
            self._writer.take(demand.arrival)
            self._writer.record(requested(demand.command))
        unloads = any(demand.command.command == "unload" for demand in heeded)
        await self._writer.persist("unload" if unloads else "requested", machine)
        return unloads

    async def overdue(self, arrival: Arrival) -> str | None:
        """Return why a command is given up, once a scope has kept it waiting for too long; None once it is gone.

        One that still waits when a scope is open came while it was: it is followed before the next one is entered.
        """
        limit = self._runtime.settings.persist_patience
        message_id = arrival.envelope.message_id
        while (demand := self._open.get(message_id)) is not None:
            try:
                await within(self._runtime.environment, limit, demand.gone.wait())
            except OutOfTime:
                around = self._scopes.around
                if around is not None and self._open.get(message_id) is demand:
                    self._take(message_id)
                    return f"for {limit:g} seconds it was in {around}, where nothing is persisted"
        return None

    def _take(self, message_id: str) -> _Demand:
        demand = self._open.pop(message_id)
        demand.gone.set()
        return demand
