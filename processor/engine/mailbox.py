"""What waits for one instance: messages in the host's memory, and what the store holds for it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterable

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.wakeups import Mail
from holdfast.schemas.control import Command


class Mailbox:
    """The inputs of one instance.

    ``arrived`` are messages that only this host has, in the order of their delivery. What the store holds is as of
    the last look; ``is_stale`` says that it has to look again. ``spilling`` is at work while messages are on their way
    from memory into the store; ``leaving`` is one that goes there by itself. ``backlog`` counts, for the whole host and
    by partition, the messages that wait behind a burst.
    """

    def __init__(self, runtime: Runtime, backlog: Counter[int | None], *, is_stale: bool) -> None:
        self._runtime = runtime
        self._backlog = backlog
        self.arrived: deque[Arrival] = deque()
        self.is_stale = is_stale
        self.spilling: asyncio.Task[None] | None = None
        self.leaving: Arrival | None = None
        self._stored: deque[Arrival] = deque()
        self._due: list[str] = []

    async def look(self, instance: LiveInstance) -> None:
        """Ask the store what wakes the instance."""
        self.is_stale = False
        wakeups = await self._runtime.look.put(instance.instance_id)
        messages = wakeups.messages
        if instance.is_unpersisted:
            # The store knows neither what it waits for by now nor what it has taken.
            taken = [arrival.envelope.message_id for arrival in instance.unwritten.taken]
            found = await self._runtime.find_mail.put(
                Mail(instance_id=instance.instance_id, waits=instance.waits, taken=taken)
            )
            messages = [*(m for m in messages if m.kind == "control"), *found]
        self._stored = deque(Arrival.of(message) for message in messages)
        self._due = list(wakeups.due)

    def add(self, arrival: Arrival, *, waits: bool) -> None:
        """Take a message into memory; ``waits`` says that something else comes before it."""
        self.arrived.append(arrival)
        if waits:
            arrival.waits = True
            self._backlog[arrival.partition] += 1

    def put_back(self, arrivals: Iterable[Arrival]) -> None:
        """Take back, before all others, those that a burst had taken and that only this host has."""
        self.arrived.extendleft(a for a in reversed([*arrivals]) if a.stored is None)

    def leave(self, arrival: Arrival) -> None:
        """Have a message in memory no longer."""
        for queue in (self.arrived, self._stored):
            if arrival in queue:
                queue.remove(arrival)
                self._uncount(arrival)
                return

    def empty(self, keeping: Collection[Arrival] = ()) -> list[Arrival]:
        """Give away what is in memory, in order, but for what is to be kept."""
        arrivals = [arrival for arrival in self.arrived if arrival not in keeping]
        self.arrived = deque(arrival for arrival in self.arrived if arrival in keeping)
        for arrival in arrivals:
            self._uncount(arrival)
        return arrivals

    def _uncount(self, arrival: Arrival) -> None:
        if arrival.waits:
            arrival.waits = False
            self._backlog[arrival.partition] -= 1

    async def spilled(self) -> None:
        """Wait until what is on its way into the store is there."""
        while self.spilling is not None:
            spilling = self.spilling
            await asyncio.wait([spilling])
            if self.spilling is spilling:
                self.spilling = None

    def start(self, message_id: str) -> Arrival | None:
        """Return the message that starts the instance."""
        return next((a for a in self.arrived if a.envelope.message_id == message_id), None)

    @property
    def next_command(self) -> Command | None:
        """The oldest control command."""
        return next((command for arrival in self._stored if (command := arrival.command) is not None), None)

    def take_command(self) -> tuple[Arrival, Command] | None:
        """Take out the oldest control command."""
        for arrival in self._stored:
            command = arrival.command
            if command is not None:
                self._stored.remove(arrival)
                return arrival, command
        return None

    def double(self, instance: LiveInstance) -> Arrival | None:
        """Return a message in memory whose id the instance has taken and not persisted yet."""
        taken = {arrival.envelope.message_id for arrival in instance.unwritten.taken}
        return next((a for a in self.arrived if a.envelope.message_id in taken), None) if taken else None

    def next_message(self, instance: LiveInstance) -> tuple[Arrival, str] | None:
        """Return the oldest message that an open bookmark waits for, and that bookmark."""
        for queue in (self._stored, self.arrived):
            for arrival in queue:
                bookmark = instance.waiting_for(arrival.envelope.type, arrival.envelope.key)
                if bookmark is not None:
                    return arrival, bookmark
        return None

    def is_ahead_of_timer(self, instance: LiveInstance) -> bool:
        """Whether the store has a timer due that the instance does not wait for any more."""
        return any(name not in instance.bookmarks for name in self._due)

    def next_timer(self, instance: LiveInstance) -> str | None:
        """Return the open timer that was due first."""
        due = [(moment, name) for name in self._due if (moment := instance.due(name)) is not None]
        if instance.is_unpersisted:
            now = self._runtime.now()
            due += [(moment, name) for name in instance.bookmarks if (moment := instance.due(name)) and moment <= now]
        return min(due)[1] if due else None

    def take_timer(self, name: str) -> None:
        """Take out a timer."""
        if name in self._due:
            self._due.remove(name)
