"""Why the broker gave up on a message, read from what came out of the dead-letter queue."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.processor.broker.frames import Properties


@dataclass(frozen=True, slots=True)
class Death:
    """The broker's last word on a message.

    ``reason`` is the broker's own word (``delivery_limit``, ``rejected``, ``expired``, ``maxlen``), or
    ``unknown`` for a message that somebody put into the queue by hand; ``queue`` is where it died (empty if
    unknown) and ``count`` how many times it died there.
    """

    reason: str
    queue: str = ""
    count: int = 1


def read_death(properties: Properties) -> Death:
    """Return why a message is in the dead-letter queue; the most recent death of several."""
    deaths = properties.headers.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return Death("unknown")
    last = deaths[0]
    reason, queue, count = last.get("reason"), last.get("queue"), last.get("count")
    return Death(
        reason if isinstance(reason, str) and reason else "unknown",
        queue if isinstance(queue, str) else "",
        count if isinstance(count, int) else 1,
    )
