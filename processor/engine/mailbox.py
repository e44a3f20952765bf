"""What waits for one instance: messages in the host's memory, and what the store holds for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.runtime import Runtime
from holdfast.schemas.control import Command


class Mailbox:
    """The inputs of one instance.

    ``arrived`` are messages that only this host has, in the order of their delivery. What the store holds is as of
    the last look; ``is_stale`` says that it has to look again.
    """

    def __init__(self, runtime: Runtime, *, is_stale: bool) -> None:
        self._runtime = runtime
        self.arrived: deque[Arrival] = deque()
        self.is_stale = is_stale
        self._stored: deque[Arrival] = deque()
        self._due: list[str] = []

    async def look(self, instance: LiveInstance) -> None:
        """Ask the store what wakes the instance."""
        self.is_stale = False
        wakeups = await self._runtime.look.put(instance.instance_id)
        self._stored = deque(Arrival.of(message) for message in wakeups.messages)
        self._due = list(wakeups.due)

    def put_back(self, arrivals: Iterable[Arrival]) -> None:
        """Take back, before all others, those that a burst had taken and that only this host has."""
        self.arrived.extendleft(a for a in reversed([*arrivals]) if a.stored is None)

    def leave(self, arrival: Arrival) -> None:
        """Have a message in memory no longer."""
        for queue in (self.arrived, self._stored):
            if arrival in queue:
                queue.remove(arrival)
                return

    def start(self, message_id: str) -> Arrival | None:
        """Return the message that starts the instance."""
        return next((a for a in self.arrived if a.envelope.message_id == message_id), None)

    def take_command(self) -> tuple[Arrival, Command] | None:
        """Take out the oldest control command."""
        for arrival in self._stored:
            command = arrival.command
            if command is not None:
                self._stored.remove(arrival)
                return arrival, command
        return None

    def next_message(self, instance: LiveInstance) -> tuple[Arrival, str] | None:
        """Return the oldest message that an open bookmark waits for, and that bookmark."""
        for queue in (self._stored, self.arrived):
            for arrival in queue:
                bookmark = instance.waiting_for(arrival.envelope.type, arrival.envelope.key)
                if bookmark is not None:
                    return arrival, bookmark
        return None

    def next_timer(self, instance: LiveInstance) -> str | None:
        """Return the open timer that was due first."""
        due = [(moment, name) for name in self._due if (moment := instance.due(name)) is not None]
        return min(due)[1] if due else None

    def take_timer(self, name: str) -> None:
        """Take out a timer."""
        self._due.remove(name)
