"""One loaded instance: its machine, the batch that is not yet written, and what makes it go on.

A *burst* is all that the instance does from being woken to being idle or closed. The machine asks, and
what it asks for is served here or by the modules beside this one; each may add to the batch and take
persistence points. Where a burst cannot go on it raises; who holds the instance (``engine/holding.py``)
decides what becomes of it and of the messages that it had taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import orjson

from holdfast.events.types import (
    ActivityRequested,
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
from holdfast.processor.engine.persistence_point import encode_result, encode_value, images_of
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.engine.queued import QueuedCalls
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.sending import Sending
from holdfast.processor.engine.subflows import States, Subflows
from holdfast.processor.engine.unhandled import UnhandledError, line_of
from holdfast.processor.engine.writer import Mark, Writer
from holdfast.processor.language.awaitables import (
    ActivityCall,
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
from holdfast.projections.instance import InstanceState
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.control import Command
from holdfast.schemas.errors import CompensationFailed, ContinuedAsNew, KeyInUse, ProgramUnresolvable
from holdfast.schemas.message import Message
from holdfast.schemas.results import SubflowResult


class LiveInstance:
    """An instance that this host holds, between being loaded and being let go.

    ``unresolvable`` says why its own program cannot run here; it can then only be suspended. ``inner`` are the states
    of the subflows that run within it.
    """

    def __init__(
        self,
        runtime: Runtime,
        loaded: Loaded,
        workflow: Workflow,
        program: Program,
        *,
        unresolvable: ProgramUnresolvable | None = None,
        inner: States | None = None,
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
        self._queued = QueuedCalls(runtime, self._asks, self._writer, self._activities)
        self._sending = Sending(runtime, self._asks, self._writer)
        self._subflows = Subflows(runtime, self._asks, self._writer, workflow)
        self._inner = inner or {}

    @property
    def state(self) -> InstanceState:
        """The state as of the last persistence point."""
        return self._writer.state

    @property
    def place(self) -> Where:
        """Where the root frame stands."""
        return self._asks.place(self.program.line)

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
                awaited_as=None if loaded.awaited_as is None else str(loaded.awaited_as),
            )
        )
        self._sending.reply_to = envelope.reply_to
        arguments = {self.workflow.parameter: message}
        self._asks.machine = Machine.start(self.program, arguments, self.runtime.routine)

    async def receive(self, bookmark: str, arrival: Arrival, message: Message) -> None:
        """Resume a bookmark with a message."""
        ask = self._asks.at(bookmark)
        if isinstance(message, ActivityResult):
            await self._queued.receive(ask, arrival, message)
            return
        envelope = arrival.envelope
        self._writer.take(arrival)
        if isinstance(message, SubflowResult):
            self._subflows.end(ask, message)
            return
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

    async def fire(self, bookmark: str) -> None:
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
        if not isinstance(ask.awaited, ActivityCall):
            self._asks.answer(ask, bookmarks.by_timer(ask, bookmark))
        elif bookmark.endswith(":timeout"):
            await self._queued.time_out(ask)

    def resume(self, arrival: Arrival, command: Command) -> None:
        """Let a suspended instance go on; it is durable with the next persistence point."""
        self._writer.take(arrival)
        self._writer.record(InstanceResumed(by=command.by, why=command.why))
        if self.state.suspension_reason == "requested":
            self._subflows.command_all("resume")

    def cancel(self, arrival: Arrival, command: Command) -> None:
        """Let the instance unwind from where it stands."""
        self._writer.take(arrival)
        if self.state.is_suspended:
            self._writer.record(InstanceResumed(by=command.by, why=command.why))
        self._writer.record(CancelRequested(by=command.by, why=command.why))
        self._asks.machine.cancel()

    async def end(self, arrival: Arrival, command: Command) -> None:
        """End the instance at once, without unwinding: it is to be terminated, or cancelled before it ran."""
        by, why = command.by, command.why
        self._writer.take(arrival)
        if command.command == "terminate":
            await self._writer.close("terminated", InstanceTerminated(by=by, why=why))
        else:
            await self._writer.close("cancelled", CancelRequested(by=by, why=why), InstanceCancelled())

    def restore(self) -> None:
        """Make the stored frames live again, if they are not; asks that are pending are asked again."""
        if not self._asks.is_live:
            images = images_of(self.state, self._types)
            programs = {**self.runtime.frame_programs, self.program.hash: self.program}
            self._asks.machine = Machine.restore(programs, images, self.runtime.routine)
            self._subflows.restore(self._inner)
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
        await self._writer.load_participants()
        try:
            while not await self._go_on():
                pass
        finally:
            await self._activities.stop()

    async def _go_on(self) -> bool:
        """Run until all frames wait, and do something about it; True once the burst is over."""
        taken_back = self._asks.advance()
        await self._activities.withdraw(taken_back)
        self._subflows.withdraw(taken_back)
        self._subflows.leave()
        self._queued.withdraw(taken_back)
        outcome = self._asks.machine.outcome
        if outcome is not None:
            return await self._end(outcome)
        asks = [ask for ask in self._asks if self._scopes.serves(ask)]
        refused = [ask for ask in asks if self._refuse(ask)]
        if refused:
            return False
        served = [ask for ask in asks if _is_at_once(ask)]
        for ask in served:
            if self._scopes.serves(ask) and await self._serve(ask):
                return True
        if served:
            return False
        calls = [ask for ask in asks if isinstance(ask.awaited, ActivityCall) and not self._asks.bookmarks_of(ask)]
        run_here = [ask for ask in calls if not self._queued.serves(ask)]
        if not run_here:
            return await self._idle()
        early = [ask for ask in asks if self._begins_elsewhere(ask)]
        if early:
            await self._wait(early, idle=False)
        else:
            await self._activities.serve(run_here)
        return False

    def _begins_elsewhere(self, ask: Ask) -> bool:
        """Whether an ask has something begin elsewhere that need not wait for what runs here."""
        if not isinstance(ask.awaited, SubflowCall) and not self._queued.serves(ask):
            return False
        return self._scopes.may_persist(ask) and not self._asks.bookmarks_of(ask)

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
                self._subflows.command_all("suspend")
                await self._writer.persist("suspended", self._asks.machine, suspended)
                return True
            case Checkpoint():
                self._asks.answer(ask, Returned())
                await self._writer.persist("checkpoint", self._asks.machine)
            case SubflowCall(mode="run"):
                await self._activities.commit_earlier(ask)
                self._subflows.run(ask)
            case SubflowCall():
                await self._spawn(ask)
            case ContinueAsNew():
                self._subflows.unwind(ask)
        return False

    async def _spawn(self, ask: Ask) -> None:
        """Start a subflow that is not waited for, and commit."""
        before = self._writer.unwritten.mark()
        if self._subflows.spawn(ask):
            try:
                await self._writer.persist("subflow", self._asks.machine)
            except KeyInUse as error:
                self._take_back(before, ask, error)
                self._asks.retract(ask, error)

    async def _idle(self) -> bool:
        """Open the bookmarks of all asks, close those of asks withdrawn, and persist; False if one cannot be opened."""
        for name in self._asks.abandoned():
            mark = self.state.bookmarks[name]
            self._writer.record(
                BookmarkClosed(where=Where(mark.frame, self._step_of(mark.frame), mark.line), bookmark=name)
            )
        return await self._wait(list(self._asks), idle=True)

    async def _wait(self, asks: Sequence[Ask], *, idle: bool) -> bool:
        """Open the bookmarks of asks that have none, with the subflows that they start, and persist.

        ``idle`` says that these are all asks. False if one of them cannot wait, and has an exception for an answer.
        """
        unwritten = self._writer.unwritten
        before = unwritten.mark()
        for ask in asks:
            if self._asks.bookmarks_of(ask):
                continue
            try:
                if isinstance(ask.awaited, SubflowCall):
                    self._subflows.start(ask)
                elif self._queued.serves(ask):
                    self._queued.request(ask)
                else:
                    unwritten.events += bookmarks.opened(ask, self._asks.asked_at(ask))
            except Exception as error:  # noqa: BLE001  What it is to wait for makes no sense, and that is the caller's.
                unwritten.back_to(before)
                self._asks.answer(ask, Raised(error))
                return False
        reason: Reason = "idle"
        if unwritten.children:
            reason = "subflow"
        elif any(isinstance(event, ActivityRequested) for event in unwritten.events):
            reason = "activity_intent"
        try:
            await self._writer.persist(reason, self._asks.machine, idle=idle)
        except KeyInUse as error:
            ask = self._refused(asks, error)
            self._take_back(before, ask, error)
            self._asks.answer(ask, Raised(error))
            return False
        return True

    def _take_back(self, before: Mark, ask: Ask, error: KeyInUse) -> None:
        """Have a commit not tried that was refused for what an ask wants."""
        if self._writer.sql.is_open:
            # The user SQL is rolled back with the commit, so the burst cannot go on from here.
            raise UnhandledError(error, where(ask)) from error
        self._writer.unwritten.back_to(before)

    # The end.

    async def _end(self, outcome: Returned | Raised) -> bool:
        """Close the instance, unless there is something to be confirmed or undone first."""
        machine = self._asks.machine
        if isinstance(outcome, Returned):
            if machine.settle("confirm"):
                return False
            encoded = encode_value if self.loaded.awaited_as is None else encode_result
            result = encoded(outcome.value, self._types)
            await self._close("completed", InstanceCompleted(result=result))
            return True
        if isinstance(outcome.error, ContinuedAsNew):
            if machine.settle("confirm"):
                return False
            await self._continue(outcome.error)
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

    async def _continue(self, continued: ContinuedAsNew) -> None:
        self._subflows.succeed(continued.input, self._sending.reply_to)
        try:
            await self._writer.persist("completed", self._asks.machine)
        except KeyInUse as error:
            raise UnhandledError(error, self._where_raised(continued)) from error

    def _where_raised(self, error: BaseException) -> Where:
        return replace(self.place, line=line_of(error, self.program, self.place.line))

    # What others ask for.

    async def persist_requested(self) -> None:
        """Take a persistence point because somebody outside asked for it."""
        await self._writer.persist("requested", self._asks.machine)

    async def suspend(self, suspended: InstanceSuspended, arrivals: Sequence[Arrival] = ()) -> None:
        """Suspend at the last persistence point; what came after it must have been dropped before.

        Commands among ``arrivals`` are used up by it: those that were to resume it and did not come to a
        persistence point, or the one that asks for it.
        """
        for arrival in arrivals:
            command = arrival.command
            if command is not None and command.command == "resume":
                self.resume(arrival, command)
            elif command is not None:
                self._writer.take(arrival)
        if suspended.reason == "requested":
            self._subflows.command_all("suspend")
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

    def _refused(self, asks: Sequence[Ask], error: KeyInUse) -> Ask:
        """Return the ask that wants a key which is in use."""
        unwritten = self._writer.unwritten
        for bookmark in [event for event in unwritten.events if isinstance(event, BookmarkOpened)]:
            wanted = bookmark.message_type, bookmark.correlation_key
            for child in unwritten.children:
                if bookmark.correlation_key == str(child.instance_id):
                    wanted = child.start.type, child.correlation_key
            if wanted == (error.message_type, error.correlation_key):
                return next(ask for ask in asks if bookmarks.belongs(bookmark.bookmark, ask))
        raise error


def _is_at_once(ask: Ask) -> bool:
    """Whether an ask is served without waiting for anything outside."""
    match ask.awaited:
        case SubflowCall(mode=mode):
            return mode != "start"
        case Send() | Reply() | Defer() | Enter() | Leave() | Suspend() | Checkpoint() | ContinueAsNew():
            return not bookmarks.waits(ask)
    return False
