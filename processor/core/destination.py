"""Where history is published again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Destination:
    """An exchange; or a queue, that is reached through the default exchange, whose name is empty."""

    exchange: str
    queue: str | None = None

    def __str__(self) -> str:
        return f"exchange {self.exchange}" if self.queue is None else f"queue {self.queue}"

    def routing_key(self, own: str) -> str:
        """Return the routing key of a message that has its ``own`` where an exchange goes by it."""
        return own if self.queue is None else self.queue
