"""A bound on how often something is done: so many times a second, spread over the second."""

from __future__ import annotations

from collections import deque

SAVED = 0.05
"""Seconds for which tokens add up while nobody takes any: enough for a timer that rings late, and no burst."""

_ALMOST = 1e-9
"""What a sum of floating-point numbers may lack of a whole token."""


class TokenBucket:
    """Gives out ``rate`` tokens a second, on the clock whose reading, in seconds, each call passes in.

    Within no second, wherever that begins, are there more than ``rate``; and after a pause there are at once no more
    than fit into ``SAVED`` seconds, or one.
    """

    def __init__(self, rate: int, now: float) -> None:
        if rate < 1:
            raise ValueError(f"a bucket gives out at least one token a second, not {rate}")
        self._rate = rate
        self._depth = max(1.0, rate * SAVED)
        self._tokens = 1.0
        self._filled_at = now
        self._taken: deque[float] = deque(maxlen=rate)

    def take(self, now: float) -> float:
        """Take a token and return 0, or take none and return the seconds after which to ask again."""
        self._tokens = min(self._depth, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        wait = (1 - self._tokens) / self._rate if self._tokens < 1 - _ALMOST else 0.0
        if len(self._taken) == self._rate:
            wait = max(wait, self._taken[0] + 1 - now)
        if wait > 0:
            return wait
        self._tokens -= 1
        self._taken.append(now)
        return 0.0
