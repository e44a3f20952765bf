"""How long to wait before the next try."""

from __future__ import annotations

from random import Random


class Backoff:
    """Doubling waits with jitter, so that clients that fell together do not come back together.

    ``first`` and ``ceiling`` are seconds; a wait is drawn from the upper half of its range.
    """

    def __init__(self, random: Random, *, first: float = 0.1, ceiling: float = 15.0) -> None:
        self._random = random
        self._first = first
        self._ceiling = ceiling
        self._next = first

    def wait(self) -> float:
        """Return the seconds to wait now; the next call returns more."""
        span = self._next
        self._next = min(self._ceiling, span * 2)
        return span * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next = self._first
