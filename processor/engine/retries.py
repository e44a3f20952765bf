"""Activity calls that failed and wait for their next attempt.

The wait is a timer like any other: the instance persists, may be unloaded, and goes on wherever the timer fires.
As long as other activities of the instance run, it cannot be idle, and the next attempt begins in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.events.types import ActivityDelayed, BookmarkClosed, BookmarkOpened, TimerFired
from holdfast.processor.core.bookmarks import prefix
from holdfast.processor.core.machine import Ask
from holdfast.processor.engine.asks import Asks, call_of, where
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer


@dataclass(frozen=True, slots=True)
class _Tried:
    """A call that had so many attempts; ``due`` is when the next one is, if it is waited for."""

    attempts: int
    due: datetime | None


class Retries:
    """The calls of one instance that had an attempt, by what the names of their bookmarks begin with."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._tried: dict[str, _Tried] = {}

    def drop(self) -> None:
        """Forget everything."""
        self._tried.clear()

    def restore(self) -> None:
        """Know again what the state knows."""
        state = self._writer.state
        for ask in self._asks.calls() if state.calls else ():
            call = state.calls.get(self._asks.key(ask))
            if call is not None and call.status == "delayed":
                bookmark = state.bookmarks.get(_timer(ask, call.attempts))
                due = None if bookmark is None or bookmark.due is None else datetime.fromisoformat(bookmark.due)
                self._tried[prefix(ask)] = _Tried(call.attempts, due)

    def attempts(self, ask: Ask) -> int:
        """Return how many attempts a call has had."""
        tried = self._tried.get(prefix(ask))
        return 0 if tried is None else tried.attempts

    def due(self, ask: Ask) -> datetime | None:
        """Return when the next attempt of a call is due; None if it is not waited for."""
        tried = self._tried.get(prefix(ask)) if self._tried else None
        return None if tried is None else tried.due

    def seconds(self) -> float | None:
        """Return how long it takes until an attempt is due; None if none is waited for."""
        due = [tried.due for tried in self._tried.values() if tried.due is not None]
        return (min(due) - self._runtime.now()).total_seconds() if due else None

    def begin(self, ask: Ask, error: BaseException, seconds: float, attempts: int) -> None:
        """Open the timer of the next attempt, after so many ``attempts`` of which the last raised ``error``."""
        try:
            due = self._runtime.now() + timedelta(seconds=seconds)
        except OverflowError:
            due = datetime.max.replace(tzinfo=UTC)
        self._tried[prefix(ask)] = _Tried(attempts, due)
        self._writer.record(
            ActivityDelayed(
                where=where(ask),
                activity=call_of(ask).activity,
                idempotency_key=self._asks.key(ask),
                attempts=attempts,
                error=encode_value(error, self._runtime.app.types),
                due=due.isoformat(),
            )
        )
        name = _timer(ask, attempts)
        self._writer.record(BookmarkOpened(where=where(ask), bookmark=name, kind="timer", due=due.isoformat()))

    def fire(self, ask: Ask, due: datetime) -> None:
        """Have a call tried again: the timer of its next attempt was due."""
        attempts = self.attempts(ask)
        name = _timer(ask, attempts)
        self._tried[prefix(ask)] = _Tried(attempts, None)
        self._writer.record(TimerFired(where=where(ask), bookmark=name, closes=(name,), due=due.isoformat()))

    def fire_due(self) -> None:
        """Have the calls tried again whose timers are due by now, in the middle of a burst."""
        now = self._runtime.now()
        for ask in self._asks.calls():
            due = self.due(ask)
            if due is not None and due <= now:
                self.fire(ask, due)

    def close(self, ask: Ask) -> None:
        """Forget a call that has ended, or was taken back."""
        tried = self._tried.pop(prefix(ask), None)
        if tried is not None and tried.due is not None:
            self._writer.record(BookmarkClosed(where=where(ask), bookmark=_timer(ask, tried.attempts)))


def _timer(ask: Ask, attempts: int) -> str:
    """Return the name of the timer after so many attempts: no name is closed and opened again in one batch."""
    return f"{prefix(ask)}:retry-{attempts}"
