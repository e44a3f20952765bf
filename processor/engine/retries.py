"""Activity calls that failed and wait for their next attempt.

The wait is a timer like any other: the instance persists, may be unloaded, and goes on wherever the timer fires.
As long as other activities of the instance run, it cannot be idle, and the next attempt begins in memory.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.events.types import ActivityDelayed, BookmarkClosed, BookmarkOpened, TimerFired
from holdfast.processor.core.bookmarks import prefix
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer


class Retries:
    """Keeps, in the calls of one instance, how many attempts each has had and when its next one is due."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer

    def restore(self) -> None:
        """Know again what the state knows."""
        state = self._writer.state
        for call in self._asks.calls() if state.calls else ():
            known = state.calls.get(call.key)
            if known is not None and known.status == "delayed":
                bookmark = state.bookmarks.get(_timer(call, known.attempts))
                call.attempts = known.attempts
                call.due = None if bookmark is None or bookmark.due is None else datetime.fromisoformat(bookmark.due)

    def seconds(self) -> float | None:
        """Return how long it takes until an attempt is due; None if none is waited for."""
        due = [call.due for call in self._asks.calls() if call.due is not None]
        return (min(due) - self._runtime.now()).total_seconds() if due else None

    def begin(self, call: Call, error: BaseException, seconds: float, attempts: int) -> None:
        """Open the timer of the next attempt, after so many ``attempts`` of which the last raised ``error``."""
        try:
            due = self._runtime.now() + timedelta(seconds=seconds)
        except OverflowError:
            due = datetime.max.replace(tzinfo=UTC)
        call.attempts, call.due = attempts, due
        self._writer.record(
            ActivityDelayed(
                where=call.where,
                activity=call.name,
                idempotency_key=call.key,
                attempts=attempts,
                error=encode_value(error, self._runtime.app.types),
                due=due.isoformat(),
            )
        )
        name = _timer(call, attempts)
        self._writer.record(BookmarkOpened(where=call.where, bookmark=name, kind="timer", due=due.isoformat()))

    def fire(self, call: Call, due: datetime, *, by: str | None = None, why: str | None = None) -> None:
        """Have a call tried again: the timer of its next attempt was due, or somebody has it fire."""
        name = _timer(call, call.attempts)
        call.due = None
        self._writer.record(
            TimerFired(where=call.where, bookmark=name, closes=(name,), due=due.isoformat(), by=by, why=why)
        )

    def fire_due(self) -> None:
        """Have the calls tried again whose timers are due by now, in the middle of a burst."""
        now = self._runtime.now()
        for call in self._asks.calls():
            if call.due is not None and call.due <= now:
                self.fire(call, call.due)

    def close(self, call: Call) -> None:
        """Wait no longer for the next attempt of a call that has ended, or was taken back."""
        if call.due is not None:
            self._writer.record(BookmarkClosed(where=call.where, bookmark=_timer(call, call.attempts)))
        call.attempts, call.due = 0, None


def _timer(call: Call, attempts: int) -> str:
    """Return the name of the timer after so many attempts: no name is closed and opened again in one batch."""
    return f"{prefix(call)}:retry-{attempts}"
