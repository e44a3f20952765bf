"""Activity calls that failed and wait for their next attempt.

The wait is a timer like any other: the instance persists, may be unloaded, and goes on wherever the timer fires.
As long as other activities of the instance run, it cannot be idle, and the next attempt begins in memory.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.events.types import ActivityDelayed, BookmarkClosed, BookmarkOpened, TimerFired
from holdfast.processor.core.bookmarks import prefix
from holdfast.processor.core.machine import Ask
from holdfast.processor.engine.activities import Postponed
from holdfast.processor.engine.asks import Asks, call_of, where
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer

SUFFIX = ":retry"
"""What the name of such a timer ends with."""


class Retries:
    """The calls of one instance that had an attempt, by the names of their timers."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._attempts: dict[str, int] = {}
        self._due: dict[str, datetime] = {}

    def drop(self) -> None:
        """Forget everything."""
        self._attempts.clear()
        self._due.clear()

    def restore(self) -> None:
        """Know again what the state knows."""
        state = self._writer.state
        for ask in self._asks.calls() if state.calls else ():
            call = state.calls.get(self._asks.key(ask))
            if call is not None and call.status == "delayed":
                self._attempts[_timer(ask)] = call.attempts
                bookmark = state.bookmarks.get(_timer(ask))
                if bookmark is not None and bookmark.due is not None:
                    self._due[_timer(ask)] = datetime.fromisoformat(bookmark.due)

    def attempts(self, ask: Ask) -> int:
        """Return how many attempts a call has had."""
        return self._attempts.get(_timer(ask), 0)

    def is_waiting(self, ask: Ask) -> bool:
        """Whether the next attempt of a call is not due yet."""
        return _timer(ask) in self._due

    def seconds(self) -> float | None:
        """Return how long it takes until an attempt is due; None if none is waited for."""
        if not self._due:
            return None
        return (min(self._due.values()) - self._runtime.now()).total_seconds()

    def begin(self, ask: Ask, failed: Postponed, attempts: int) -> None:
        """Open the timer of the next attempt."""
        try:
            due = self._runtime.now() + timedelta(seconds=failed.seconds)
        except OverflowError:
            due = datetime.max.replace(tzinfo=UTC)
        name, moment = _timer(ask), due.isoformat()
        self._attempts[name] = attempts
        self._due[name] = due
        self._writer.record(
            ActivityDelayed(
                where=where(ask),
                activity=call_of(ask).activity,
                idempotency_key=self._asks.key(ask),
                attempts=attempts,
                error=encode_value(failed.error, self._runtime.app.types),
                due=moment,
            )
        )
        self._writer.record(BookmarkOpened(where=where(ask), bookmark=name, kind="timer", due=moment))

    def fire(self, ask: Ask) -> None:
        """Have a call tried again: the timer of its next attempt was due."""
        due = self._due.pop(_timer(ask))
        name = _timer(ask)
        self._writer.record(TimerFired(where=where(ask), bookmark=name, closes=(name,), due=due.isoformat()))

    def fire_due(self) -> None:
        """Have the calls tried again whose timers are due by now, in the middle of a burst."""
        now = self._runtime.now()
        for ask in self._asks.calls():
            if self.is_waiting(ask) and self._due[_timer(ask)] <= now:
                self.fire(ask)

    def close(self, ask: Ask) -> None:
        """Forget a call that has ended, or was taken back."""
        self._attempts.pop(_timer(ask), None)
        if self._due.pop(_timer(ask), None) is not None:
            self._writer.record(BookmarkClosed(where=where(ask), bookmark=_timer(ask)))


def _timer(ask: Ask) -> str:
    return f"{prefix(ask)}{SUFFIX}"
