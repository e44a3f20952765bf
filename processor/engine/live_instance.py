"""One loaded instance: what wakes it, and what is asked of it from outside.

What it does once it is woken is its burst (``engine/burst.py``). Where a burst cannot go on it raises; who
holds the instance (``engine/holding.py``) decides what becomes of it and of the messages that it had taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime

import orjson
from opentelemetry.trace import Tracer

from holdfast.events.types import (
    CancelRequested,
    Event,
    InstanceAbandoned,
    InstanceCancelled,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    MessageReceived,
    Reason,
    TimerCancelled,
    TimerFired,
    TimerRescheduled,
    Where,
)
from holdfast.processor import tracing
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Machine
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.burst import Burst
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.demands import Demands, requested
from holdfast.processor.engine.persistence_point import images_of
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.subflows import States
from holdfast.processor.engine.user_sql import UserSql
from holdfast.processor.engine.writer import Unwritten
from holdfast.processor.language.awaitables import Enter
from holdfast.processor.language.program import Program
from holdfast.processor.language.workflow import Workflow
from holdfast.projections.instance import Bookmark, InstanceState
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.control import Command
from holdfast.schemas.errors import ProgramUnresolvable
from holdfast.schemas.message import Envelope, Message
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
        self._burst = burst = Burst(runtime, loaded, workflow, program)
        self._writer = burst.writer
        self._asks = burst.asks
        self._scopes = burst.scopes
        self._doubt = burst.doubt
        self._activities = burst.activities
        self._queued = burst.queued
        self._subflows = burst.subflows
        self._subflows.restore(inner or {})

    @property
    def state(self) -> InstanceState:
        """The state as of the last persistence point."""
        return self._writer.state

    @property
    def bookmarks(self) -> Mapping[str, Bookmark]:
        """Where the instance waits, if it is idle; not all of it need be persisted."""
        return self._writer.bookmarks

    @property
    def waits(self) -> Sequence[tuple[str, str]]:
        """The types and keys of the messages that open bookmarks wait for."""
        return [
            (bookmark.message_type, bookmark.correlation_key)
            for bookmark in self.bookmarks.values()
            if bookmark.message_type is not None and bookmark.correlation_key is not None
        ]

    @property
    def is_unpersisted(self) -> bool:
        """Whether the instance has been idle since its last persistence point."""
        return self._writer.is_ahead

    @property
    def place(self) -> Where:
        """Where the root frame stands."""
        return self._burst.place

    @property
    def unwritten(self) -> Unwritten:
        """What has happened since the last persistence point."""
        return self._writer.unwritten

    @property
    def cause(self) -> Envelope | None:
        """The message that woke the burst, if one did."""
        return self._writer.cause

    @property
    def traceparent(self) -> str | None:
        """The trace context that the burst was given."""
        return self._writer.traceparent

    @property
    def sql(self) -> UserSql:
        """The transaction for user SQL."""
        return self._writer.sql

    @property
    def is_released(self) -> bool:
        """Whether the instance was let go of with its last commit: it has ended, is suspended or unloaded."""
        return self._writer.is_released

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
                traceparent=envelope.traceparent,
            )
        )
        arguments = {self.workflow.parameter: message}
        self._asks.machine = Machine.start(self.program, arguments, self.runtime.routine)

    async def receive(self, bookmark: str, arrival: Arrival, message: Message) -> None:
        """Resume a bookmark with a message."""
        ask = self._asks.at(bookmark)
        if isinstance(ask, Call) and isinstance(message, ActivityResult):
            await self._queued.receive(ask, arrival, message)
            return
        envelope = arrival.envelope
        self._writer.take(arrival)
        if isinstance(message, SubflowResult):
            self._subflows.end(ask, message)
            return
        self._writer.record(
            MessageReceived(
                where=ask.where,
                bookmark=bookmark,
                closes=self._asks.bookmarks_of(ask),
                message_id=envelope.message_id,
                message_type=envelope.type,
                correlation_key=envelope.key,
                body=orjson.loads(envelope.body),
                reply_to=envelope.reply_to,
            )
        )
        if isinstance(ask.awaited, Enter):
            await self._scopes.receive(ask, arrival)
        self._asks.answer(ask, bookmarks.by_message(ask, bookmark, message))

    async def fire(self, bookmark: str, commanded: tuple[Arrival, Command] | None = None) -> None:
        """Resume a bookmark whose timer is due, or is to fire as though it were."""
        self._writer.cause = None
        ask = self._asks.at(bookmark)
        by = why = None
        if commanded is not None:
            arrival, command = commanded
            by, why = command.by, command.why
            self._writer.take(arrival)
        if isinstance(ask, Call) and ask.due is not None:
            self._activities.retries.fire(ask, ask.due, by=by, why=why)
            return
        self._writer.record(
            TimerFired(
                where=ask.where,
                bookmark=bookmark,
                closes=self._asks.bookmarks_of(ask),
                due=self.bookmarks[bookmark].due or "",
                by=by,
                why=why,
            )
        )
        if not isinstance(ask, Call):
            self._asks.answer(ask, bookmarks.by_timer(ask, bookmark))
        elif bookmark.endswith(":timeout"):
            await self._queued.time_out(ask)

    def resume(self, arrival: Arrival, command: Command) -> None:
        """Let a suspended instance go on; it is durable with the next persistence point."""
        self._writer.take(arrival)
        self._go_on_after(command)

    def _go_on_after(self, command: Command) -> None:
        self._writer.record(InstanceResumed(by=command.by, why=command.why))
        if self.state.suspension_reason == "requested":
            self._subflows.command_all("resume")

    async def cancel(self, arrival: Arrival, command: Command) -> bool:
        """Have the instance unwind from where it stands; True if it can go on.

        What undoes, confirms or cancels is not interrupted; if that is in doubt, the rest waits for its resolution.
        """
        self._writer.take(arrival)
        self._writer.record(CancelRequested(by=command.by, why=command.why))
        self._asks.machine.cancel()
        await self._burst.advance()
        if self._doubt.found():
            await self._writer.persist("requested", self._asks.machine)
            return False
        if self.state.is_suspended:
            self._go_on_after(command)
        return True

    async def resolve(self, arrival: Arrival, command: Command) -> bool:
        """Take in what became of a call in doubt; True if the instance can go on. ``Unfit`` if it makes no sense.

        The decision commits before anything goes on from it, so that whatever follows does not undo it. Raises
        ``InDoubt`` if other calls still are once the exception of a failed one has been raised.
        """
        self._doubt.decide(command)
        self._writer.take(arrival)
        # What is raised may cancel the other calls, and then nobody needs to know any more.
        raises = command.decision == "fail"
        goes_on = raises or not self._doubt.found()
        if goes_on:
            self._go_on_after(command)
        await self._writer.persist("requested", self._asks.machine)
        if raises:
            await self._burst.advance()
            self._doubt.check()
        return goes_on

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
            images = images_of(self.state, self.runtime.app.types)
            programs = {**self.runtime.frame_programs, self.program.hash: self.program}
            self._asks.machine = Machine.restore(programs, images, self.runtime.routine)
            self._asks.advance()
            self._activities.retries.restore()

    def check_doubt(self) -> None:
        """Raise ``InDoubt`` if the instance stands at calls that may have run and must not run twice."""
        self._doubt.check()

    @property
    def must_run(self) -> bool:
        """Whether the instance can go on by itself, as after a crash in the middle of a burst."""
        return self._asks.machine.outcome is not None or not self._asks.all_wait

    async def run(self, idle: Reason | None = "idle", *, is_woken: bool = True) -> None:
        """Run until the instance is idle, suspended or closed, with a persistence point at the end.

        ``idle`` is its reason if the instance is idle then; None if it need not be taken. ``is_woken`` says that
        something came, rather than that the persistence point alone is wanted.
        Raises ``UnhandledError``, ``NotPersistable`` and whatever a commit answers; nothing since the
        last persistence point is durable then, and the instance must be dropped or suspended.
        """
        tracer = self.runtime.tracer
        if tracer is None:
            await self._burst.run(idle)
            return
        with self._span(tracer, self.cause if is_woken else None):
            await self._burst.run(idle)

    def _span(self, tracer: Tracer, cause: Envelope | None) -> AbstractContextManager[None]:
        """Return the span of a burst: in the trace of what woke it, linked with that of what started the instance."""
        started = self.state.traceparent
        about = {"instance_id": str(self.instance_id), "workflow": self.workflow.name, "app": self.runtime.app.name}
        if cause is None:
            return tracing.burst(tracer, self.workflow.name, links=[started], **about)
        return tracing.process(tracer, cause, self.runtime.app_exchange, links=[started], **about)

    # What others ask for.

    @property
    def is_in_memory(self) -> bool:
        """Whether there is more of the instance here than what the store has: its live frames."""
        return self._asks.is_live

    @property
    def demands(self) -> Demands | None:
        """The persistence points that are asked for in the middle of the burst; None if no burst runs."""
        return self._burst.demands if self._burst.is_running else None

    def cut_short(self) -> None:
        """Have the burst that runs, if one does, end at once."""
        self._burst.cut_short()

    async def persist_requested(self, *commands: tuple[Arrival, Command]) -> None:
        """Take a persistence point because somebody outside asked for it."""
        for arrival, command in commands:
            self._writer.take(arrival)
            self._writer.record(requested(command))
        unloads = any(command.command == "unload" for _, command in commands)
        await self._writer.persist(
            "unload" if unloads else "requested", self._asks.machine, idle=bool(commands) and not self.must_run
        )

    async def change_timer(self, arrival: Arrival, command: Command, due: datetime | None) -> None:
        """Have an open timer be due at another time, or never; the instance need not be in memory for that."""
        where, by, why = self._writer.place_of(command.timer or ""), command.by, command.why
        event: Event = TimerCancelled(where=where, bookmark=command.timer or "", by=by, why=why)
        if due is not None:
            moment = due.astimezone(UTC).isoformat()
            event = TimerRescheduled(where=where, bookmark=command.timer or "", due=moment, by=by, why=why)
        self._writer.take(arrival)
        if not self.is_in_memory:
            await self._writer.let_go("requested", event)
            return
        self._writer.record(event)
        await self._writer.persist("requested", self._asks.machine, idle=not self.must_run)
        self._activities.retries.restore()

    async def abandon(self, arrival: Arrival, command: Command) -> None:
        """Let go at the last persistence point; what came after it must have been dropped before."""
        self._writer.take(arrival)
        await self._writer.let_go("requested", InstanceAbandoned(by=command.by, why=command.why))

    async def suspend(self, suspended: InstanceSuspended, arrivals: Sequence[Arrival] = ()) -> None:
        """Suspend at the last persistence point; what came after it must have been dropped before.

        Commands among ``arrivals`` are used up by it, and the event says by whom they were: those that did not come
        to a persistence point, or the one that asks for it.
        """
        is_known = self._answer_known()
        for arrival in arrivals:
            command = arrival.command
            if command is not None and command.command == "resume":
                self.resume(arrival, command)
            elif command is not None:
                self._writer.take(arrival)
                suspended = replace(suspended, by=command.by)
        if suspended.reason == "requested":
            self._subflows.command_all("suspend")
        if is_known:
            await self._writer.persist("suspended", self._asks.machine, suspended)
        else:
            await self._writer.let_go("suspended", suspended)

    async def keep_known(self) -> None:
        """Commit, at the last persistence point, what is known of calls that must not run twice."""
        if self._answer_known():
            await self._writer.persist("activity_completed", self._asks.machine)

    def _answer_known(self) -> bool:
        if self.unresolvable is not None or not self._doubt.knows:
            return False
        self.restore()
        return self._doubt.answer_known()

    async def drop(self) -> list[Arrival]:
        """Forget everything since the last persistence point; return the messages that it had taken."""
        given_back = self.given_back()
        self._asks.drop()
        self._scopes.drop()
        self._doubt.drop()
        return [*given_back, *await self._writer.drop()]

    def given_back(self) -> list[Arrival]:
        """Return, once, the messages that failed transacted receives did not consume."""
        returned, self._scopes.returned = self._scopes.returned, []
        return returned

    # Small parts.

    def waiting_for(self, message_type: str, key: str) -> str | None:
        """Return the open bookmark that such a message would resume."""
        for name, bookmark in self.bookmarks.items():
            if bookmark.message_type == message_type and bookmark.correlation_key == key:
                return name
        return None

    def due(self, bookmark: str) -> datetime | None:
        """Return when an open timer is due; None if it is not open."""
        found = self.bookmarks.get(bookmark)
        return None if found is None or found.due is None else datetime.fromisoformat(found.due)
