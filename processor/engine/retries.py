"""Activity calls that failed and wait for their next attempt.

The wait is a timer like any other: the instance persists, may be unloaded, and goes on wherever the timer fires.
As long as other activities of the instance run, it cannot be idle, and the next attempt begins in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.events.types import ActivityDelayed, BookmarkClosed, BookmarkOpened, TimerFired
from holdfast.processor.core.bookmarks import prefix
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer


@dataclass(frozen=True, slots=True)
class _Tried:
    """A call that had so many attempts; ``due`` is when the next one is, if it is waited for."""

    attempts: int
    due: datetime | None


class Retries:
    """The calls of one instance that had an attempt, by idempotency key."""

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
        for call in self._asks.calls() if state.calls else ():
            known = state.calls.get(call.key)
            if known is not None and known.status == "delayed":
                bookmark = state.bookmarks.get(_timer(call, known.attempts))
                due = None if bookmark is None or bookmark.due is None else datetime.fromisoformat(bookmark.due)
                self._tried[call.key] = _Tried(known.attempts, due)

    def attempts(self, call: Call) -> int:
        """Return how many attempts a call has had."""
        tried = self._tried.get(call.key)
        return 0 if tried is None else tried.attempts

    def due(self, call: Call) -> datetime | None:
        """Return when the next attempt of a call is due; None if it is not waited for."""
        tried = self._tried.get(call.key)
        return None if tried is None else tried.due

    def seconds(self) -> float | None:
        """Return how long it takes until an attempt is due; None if none is waited for."""
        if not self._tried:
            return None
        due = [tried.due for tried in self._tried.values() if tried.due is not None]
        return (min(due) - self._runtime.now()).total_seconds() if due else None

    def begin(self, call: Call, error: BaseException, seconds: float, attempts: int) -> None:
        """Open the timer of the next attempt, after so many ``attempts`` of which the last raised ``error``."""
        try:
            due = self._runtime.now() + timedelta(seconds=seconds)
        except OverflowError:
            due = datetime.max.replace(tzinfo=UTC)
        self._tried[call.key] = _Tried(attempts, due)
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
        attempts = self.attempts(call)
        name = _timer(call, attempts)
        self._tried[call.key] = _Tried(attempts, None)
        self._writer.record(
            TimerFired(where=call.where, bookmark=name, closes=(name,), due=due.isoformat(), by=by, why=why)
        )

    def fire_due(self) -> None:
        """Have the calls tried again whose timers are due by now, in the middle of a burst."""
        now = self._runtime.now()
        for call in self._asks.calls():
            due = self.due(call)
            if due is not None and due <= now:
                self.fire(call, due)

    def close(self, call: Call) -> None:
        """Forget a call that has ended, or was taken back."""
        tried = self._tried.pop(call.key, None)
        if tried is not None and tried.due is not None:
            self._writer.record(BookmarkClosed(where=call.where, bookmark=_timer(call, tried.attempts)))


def _timer(call: Call, attempts: int) -> str:
    """Return the name of the timer after so many attempts: no name is closed and opened again in one batch."""
    return f"{prefix(call)}:retry-{attempts}"
