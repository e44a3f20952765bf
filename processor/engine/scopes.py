"""Transaction scopes and ``no_persist``: what is open, and what may be awaited inside.

Nothing is persisted while one is open, so nothing of this has to survive a crash: the instance goes back
to before the scope. For the same reason a scope is alone: as long as it is open, only what its own frame and
those below it ask for is served; other branches of a ``gather`` wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from holdfast.events.types import Json, MessageReceived, MessageSent, TransactionRolledBack, Where
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.inner_streams import is_within
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import (
    Checkpoint,
    ContinueAsNew,
    Delay,
    Enter,
    FirstOf,
    Leave,
    NoPersist,
    Receive,
    SubflowCall,
    Suspend,
    TransactedReceive,
    TransactionScope,
)
from holdfast.processor.language.options import Persistence
from holdfast.schemas.errors import ScopeError

T = TypeVar("T")

_WAITS = {
    Receive: "receive()",
    Delay: "delay()",
    FirstOf: "first_of()",
    Checkpoint: "checkpoint()",
    Suspend: "suspend()",
    ContinueAsNew: "continue_as_new()",
}

_OF_ITS_OWN = ("checkpoint()", "continue_as_new()", "transacted_receive()", "start()", "spawn()")
"""What needs a transaction of its own."""


@dataclass(slots=True)
class _Open:
    """A scope that was entered and not left: where, and how far the batch had come by then."""

    where: Where
    scope: TransactionScope | TransactedReceive[Any] | NoPersist
    sent: int
    deferred: int
    deadline: float | None
    arrival: Arrival | None = None
    expired: TimeoutError | None = None


class Scopes:
    """The open scopes of one instance, innermost last.

    ``returned`` are the messages of transacted receives that failed: they are to be offered again.
    """

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer, persistence: Persistence) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._is_regular = persistence == "regular"
        self._open: list[_Open] = []
        self.returned: list[Arrival] = []

    def drop(self) -> None:
        """Forget everything."""
        self._open.clear()
        self.returned.clear()

    @property
    def around(self) -> str | None:
        """The innermost open scope, in words; None if there is none and the instance can be persisted."""
        if not self._open:
            return None
        name = "no_persist()" if isinstance(self._open[-1].scope, NoPersist) else "a transaction"
        return f"{name} at line {self._open[-1].where.line}"

    # What is allowed.

    def serves(self, ask: Ask) -> bool:
        """Whether an ask may be served now, rather than when an open scope has been left."""
        return not self._open or is_within(ask.path, self._open[-1].where.frame)

    def served(self, asks: Iterable[Ask]) -> list[Ask]:
        """Return which of them may be served now."""
        return [ask for ask in asks if self.serves(ask)] if self._open else list(asks)

    def may_persist(self, ask: Ask) -> bool:
        """Whether a persistence point may be taken on behalf of an ask."""
        return not self._open and not self.is_inner(ask)

    def may_idle(self, ask: Ask) -> bool:
        """Whether an ask may wait at a bookmark: it is neither in an open scope nor in the transactions of another."""
        return not any(is_within(ask.path, opened.where.frame) for opened in self._open) and not self.is_inner(ask)

    def commits_each(self, ask: Ask) -> bool:
        """Whether this call of an activity has a transaction of its own."""
        return self._is_regular and self.may_persist(ask)

    def is_inner(self, ask: Ask) -> bool:
        """Whether an ask comes from a subflow that runs within the transactions of this instance."""
        return self._writer.inner.around(ask.path) is not None

    def objections(self, asks: Iterable[Ask]) -> list[tuple[Ask, ScopeError]]:
        """Return the asks that make no sense where they stand, and why."""
        if not self._open and not self._writer.inner:
            return []
        return [(ask, error) for ask in asks if (error := self._objection(ask)) is not None]

    def _objection(self, ask: Ask) -> ScopeError | None:
        if self._open:
            return self._objection_in_scope(ask, _name(ask))
        if not self.is_inner(ask):
            return None
        name = _name(ask)
        if name in _OF_ITS_OWN or (isinstance(ask, Call) and ask.must_not_repeat):
            return ScopeError(
                what=f"{name} inside a subflow that was called by run()",
                mend="Such a subflow has no transactions of its own: use start() to call it.",
                line=ask.line,
            )
        return None

    def _objection_in_scope(self, ask: Ask, name: str | None) -> ScopeError | None:
        around = "no_persist()" if isinstance(self._open[-1].scope, NoPersist) else "a transaction"
        if name is not None:
            return ScopeError(
                what=f"{name} inside {around}",
                mend="Nothing is persisted in there, so nothing can be waited for or intended: put it before or after.",
                line=ask.line,
            )
        entered = ask.awaited.scope if isinstance(ask.awaited, Enter) else None
        if isinstance(entered, TransactionScope) and any(isinstance(o.scope, NoPersist) for o in self._open):
            return ScopeError(
                what="transaction() inside no_persist()",
                mend="Its end is a persistence point: leave no_persist() first.",
                line=ask.line,
            )
        return None

    # Entering and leaving.

    async def enter(self, ask: Ask) -> None:
        """Serve an ``Enter`` that waits for no message."""
        scope = cast("Enter[Any]", ask.awaited).scope
        if isinstance(scope, NoPersist):
            self._push(ask, scope)
        elif isinstance(scope, TransactionScope):
            await self._begin(ask, scope)
        self._asks.answer(ask, Returned())

    async def receive(self, ask: Ask, arrival: Arrival) -> None:
        """Begin the transaction of a transacted receive, whose message has come."""
        scope = cast("TransactedReceive[Any]", cast("Enter[Any]", ask.awaited).scope)
        await self._begin(ask, scope)
        self._open[-1].arrival = arrival

    async def leave(self, ask: Ask) -> None:
        """Serve a ``Leave``: complete the scope, or undo what it did."""
        leaving = cast("Leave", ask.awaited)
        opened = self._open[-1]
        if isinstance(opened.scope, NoPersist):
            self._open.pop()
            self._asks.answer(ask, Returned())
            return
        if leaving.error is None and opened.deadline is not None and self._remaining(opened) <= 0:
            opened.expired = opened.expired or self._timeout(opened)
        error = leaving.error or opened.expired
        self._open.pop()
        self._tell_machine()
        if error is None:
            await self._writer.sql.drop_mark()
            self._asks.answer(ask, Returned())
            if self.may_persist(ask):
                received = isinstance(opened.scope, TransactedReceive)
                reason = "transacted_receive_completed" if received else "transaction_completed"
                await self._writer.persist(cast("Any", reason), self._asks.machine)
            return
        await self._undo(opened)
        self._writer.record(TransactionRolledBack(where=ask.where, error=encode_value(error, self._runtime.app.types)))
        self._asks.answer(ask, Returned() if leaving.error is not None else Raised(error))

    async def give_up(self, error: Json) -> None:
        """Undo what the open scopes did: with that error the instance has ended, and nobody leaves them any more."""
        while self._open:
            opened = self._open.pop()
            if not isinstance(opened.scope, NoPersist):
                await self._undo(opened)
                self._writer.record(TransactionRolledBack(where=opened.where, error=error))

    async def bound(self, ask: Ask, running: Awaitable[T]) -> T:
        """Await something for a frame, for as long as the innermost transaction scope may still last.

        When its time is over, ``TimeoutError`` is the outcome of the ask, and the scope can only fail.
        """
        if not self._open and not self._writer.sql.is_open:
            return await running
        bounded = self._writer.sql.bound(running, ask.where)
        limited = [opened for opened in self._open if opened.deadline is not None]
        if not limited:
            return await bounded
        opened = min(limited, key=self._remaining)
        try:
            return await within(self._runtime.environment, self._remaining(opened), bounded)
        except OutOfTime:
            opened.expired = self._timeout(opened)
            raise opened.expired from None

    async def _begin(self, ask: Ask, scope: TransactionScope | TransactedReceive[Any]) -> None:
        if isinstance(scope, TransactionScope) and self.commits_each(ask) and self._writer.unwritten.has_activity:
            await self._writer.persist("activity_completed", self._asks.machine)
        limit = self._runtime.settings.transaction_timeout
        if isinstance(scope, TransactionScope) and scope.timeout is not None:
            limit = min(limit, scope.timeout.total_seconds())
        await self._writer.sql.mark()
        self._push(ask, scope, self._runtime.environment.monotonic() + limit)

    def _push(self, ask: Ask, scope: Any, deadline: float | None = None) -> None:
        unwritten = self._writer.unwritten
        self._open.append(_Open(ask.where, scope, len(unwritten.outgoing), len(unwritten.deferred), deadline))
        self._tell_machine()

    async def _undo(self, opened: _Open) -> None:
        """Drop the record writes, messages and pending work since a scope was entered."""
        await self._writer.sql.back_to_mark()
        unwritten = self._writer.unwritten
        dropped = {message.message_id for message in unwritten.outgoing[opened.sent :]}
        del unwritten.outgoing[opened.sent :], unwritten.deferred[opened.deferred :]
        arrival = opened.arrival
        if arrival is not None:
            unwritten.taken.remove(arrival)
            self.returned.append(arrival)
        received = None if arrival is None else arrival.envelope.message_id
        unwritten.keep(
            [
                event
                for event in unwritten.events
                if not (isinstance(event, MessageSent) and event.message_id in dropped)
                and not (isinstance(event, MessageReceived) and event.message_id == received)
            ]
        )

    def _remaining(self, opened: _Open) -> float:
        return (opened.deadline or 0.0) - self._runtime.environment.monotonic()

    def _timeout(self, opened: _Open) -> TimeoutError:
        limit = self._runtime.settings.transaction_timeout
        if isinstance(opened.scope, TransactionScope) and opened.scope.timeout is not None:
            limit = min(limit, opened.scope.timeout.total_seconds())
        return TimeoutError(f"the transaction was open for more than {limit:g} seconds")

    def _tell_machine(self) -> None:
        """Let the machine know where transactions are open, for scopes that it serves itself."""
        frames = (opened.where.frame for opened in self._open if not isinstance(opened.scope, NoPersist))
        self._asks.machine.transactions = frozenset(frames)


def _name(ask: Ask) -> str | None:
    """Return what to call what waits, or needs a persistence point before it begins; None for the rest."""
    awaited = ask.awaited
    if isinstance(ask, Call):
        if ask.activity is not None and ask.activity.queue is not None:
            return f"{ask.name}(), which is on a queue,"
        return f"{ask.name}(), which is not repeatable," if ask.must_not_repeat else None
    if isinstance(awaited, Enter) and isinstance(awaited.scope, TransactedReceive):
        return "transacted_receive()"
    if isinstance(awaited, SubflowCall) and awaited.mode != "run":
        return f"{awaited.mode}()"
    return _WAITS.get(type(awaited))
