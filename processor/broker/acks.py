"""Which acks to send, so that no message is acked before it is settled and few frames say it all.

Deliveries are numbered from 1 on each channel and are settled in any order. One ack with ``multiple``
stands for every delivery up to its tag, and so may be sent only up to the highest tag below which all are
settled. Tags beyond a gap wait for it to close, as it mostly does within moments; when many wait, or it
takes long, they are acked one by one. RabbitMQ closes the channel on an ack for a tag that is not
outstanding, so the tag of a ``multiple`` must itself be one that was not acked before.
"""

from __future__ import annotations

from typing import NamedTuple


class Ack(NamedTuple):
    """An ack to send: of one delivery, or of all outstanding ones up to ``tag``."""

    tag: int
    multiple: bool


class AckTracker:
    """The settled deliveries of one channel; ``limit`` is how many may wait behind a gap."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._floor = 0  # Every tag up to it is settled.
        self._until = 0  # The next ack with `multiple`; 0 if there is none to send.
        self._waiting: set[int] = set()  # Settled, not acked, above the floor.
        self._acked: set[int] = set()  # Acked one by one, above the floor.

    @property
    def settled(self) -> int:
        """How many deliveries were settled."""
        return self._floor + len(self._waiting) + len(self._acked)

    @property
    def settled_up_to(self) -> int:
        """The last delivery before which, with itself, all are settled."""
        return self._floor

    @property
    def has_waiting(self) -> bool:
        """Whether settled deliveries wait behind a gap."""
        return bool(self._waiting)

    def settle(self, tag: int) -> None:
        """Note that a delivery needs no redelivery; saying so again changes nothing."""
        if tag <= self._floor or tag in self._acked:
            return
        self._waiting.add(tag)
        self._advance()

    def leave_out(self, tag: int) -> None:
        """Note that a delivery was answered otherwise than by an ack, and is not to be acked."""
        self._acked.add(tag)
        self._advance()

    def _advance(self) -> None:
        following = self._floor + 1
        while True:
            if following in self._waiting:
                self._waiting.remove(following)
                self._until = following
            elif following in self._acked:
                self._acked.remove(following)
            else:
                break
            following += 1
        self._floor = following - 1

    def take(self, *, everything: bool = False) -> list[Ack]:
        """Return the acks to send now, and take them for sent.

        What waits behind a gap is among them if it is more than the limit, or ``everything`` is asked for.
        """
        acks = []
        if self._until:
            acks.append(Ack(self._until, multiple=True))
            self._until = 0
        if self._waiting and (everything or len(self._waiting) > self._limit):
            acks += [Ack(tag, multiple=False) for tag in sorted(self._waiting)]
            self._acked |= self._waiting
            self._waiting.clear()
        return acks
