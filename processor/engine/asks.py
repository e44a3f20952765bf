"""The live machine of an instance, and what its frames wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from holdfast.events.types import BookmarkClosed, BookmarkOpened, MessageReceived, SubflowEnded, TimerFired, Where
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import ROOT, Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import ActivityCall, Defer
from holdfast.processor.language.program import Program
from holdfast.schemas.identifiers import idempotency_key


class Asks:
    """The asks that have no answer yet, in the order in which they were made."""

    def __init__(self, writer: Writer, now: Callable[[], datetime]) -> None:
        self._writer = writer
        self._now = now
        self._machine: Machine | None = None
        self._pending: dict[str, Ask] = {}
        self._asked_at: dict[str, datetime] = {}

    def __iter__(self) -> Iterator[Ask]:
        return iter([*self._pending.values()])

    @property
    def is_live(self) -> bool:
        """Whether there is a machine."""
        return self._machine is not None

    @property
    def machine(self) -> Machine:
        """The live machine."""
        if self._machine is None:
            raise RuntimeError("the instance has no live machine")
        return self._machine

    @machine.setter
    def machine(self, machine: Machine) -> None:
        self._machine = machine

    def drop(self) -> None:
        """Forget everything."""
        self._machine = None
        self._pending.clear()
        self._asked_at.clear()

    def advance(self) -> list[Ask]:
        """Let the frames go on; return the asks that they took back."""
        new, withdrawn = self.machine.advance(), list(self.machine.withdrawn)
        taken_back = [self._pending.pop(path) for path in withdrawn]
        for ask in new:
            self._pending[ask.path] = ask
            if bookmarks.waits(ask):
                self._asked_at[ask.path] = self._now()
        return taken_back

    def answer(self, ask: Ask, outcome: Returned | Raised) -> None:
        """Hand a frame what it waits for."""
        del self._pending[ask.path]
        self.machine.answer(ask.path, outcome)

    def retract(self, ask: Ask, error: Exception) -> None:
        """Raise an exception in a frame instead of the answer that it was handed and has not taken yet."""
        self.machine.frames[ask.path].interrupt(error)

    def enter(self, ask: Ask, program: Program, arguments: Mapping[str, Any], child: str) -> str:
        """Answer with a frame of a subflow's program, and return the frame's path; raises ``RecursionError``."""
        path = self.machine.enter(ask.path, program, arguments, child)
        del self._pending[ask.path]
        return path

    def is_pending(self, ask: Ask) -> bool:
        """Whether an ask has been neither answered nor taken back."""
        return self._pending.get(ask.path) is ask

    def asked_at(self, ask: Ask) -> datetime:
        """Return when an ask that waits was made or, after a restart, made again."""
        return self._asked_at[ask.path]

    # Calls of activities.

    def calls(self) -> list[Ask]:
        """Return the asks that are calls of activities."""
        return [ask for ask in self._pending.values() if isinstance(ask.awaited, ActivityCall)]

    def key(self, ask: Ask) -> str:
        """Return the idempotency key of a call, or of one that is deferred."""
        call = ask.awaited.call if isinstance(ask.awaited, Defer) else call_of(ask)
        return idempotency_key(self._writer.instance_id, ask.path, ask.step, ask.visit, call.activity)

    # Bookmarks.

    def at(self, bookmark: str) -> Ask:
        """Return the ask that opened a bookmark."""
        return next(ask for ask in self._pending.values() if bookmarks.belongs(bookmark, ask))

    def bookmarks_of(self, ask: Ask) -> tuple[str, ...]:
        """Return the open bookmarks of an ask."""
        return tuple(name for name in self._open() if bookmarks.belongs(name, ask))

    def abandoned(self) -> list[str]:
        """Return the open bookmarks whose asks were taken back."""
        return [
            name for name in self._open() if not any(bookmarks.belongs(name, ask) for ask in self._pending.values())
        ]

    def _open(self) -> Iterable[str]:
        """Return the names of the bookmarks that are open now, with what the batch has changed so far."""
        names = dict.fromkeys(self._writer.state.bookmarks)
        for event in self._writer.unwritten.events:
            if isinstance(event, BookmarkOpened):
                names[event.bookmark] = None
            elif isinstance(event, BookmarkClosed):
                names.pop(event.bookmark, None)
            elif isinstance(event, MessageReceived | TimerFired | SubflowEnded):
                for name in event.closes:
                    names.pop(name, None)
        return names

    def place(self, default_line: int) -> Where:
        """Return where the root frame stands."""
        if self._machine is None:
            return Where(ROOT, 0, default_line)
        frame = self._machine.frames[ROOT]
        return Where(ROOT, frame.step, frame.line)


def call_of(ask: Ask) -> ActivityCall[Any]:
    """Return what an ask calls, which is an activity."""
    return cast("ActivityCall[Any]", ask.awaited)


def where(ask: Ask) -> Where:
    """Return the place of an ask, as events have it."""
    return Where(ask.path, ask.step, ask.line)
