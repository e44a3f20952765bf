"""One loaded instance: its machine, the batch that is not yet written, and what makes it go on.

A *burst* is all that the instance does from being woken to being idle or closed. The machine asks, and
what it asks for is served here or by the modules beside this one; each may add to the batch and take
persistence points. Where a burst cannot go on it raises; who holds the instance (``engine/holding.py``)
decides what becomes of it and of the messages that it had taken.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import orjson

from holdfast.events.types import (
    BookmarkClosed,
    BookmarkOpened,
    CancelRequested,
    InstanceCancelled,
    InstanceCompleted,
    InstanceFaulted,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    MessageReceived,
    Reason,
    TimerFired,
    Where,
)
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.activity_calls import ActivityCalls
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.asks import Asks, where
from holdfast.processor.engine.persistence_point import encode_value, images_of
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.sending import Sending
from holdfast.processor.engine.unhandled import UnhandledError, line_of
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import (
    ActivityCall,
    Checkpoint,
    Defer,
    Enter,
    Leave,
    Reply,
    Send,
    Suspend,
)
from holdfast.processor.language.program import Program
from holdfast.processor.language.workflow import Workflow
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import CompensationFailed, KeyInUse, ProgramUnresolvable
from holdfast.schemas.message import Message


class LiveInstance:
    """An instance that this host holds, between being loaded and being let go.

    ``unresolvable`` says why its own program cannot run here; it can then only be suspended.
    """

    def __init__(
        self,
        runtime: Runtime,
        loaded: Loaded,
        workflow: Workflow,
        program: Program,
        unresolvable: ProgramUnresolvable | None = None,
    ) -> None:
        self.runtime = runtime
        self.unresolvable = unresolvable
        self.instance_id = loaded.instance_id
        self.loaded = loaded
        self.workflow = workflow
        self.program = program
        self._types = runtime.app.types
        self._writer = Writer(runtime, loaded, program.line)
        self._asks = Asks(self._writer, runtime.now)
        self._scopes = Scopes(runtime, self._asks, self._writer, workflow.persistence)
        self._activities = ActivityCalls(runtime, self._asks, self._writer, self._scopes)
        self._sending = Sending(runtime, self._asks, self._writer)

    @property
    def state(self) -> InstanceState:
        """The state as of the last persistence point."""
        return self._writer.state

    @property
    def closed(self) -> bool:
        """Whether the instance has ended."""
        return self.state.execution_status == "closed"

    # What wakes an instance.

    def begin(self, arrival: Arrival, message: Message) -> None:
        """Start from the message that starts the workflow."""
        envelope, loaded = arrival.envelope, self.loaded
        self._writer.take(arrival)
        self._writer.record(
            InstanceStarted(
                workflow=self.workflow.name,
                program_hash=self.program.hash,
                correlation_key=loaded.correlation_key,
                message_id=envelope.message_id,
                message_type=envelope.type,
                body=orjson.loads(envelope.body),
                reply_to=envelope.reply_to,
                parent=None if loaded.parent_id is None else str(loaded.parent_id),
                subflow=loaded.subflow,
            )
        )
        self._sending.reply_to = envelope.reply_to
        arguments = {self.workflow.parameter: message}
        self._asks.machine = Machine.start(self.program, arguments, self.runtime.routine)

    async def receive(self, bookmark: str, arrival: Arrival, message: Message) -> None:
        """Resume a bookmark with a message."""
        ask = self._asks.at(bookmark)
        envelope = arrival.envelope
        self._writer.take(arrival)
        self._writer.record(
            MessageReceived(
                where=where(ask),
                bookmark=bookmark,
                closes=self._asks.bookmarks_of(ask),
                message_id=envelope.message_id,
                message_type=envelope.type,
                correlation_key=envelope.key,
                body=orjson.loads(envelope.body),
                reply_to=envelope.reply_to,
            )
        )
        self._sending.reply_to = envelope.reply_to
        if isinstance(ask.awaited, Enter):
            await self._scopes.receive(ask, arrival)
        self._asks.answer(ask, bookmarks.by_message(ask, bookmark, message))

    def fire(self, bookmark: str) -> None:
        """Resume a bookmark whose timer is due."""
        ask = self._asks.at(bookmark)
        self._writer.record(
            TimerFired(
                where=where(ask),
                bookmark=bookmark,
                closes=self._asks.bookmarks_of(ask),
                due=self.state.bookmarks[bookmark].due or "",
            )
        )
        self._asks.answer(ask, bookmarks.by_timer(ask, bookmark))

    def resume(self, command: Arrival) -> None:
        """Let a suspended instance go on; it is durable with the next persistence point."""
        by, why = by_whom(command)
        self._writer.take(command)
        self._writer.record(InstanceResumed(by=by, why=why))

    def cancel(self, command: Arrival) -> None:
        """Let the instance unwind from where it stands."""
        by, why = by_whom(command)
        self._writer.take(command)
        if self.state.is_suspended:
            self._writer.record(InstanceResumed(by=by, why=why))
        self._writer.record(CancelRequested(by=by, why=why))
        self._asks.machine.cancel()

    async def end(self, command: Arrival) -> None:
        """End the instance at once, without unwinding: it is to be terminated, or cancelled before it ran."""
        by, why = by_whom(command)
        self._writer.take(command)
        if command_of(command) == "terminate":
            await self._writer.close("terminated", InstanceTerminated(by=by, why=why))
        else:
            await self._writer.close("cancelled", CancelRequested(by=by, why=why), InstanceCancelled())

    def restore(self) -> None:
        """Make the stored frames live again, if they are not; asks that are pending are asked again."""
        if not self._asks.is_live:
            images = images_of(self.state, self._types)
            programs = {**self.runtime.routine_programs, self.program.hash: self.program}
            self._asks.machine = Machine.restore(programs, images, self.runtime.routine)
            self._asks.advance()

    @property
    def must_run(self) -> bool:
        """Whether the instance can go on by itself, as after a crash in the middle of a burst."""
        return (
            self._asks.machine.outcome is not None
            or any(not self._asks.bookmarks_of(ask) for ask in self._asks)
            or bool(self._asks.abandoned())
        )

    # The burst.

    async def run(self) -> None:
        """Run until the instance is idle, suspended or closed, with a persistence point at the end.

        Raises ``UnhandledError``, ``NotPersistable`` and whatever a commit answers; nothing since the
        last persistence point is durable then, and the instance must be dropped or suspended.
        """
        try:
            while not await self._go_on():
                pass
        finally:
            await self._activities.stop()

    async def _go_on(self) -> bool:
        """Run until all frames wait, and do something about it; True once the burst is over."""
        await self._activities.withdraw(self._asks.advance())
        outcome = self._asks.machine.outcome
        if outcome is not None:
            return await self._end(outcome)
        asks = [ask for ask in self._asks if self._scopes.serves(ask)]
        refused = [ask for ask in asks if self._refuse(ask)]
        if refused:
            return False
        served = [ask for ask in asks if isinstance(ask.awaited, _AT_ONCE) and not bookmarks.waits(ask)]
        for ask in served:
            if self._scopes.serves(ask) and await self._serve(ask):
                return True
        if served:
            return False
        calls = [ask for ask in asks if isinstance(ask.awaited, ActivityCall)]
        if not calls:
            return await self._idle()
        await self._activities.serve(calls)
        return False

    def _refuse(self, ask: Ask) -> bool:
        """Answer an ask that makes no sense where it stands; False if it does make sense."""
        error = self._scopes.objection(ask)
        if error is not None:
            self._asks.answer(ask, Raised(error))
        return error is not None

    async def _serve(self, ask: Ask) -> bool:
        """Serve an ask that needs no time; True if that ends the burst."""
        match ask.awaited:
            case Send() | Reply():
                self._sending.serve(ask)
            case Defer():
                await self._activities.defer(ask)
            case Enter():
                await self._scopes.enter(ask)
            case Leave():
                await self._scopes.leave(ask)
            case Suspend(reason=reason):
                self._asks.answer(ask, Returned())
                suspended = InstanceSuspended(reason="requested", detail=reason, where=where(ask))
                await self._writer.persist("suspended", self._asks.machine, suspended)
                return True
            case Checkpoint():
                self._asks.answer(ask, Returned())
                await self._writer.persist("checkpoint", self._asks.machine)
        return False

    async def _idle(self) -> bool:
        """Open the bookmarks of all asks, close those of asks withdrawn, and persist; False if one cannot be opened."""
        unwritten = self._writer.unwritten
        before = len(unwritten.events)
        for name in self._asks.abandoned():
            mark = self.state.bookmarks[name]
            self._writer.record(
                BookmarkClosed(where=Where(mark.frame, self._step_of(mark.frame), mark.line), bookmark=name)
            )
        for ask in self._asks:
            if self._asks.bookmarks_of(ask):
                continue
            try:
                opened = bookmarks.opened(ask, self._asks.asked_at(ask))
            except OverflowError as error:
                del unwritten.events[before:]
                self._asks.answer(ask, Raised(error))
                return False
            unwritten.events += opened
        try:
            await self._writer.persist("idle", self._asks.machine)
        except KeyInUse as error:
            ask = next(a for a in self._asks if self._waits_for(a, error))
            if self._writer.sql.is_open:
                # The user SQL is rolled back with the commit, so the burst cannot go on from here.
                raise UnhandledError(error, where(ask)) from error
            del unwritten.events[before:]
            self._asks.answer(ask, Raised(error))
            return False
        return True

    # The end.

    async def _end(self, outcome: Returned | Raised) -> bool:
        """Close the instance, unless there is something to be confirmed or undone first."""
        machine = self._asks.machine
        if isinstance(outcome, Returned):
            if machine.settle("confirm"):
                return False
            result = encode_value(outcome.value, self._types)
            await self._close("completed", InstanceCompleted(result=result))
            return True
        policy = self.workflow.on_unhandled
        error = encode_value(outcome.error, self._types)
        if isinstance(outcome.error, CompensationFailed):
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
        self._writer.record(event)
        await self._writer.persist(reason, self._asks.machine)

    def _where_raised(self, error: BaseException) -> Where:
        place = self._asks.place(self.program.line)
        return replace(place, line=line_of(error, self.program, place.line))

    # What others ask for.

    async def persist_requested(self) -> None:
        """Take a persistence point because somebody outside asked for it."""
        await self._writer.persist("requested", self._asks.machine)

    async def suspend(self, suspended: InstanceSuspended, commands: tuple[Arrival, ...] = ()) -> None:
        """Suspend at the last persistence point; what came after it must have been dropped before.

        ``commands`` are used up by it: those that were to resume it and did not come to a persistence
        point, or the one that asks for it.
        """
        for command in commands:
            if command_of(command) == "resume":
                self.resume(command)
            else:
                self._writer.take(command)
        await self._writer.suspend(suspended)

    async def drop(self) -> list[Arrival]:
        """Forget everything since the last persistence point; return the messages that it had taken."""
        given_back = self.given_back()
        self._asks.drop()
        self._scopes.drop()
        taken = await self._writer.drop()
        self._sending.reply_to = self.state.reply_to
        return [*given_back, *taken]

    def given_back(self) -> list[Arrival]:
        """Return, once, the messages that failed transacted receives did not consume."""
        returned, self._scopes.returned = self._scopes.returned, []
        return returned

    # Small parts.

    def waiting_for(self, message_type: str, key: str) -> str | None:
        """Return the open bookmark that such a message would resume."""
        for name, bookmark in self.state.bookmarks.items():
            if bookmark.message_type == message_type and bookmark.correlation_key == key:
                return name
        return None

    def due(self, bookmark: str) -> datetime | None:
        """Return when an open timer is due; None if it is not open."""
        found = self.state.bookmarks.get(bookmark)
        return None if found is None or found.due is None else datetime.fromisoformat(found.due)

    @property
    def _is_cancelling(self) -> bool:
        return self.state.is_cancelling or any(isinstance(e, CancelRequested) for e in self._writer.unwritten.events)

    def _step_of(self, path: str) -> int:
        """Return the step at which a frame stood when it was last persisted, or its caller if it is a branch."""
        while path not in self.state.frames:
            path = path.rpartition(".")[0]
        return self.state.frames[path].step

    def _waits_for(self, ask: Ask, error: KeyInUse) -> bool:
        return any(
            event.message_type == error.message_type and event.correlation_key == error.correlation_key
            for event in self._writer.unwritten.events
            if isinstance(event, BookmarkOpened) and bookmarks.belongs(event.bookmark, ask)
        )


_AT_ONCE = (Send, Reply, Defer, Enter, Leave, Suspend, Checkpoint)
"""What is served without waiting for anything outside."""


def command_of(arrival: Arrival) -> str:
    """Return what a control row commands."""
    return cast("str", orjson.loads(arrival.envelope.body).get("command"))


def by_whom(command: Arrival) -> tuple[str, str | None]:
    """Return who gave a command, and why."""
    body: dict[str, Any] = orjson.loads(command.envelope.body)
    return body.get("by") or "unknown", body.get("why")
