"""The partitions whose due timers wait: messages that came before this host may still lie in their queues.

When nobody worked for days, both a message and a timer may have come to wait, and the message came first. So the timers
of a partition are held back from the moment at which this host begins to consume it until everything that it found
there is settled (``services/takeover.py`` says when), or until a grace has passed. That of a partition which this host
does not consume passes too: should nobody consume it, somebody has to fire its timers.
"""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast.processor.engine.environment import Environment

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When a message arrived of which nobody knows when: before every timer that waits beside it."""


class Backlogs:
    """Whose timers wait, and for how long at most: ``grace`` seconds. Without a word of it nobody's do."""

    def __init__(self, environment: Environment, grace: float) -> None:
        self._environment = environment
        self._grace = grace
        self._open: dict[int, float] = {}

    def open(self, partition: int) -> None:
        """Hold the partition's timers back, from now on."""
        self._open[partition] = self._environment.monotonic() + self._grace

    def close(self, partition: int) -> None:
        """Let the partition's timers fire: what came before is settled."""
        self._open.pop(partition, None)

    def is_open(self, partition: int) -> bool:
        """Whether messages that came before may still lie in the partition."""
        return partition in self._open

    @property
    def held_back(self) -> list[int]:
        """The partitions whose timers wait now."""
        return sorted(partition for partition in self._open if self.holds_back(partition))

    def holds_back(self, partition: int) -> bool:
        """Whether a partition's timers wait now."""
        until = self._open.get(partition)
        return until is not None and self._environment.monotonic() < until

    def arrival(self, partition: int | None, timestamp: int | None, now: datetime) -> datetime:
        """Return when a message that is delivered now has arrived.

        One that may have waited in its queue before this host came arrived at the ``timestamp`` that its publisher gave
        it (seconds since 1970), if that lies in the past; without a timestamp, long ago.
        """
        if partition not in self._open:
            return now
        if timestamp is None or not 0 < timestamp <= now.timestamp():
            return LONG_AGO
        return datetime.fromtimestamp(timestamp, UTC)
