"""The live machine of an instance, and what its frames wait for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from holdfast.events.types import Where
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import ROOT, Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.processor.language.program import Program
from holdfast.schemas.identifiers import idempotency_key


class Asks:
    """The asks that have no answer yet, in the order in which they were made.

    There is a ``machine`` once somebody has set it, until ``drop``.
    """

    machine: Machine

    def __init__(self, runtime: Runtime, writer: Writer) -> None:
        self._writer = writer
        self._runtime = runtime
        self._pending: dict[str, Ask] = {}
        self._asked_at: dict[str, datetime] = {}

    def __iter__(self) -> Iterator[Ask]:
        return iter([*self._pending.values()])

    @property
    def is_live(self) -> bool:
        """Whether there is a machine."""
        return hasattr(self, "machine")

    def drop(self) -> None:
        """Forget everything."""
        if self.is_live:
            del self.machine
        self._pending.clear()
        self._asked_at.clear()

    def advance(self) -> list[Ask]:
        """Let the frames go on; return the asks that they took back."""
        machine = self.machine
        new = machine.advance()
        taken_back = [self._pending.pop(path) for path in machine.withdrawn] if machine.withdrawn else []
        for ask in new:
            if isinstance(ask.awaited, ActivityCall):
                self._pending[ask.path] = self.call(ask, ask.awaited)
                continue
            self._pending[ask.path] = ask
            if bookmarks.waits(ask):
                self._asked_at[ask.path] = self._runtime.now()
        return taken_back

    def call(self, ask: Ask, call: ActivityCall[Any]) -> Call:
        """Return the call of an activity that an ask makes, at once or deferred."""
        return Call(
            path=ask.path,
            step=ask.step,
            line=ask.line,
            visit=ask.visit,
            awaited=call,
            activity=self._runtime.app.activities.get(call.activity),
            key=idempotency_key(self._writer.name, ask.path, ask.step, ask.visit, call.activity),
        )

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

    def calls(self) -> list[Call]:
        """Return the asks that are calls of activities."""
        return [ask for ask in self._pending.values() if isinstance(ask, Call)]

    # Bookmarks.

    def at(self, bookmark: str) -> Ask:
        """Return the ask that opened a bookmark."""
        return next(ask for ask in self._pending.values() if bookmarks.belongs(bookmark, ask))

    def bookmarks_of(self, ask: Ask) -> tuple[str, ...]:
        """Return the open bookmarks of an ask."""
        prefix = bookmarks.prefix(ask)
        return tuple([name for name in self._writer.unwritten.open if bookmarks.owner(name) == prefix])

    def abandoned(self) -> list[str]:
        """Return the open bookmarks whose asks were taken back."""
        asked = self._prefixes()
        return [name for name in self._writer.unwritten.open if bookmarks.owner(name) not in asked]

    @property
    def all_wait(self) -> bool:
        """Whether every ask waits at a bookmark, and every open bookmark is that of an ask."""
        return self._prefixes() == {bookmarks.owner(name) for name in self._writer.unwritten.open}

    def _prefixes(self) -> set[str]:
        return {bookmarks.prefix(ask) for ask in self._pending.values()}

    def place(self, default_line: int) -> Where:
        """Return where the root frame stands."""
        if not self.is_live:
            return Where(ROOT, 0, default_line)
        frame = self.machine.frames[ROOT]
        return Where(ROOT, frame.step, frame.line)
