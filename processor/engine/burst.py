"""A burst: all that an instance does from being woken to being idle, suspended or closed.

The machine asks, and what it asks for is served here or by the modules beside this one. Each may add to the
batch and take persistence points.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from holdfast.events.types import (
    CancelRequested,
    InstanceCancelled,
    InstanceCompleted,
    InstanceFaulted,
    InstanceSuspended,
    Reason,
    Where,
)
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.activity_calls import ActivityCalls
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.demands import Demands
from holdfast.processor.engine.doubt import Doubt
from holdfast.processor.engine.persistence_point import encode_result, encode_value
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.engine.queued import QueuedCalls
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.sending import Sending
from holdfast.processor.engine.subflows import Subflows
from holdfast.processor.engine.unhandled import UnhandledError, line_of
from holdfast.processor.engine.waiting import Waiting
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import (
    Checkpoint,
    ContinueAsNew,
    Defer,
    Enter,
    Leave,
    Reply,
    Send,
    SubflowCall,
    Suspend,
)
from holdfast.processor.language.program import Program
from holdfast.processor.language.workflow import Workflow
from holdfast.schemas.errors import CompensationFailed, ContinuedAsNew, KeyInUse, TransactionConflict


class CutShort(Exception):
    """A burst ends before its end, as a command asks for; what it did since the last persistence point is to go."""


class Burst:
    """Runs one instance; the parts that serve it are public, for who wakes it."""

    def __init__(self, runtime: Runtime, loaded: Loaded, workflow: Workflow, program: Program) -> None:
        self._loaded = loaded
        self._workflow = workflow
        self._program = program
        self._types = runtime.app.types
        self._idle: Reason | None = None
        self.writer = Writer(runtime, loaded, program.line)
        self.asks = Asks(runtime, self.writer)
        self.scopes = Scopes(runtime, self.asks, self.writer, workflow.persistence)
        self.doubt = Doubt(runtime, self.asks, self.writer)
        self.activities = ActivityCalls(runtime, self.asks, self.writer, self.scopes, self.doubt)
        self.queued = QueuedCalls(runtime, self.asks, self.writer, self.activities)
        self.sending = Sending(runtime, self.asks, self.writer)
        self.subflows = Subflows(runtime, self.asks, self.writer, workflow)
        self._waiting = Waiting(self.asks, self.writer, self.subflows, self.queued)
        self.demands = Demands(runtime, self.writer, self.scopes)
        self._task: asyncio.Task[Any] | None = None
        self._is_cut = False
        self._was_cancelled = False

    @property
    def place(self) -> Where:
        """Where the root frame stands."""
        return self.asks.place(self._program.line)

    @property
    def is_running(self) -> bool:
        """Whether the burst is under way."""
        return self._task is not None

    def cut_short(self) -> None:
        """Have the burst end at once, unless it is committing, and else once it has."""
        if self._task is not None and not self._is_cut:
            self._is_cut = True
            self._was_cancelled = self.activities.are_awaited and self._task.cancel()

    async def run(self, idle: Reason | None) -> None:
        """Run until the instance is idle, suspended, unloaded or closed, with a persistence point at the end.

        ``idle`` is its reason if the instance is idle then; None if it need not be taken.
        Raises ``UnhandledError``, ``NotPersistable``, ``CutShort`` and whatever a commit answers; nothing since the
        last persistence point is durable then, and the instance must be dropped or suspended.
        """
        self._task, self._is_cut, self._was_cancelled = asyncio.current_task(), False, False
        self._idle = idle
        try:
            if self.writer.participants.are_there:
                await self.writer.load_participants()
            while not await self._go_on():
                pass
        except asyncio.CancelledError:
            # Who ends the host cancels the task too, and has the last word.
            if not self._was_cancelled or self._task is None or self._task.cancelling() > 1:
                raise
            raise CutShort from None
        except TransactionConflict:
            # The burst is to be run again: what must not run twice would be in doubt if it were cut off here.
            await self.writer.sql.drop()
            await self.activities.finish()
            raise
        finally:
            if self._was_cancelled and self._task is not None:
                self._task.uncancel()
            self._task = None
            self.demands.clear()
            await self.activities.stop()

    async def advance(self) -> None:
        """Let the frames go on, and see to what those had under way that were cancelled or have ended."""
        taken_back = self.asks.advance()
        if taken_back:
            calls = [ask for ask in taken_back if isinstance(ask, Call)]
            await self.activities.withdraw(calls)
            self.subflows.withdraw(taken_back)
            self.queued.withdraw(calls)
        if self.asks.machine.left:
            self.subflows.leave()

    async def _go_on(self) -> bool:
        """Run until all frames wait, and do something about it; True once the burst is over."""
        if self._is_cut:
            raise CutShort
        await self.advance()
        outcome = self.asks.machine.outcome
        if outcome is not None:
            return await self._end(outcome)
        if self.demands and await self.demands.heed(self.asks.machine, may_unload=not self.activities.must_end):
            return True
        asks = self.scopes.served(self.asks)
        refused = self.scopes.objections(asks)
        if refused:
            for ask, error in refused:
                self.asks.answer(ask, Raised(error))
            return False
        at_once: list[Ask] = []
        here: list[Call] = []
        elsewhere: list[Ask] = []
        others_wait = False
        for ask in asks:
            if isinstance(ask, Call):
                if self.queued.serves(ask):
                    elsewhere.append(ask)
                elif ask.due is None:
                    here.append(ask)
                else:
                    others_wait = True
            elif _is_at_once(ask):
                at_once.append(ask)
            elif isinstance(ask.awaited, SubflowCall):
                elsewhere.append(ask)
        if at_once and self.activities.must_end:
            at_once = [ask for ask in at_once if not isinstance(ask.awaited, Suspend)]
        for ask in at_once:
            if self.scopes.serves(ask) and await self._serve(ask):
                return True
        if at_once:
            return False
        if not here:
            return await self._waiting.idle(self._idle)
        # What begins elsewhere need not wait for what runs here.
        early = [ask for ask in elsewhere if self.scopes.may_persist(ask) and not self.asks.bookmarks_of(ask)]
        if early:
            await self._waiting.begin(early, idle=False)
        else:
            await self.activities.serve(here, others_wait=others_wait)
        return False

    async def _serve(self, ask: Ask) -> bool:
        """Serve an ask that needs no time; True if that ends the burst."""
        match ask.awaited:
            case Send() | Reply():
                self.sending.serve(ask)
            case Defer():
                await self.activities.defer(ask)
            case Enter():
                await self.scopes.enter(ask)
            case Leave():
                await self.scopes.leave(ask)
            case Suspend(reason=reason):
                self.asks.answer(ask, Returned())
                suspended = InstanceSuspended(reason="requested", detail=reason, where=ask.where)
                self.subflows.command_all("suspend")
                await self.writer.persist("suspended", self.asks.machine, suspended)
                return True
            case Checkpoint():
                self.asks.answer(ask, Returned())
                await self.writer.persist("checkpoint", self.asks.machine)
            case SubflowCall(mode="run"):
                await self.activities.commit_earlier(ask)
                self.subflows.run(ask)
            case SubflowCall():
                await self._waiting.spawn(ask)
            case ContinueAsNew():
                self.subflows.unwind(ask)
        return False

    # The end.

    async def _end(self, outcome: Returned | Raised) -> bool:
        """Close the instance, unless there is something to be confirmed or undone first."""
        machine = self.asks.machine
        if isinstance(outcome, Returned):
            if machine.settle("confirm"):
                return False
            encoded = encode_value if self._loaded.awaited_as is None else encode_result
            result = encoded(outcome.value, self._types)
            await self._close("completed", InstanceCompleted(result=result))
            return True
        if isinstance(outcome.error, ContinuedAsNew):
            if machine.settle("confirm"):
                return False
            await self._continue(outcome.error)
            return True
        policy = self._workflow.on_unhandled
        error = encode_value(outcome.error, self._types)
        if isinstance(outcome.error, CompensationFailed):
            await self.scopes.give_up(error)
            await self._close("faulted", InstanceFaulted(error=error))
        elif policy == "cancel" or self._is_cancelling:
            if machine.settle("undo"):
                return False
            await self._close("cancelled", InstanceCancelled(error=error, where=self._where_raised(outcome.error)))
        elif policy == "terminate":
            await self._close("faulted", InstanceFaulted(error=error, where=self._where_raised(outcome.error)))
        else:
            raise UnhandledError(outcome.error, self._where_raised(outcome.error))
        return True

    async def _close(self, reason: Reason, event: InstanceCompleted | InstanceFaulted | InstanceCancelled) -> None:
        self.writer.record(event)
        await self.writer.persist(reason, self.asks.machine)

    async def _continue(self, continued: ContinuedAsNew) -> None:
        self.subflows.succeed(continued.input, self.sending.reply_to)
        try:
            await self.writer.persist("completed", self.asks.machine)
        except KeyInUse as error:
            raise UnhandledError(error, self._where_raised(continued)) from error

    def _where_raised(self, error: BaseException) -> Where:
        return replace(self.place, line=line_of(error, self._program, self.place.line))

    @property
    def _is_cancelling(self) -> bool:
        return self.writer.state.is_cancelling or any(
            isinstance(e, CancelRequested) for e in self.writer.unwritten.events
        )


_AT_ONCE = frozenset((Send, Reply, Defer, Enter, Leave, Suspend, Checkpoint, ContinueAsNew))


def _is_at_once(ask: Ask) -> bool:
    """Whether an ask is served without waiting for anything outside."""
    awaited = ask.awaited
    if isinstance(awaited, SubflowCall):
        return awaited.mode != "start"
    return type(awaited) in _AT_ONCE and not bookmarks.waits(ask)
