"""One loaded instance: its machine, the batch that is not yet written, and the road to each commit.

A *burst* is all that the instance does from being woken to being idle or closed. The machine asks, this
module answers: it runs activities, opens bookmarks, collects events and outgoing messages, and takes
the persistence points. Where a burst cannot go on it raises; who holds the instance
(``engine/engine.py``) decides what becomes of it and of the messages that it had taken.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import orjson

from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    BookmarkClosed,
    BookmarkOpened,
    Event,
    InstanceCompleted,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    MessageReceived,
    MessageSent,
    Persisted,
    Reason,
    SuspensionReason,
    TimerFired,
    Where,
)
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import ROOT, Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import activities
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.persistence_point import Encoder, Unwritten, encode_value, images_of
from holdfast.processor.engine.provider import Batch, Loaded, UnitOfWork
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.sending import outgoing
from holdfast.processor.engine.side_by_side import SideBySide
from holdfast.processor.engine.unhandled import UnhandledError, line_of
from holdfast.processor.engine.user_sql import UserSql
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall, Checkpoint, Send
from holdfast.processor.language.program import Program
from holdfast.processor.language.workflow import Workflow
from holdfast.projections.instance import fold, initial
from holdfast.schemas.errors import AppError, CommitRefused, KeyInUse, ProgramUnresolvable
from holdfast.schemas.identifiers import idempotency_key, outgoing_message_id
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
        self.state = loaded.state or initial
        self.unwritten = Unwritten()
        self._types = runtime.app.types
        self._encoder = Encoder.of(self.state, self._types)
        self._machine: Machine | None = None
        self._asks: dict[str, Ask] = {}
        self._asked_at: dict[str, datetime] = {}
        self._running = SideBySide()
        self._sql = UserSql(runtime)

    @property
    def closed(self) -> bool:
        """Whether the instance has ended."""
        return self.state.execution_status == "closed"

    # What wakes an instance.

    def begin(self, arrival: Arrival, message: Message) -> None:
        """Start from the message that starts the workflow."""
        envelope = arrival.envelope
        self._take(arrival)
        self._record(
            InstanceStarted(
                workflow=self.workflow.name,
                program_hash=self.program.hash,
                correlation_key=self.loaded.correlation_key,
                message_id=envelope.message_id,
                message_type=envelope.type,
                body=orjson.loads(envelope.body),
            )
        )
        self._machine = Machine.start(self.program, {self.workflow.parameter: message}, self.runtime.routine)

    def receive(self, bookmark: str, arrival: Arrival, message: Message) -> None:
        """Resume a bookmark with a message."""
        ask = self._ask_of(bookmark)
        envelope = arrival.envelope
        self._take(arrival)
        self._record(
            MessageReceived(
                where=_where(ask),
                bookmark=bookmark,
                closes=self._bookmarks_of(ask),
                message_id=envelope.message_id,
                message_type=envelope.type,
                correlation_key=envelope.key,
                body=orjson.loads(envelope.body),
            )
        )
        self._answer(ask, bookmarks.by_message(ask, bookmark, message))

    def fire(self, bookmark: str) -> None:
        """Resume a bookmark whose timer is due."""
        ask = self._ask_of(bookmark)
        self._record(
            TimerFired(
                where=_where(ask),
                bookmark=bookmark,
                closes=self._bookmarks_of(ask),
                due=self.state.bookmarks[bookmark].due or "",
            )
        )
        self._answer(ask, bookmarks.by_timer(ask, bookmark))

    def resume(self, command: Arrival) -> None:
        """Let a suspended instance go on; it is durable with the next persistence point."""
        body = orjson.loads(command.envelope.body)
        self._take(command)
        self._record(InstanceResumed(by=body.get("by") or "unknown", why=body.get("why")))

    def restore(self) -> None:
        """Make the stored frames live again, if they are not; asks that are pending are asked again."""
        if self._machine is None:
            images = images_of(self.state, self._types)
            programs = {**self.runtime.routine_programs, self.program.hash: self.program}
            self._machine = Machine.restore(programs, images, self.runtime.routine)
            self._advance()

    @property
    def must_run(self) -> bool:
        """Whether the instance can go on by itself, as after a crash in the middle of a burst."""
        return (
            self._live.outcome is not None
            or any(not self._bookmarks_of(ask) for ask in self._asks.values())
            or bool(self._abandoned())
        )

    # The burst.

    async def run(self) -> None:
        """Run until the instance is idle or closed, with a persistence point at the end.

        Raises ``UnhandledError``, ``NotPersistable`` and whatever a commit answers; nothing since the
        last persistence point is durable then, and the instance must be dropped or suspended.
        """
        try:
            while not await self._go_on():
                pass
        finally:
            await self._running.stop()

    async def _go_on(self) -> bool:
        """Run until all frames wait, and do something about it; True once the instance is idle or closed."""
        machine = self._live
        for ask, outcome, attempts in await self._running.cancel(self._advance()):
            self._end_activity(ask, outcome, attempts)
        if isinstance(machine.outcome, Returned):
            self._record(InstanceCompleted(result=encode_value(machine.outcome.value, self._types)))
            await self._persist("completed")
            return True
        if isinstance(machine.outcome, Raised):
            error, place = machine.outcome.error, self._place()
            raise UnhandledError(error, replace(place, line=line_of(error, self.program, place.line)))
        served = [ask for ask in self._asks.values() if isinstance(ask.awaited, Send | Checkpoint)]
        for ask in served:
            await self._serve(ask)
        if served:
            return False
        calls = [ask for ask in self._asks.values() if isinstance(ask.awaited, ActivityCall)]
        if not calls:
            return await self._idle()
        if len(calls) == 1 and not self._running:
            await self._run_activity(calls[0])
        else:
            await self._run_side_by_side([ask for ask in calls if ask not in self._running])
        return False

    async def _idle(self) -> bool:
        """Open the bookmarks of all asks, close those of asks withdrawn, and persist; False if one cannot be opened."""
        before = len(self.unwritten.events)
        for name in self._abandoned():
            mark = self.state.bookmarks[name]
            self._record(BookmarkClosed(where=Where(mark.frame, self._step_of(mark.frame), mark.line), bookmark=name))
        for ask in self._asks.values():
            if self._bookmarks_of(ask):
                continue
            try:
                opened = bookmarks.opened(ask, self._asked_at[ask.path])
            except OverflowError as error:
                del self.unwritten.events[before:]
                self._answer(ask, Raised(error))
                return False
            self.unwritten.events += opened
        try:
            await self._persist("idle")
        except KeyInUse as error:
            ask = next(a for a in self._asks.values() if self._waits_for(a, error))
            if self._sql.is_open:
                # The user SQL is rolled back with the commit, so the burst cannot go on from here.
                raise UnhandledError(error, _where(ask)) from error
            del self.unwritten.events[before:]
            self._answer(ask, Raised(error))
            return False
        return True

    async def _serve(self, ask: Ask) -> None:
        if isinstance(ask.awaited, Send):
            self._send(ask, ask.awaited)
        else:
            self._answer(ask, Returned())
            await self._persist("checkpoint")

    async def _run_side_by_side(self, asks: list[Ask]) -> None:
        """Start what does not run yet, and wait for the first to end; record activities run one at a time."""
        is_regular = self.workflow.persistence == "regular"
        if asks and is_regular and self.unwritten.has_activity:
            await self._persist("activity_completed")
        records: list[Ask] = []
        for ask in asks:
            activity = self.runtime.app.activities.get(_call(ask).activity)
            if activity is None or activity.is_record:
                records.append(ask)
            else:
                self._running.start(ask, self._run(activity, ask, None), can_be_cancelled=activity.is_async)
        if records:
            await self._run_activity(records[0])
            return
        if self._sql.is_open and is_regular:
            await self._persist("activity_completed")
        for ended in await self._sql.bound(self._running.first(), self._place()):
            self._end_activity(*ended)

    async def _run_activity(self, ask: Ask) -> None:
        if self.unwritten.has_activity and self.workflow.persistence == "regular":
            await self._persist("activity_completed")
        activity = self.runtime.app.activities.get(_call(ask).activity)
        if activity is None:
            self._answer(ask, Raised(AppError(f"this app has no activity {_call(ask).activity!r}")))
            return
        running = self._run(activity, ask, await self._sql.unit() if activity.is_record else None)
        outcome, attempts = await self._sql.bound(running, _where(ask))
        self._end_activity(ask, outcome, attempts)

    def _run(
        self, activity: Activity[Any, Any], ask: Ask, unit: UnitOfWork | None
    ) -> Coroutine[Any, Any, tuple[Returned | Raised, int]]:
        return activities.run(
            activity,
            _call(ask),
            instance_id=self.instance_id,
            idempotency_key=self._idempotency_key(ask),
            unit=unit,
            environment=self.runtime.environment,
        )

    def _idempotency_key(self, ask: Ask) -> str:
        return idempotency_key(self.instance_id, ask.path, ask.step, ask.visit, _call(ask).activity)

    def _end_activity(self, ask: Ask, outcome: Returned | Raised, attempts: int) -> None:
        """Record how an activity ended, and answer its ask if it has not been withdrawn meanwhile."""
        self.unwritten.has_activity = True
        about: dict[str, Any] = {
            "where": _where(ask),
            "activity": _call(ask).activity,
            "idempotency_key": self._idempotency_key(ask),
            "attempts": attempts,
        }
        if isinstance(outcome, Returned):
            self._record(ActivityCompleted(**about, result=encode_value(outcome.value, self._types)))
        else:
            self._record(ActivityFailed(**about, error=encode_value(outcome.error, self._types)))
        if self._asks.get(ask.path) is ask:
            self._answer(ask, outcome)

    def _send(self, ask: Ask, sending: Send) -> None:
        message_id = outgoing_message_id(self.instance_id, self.state.version + 1, len(self.unwritten.outgoing))
        try:
            sent = outgoing(sending.message, message_id, self.runtime.out_exchange)
        except Exception as error:  # noqa: BLE001  What a message cannot say of itself is the sender's error.
            self._answer(ask, Raised(error))
            return
        self.unwritten.outgoing.append(sent)
        self._record(
            MessageSent(
                where=_where(ask),
                message_id=message_id,
                message_type=sent.type,
                correlation_key=sent.key,
                body=orjson.loads(sent.body),
            )
        )
        self._answer(ask, Returned())

    # Persistence points.

    async def _persist(self, reason: Reason) -> None:
        """Commit everything since the previous persistence point, then tell whom it concerns."""
        persisted, texts = self._encoder.persisted(reason, self._live, self.state)
        await self._commit([*self.unwritten.events, persisted])
        self._encoder.texts = texts

    async def persist_requested(self) -> None:
        """Take a persistence point because somebody outside asked for it."""
        await self._persist("requested")

    async def suspend(
        self,
        reason: SuspensionReason,
        exception_name: str | None,
        detail: str | None,
        where: Where | None,
        commands: Sequence[Arrival] = (),
    ) -> None:
        """Suspend at the last persistence point; what came after it must have been dropped before.

        ``commands`` were to resume the instance, which did not come to a persistence point: they are used up.
        """
        for command in commands:
            self.resume(command)
        await self._commit(
            [
                *self.unwritten.events,
                InstanceSuspended(reason=reason, exception_name=exception_name, detail=detail, where=where),
                Persisted(reason="suspended"),
            ],
            release=True,
        )

    async def _commit(self, events: list[Event], *, release: bool = False) -> None:
        runtime, unwritten, before = self.runtime, self.unwritten, self.state
        state = fold(events, before)
        opened = tuple(name for name in state.bookmarks if name not in before.bookmarks)
        batch = Batch(
            instance_id=self.instance_id,
            host_id=runtime.host_id,
            lock_token=self.loaded.lock_token,
            expected_version=before.version,
            events=events,
            metadata={"app": runtime.app.name, "host": str(runtime.host_id)},
            state=state,
            opened=opened,
            closed=tuple(name for name in before.bookmarks if name not in state.bookmarks),
            consumed=[arrival.consumed() for arrival in unwritten.taken],
            outgoing=unwritten.outgoing,
            release=release or state.execution_status == "closed",
        )
        try:
            await self._sql.commit(batch)
        except CommitRefused as error:
            raise UnhandledError(error.__cause__ or error, self._place()) from error
        self.state = state
        self.unwritten = Unwritten()
        for arrival in unwritten.taken:
            arrival.settle()
        if unwritten.outgoing:
            runtime.publish(self.instance_id, unwritten.outgoing, fresh=self.loaded.is_fresh)
        if any(state.bookmarks[name].kind == "timer" for name in opened):
            runtime.timer_opened()

    async def drop(self) -> list[Arrival]:
        """Forget everything since the last persistence point; return the messages that it had taken."""
        self._machine = None
        self._asks.clear()
        self._asked_at.clear()
        taken, self.unwritten = self.unwritten.taken, Unwritten()
        await self._sql.drop()
        return taken

    # Small parts.

    def _place(self) -> Where:
        """Return where the root frame stands."""
        if self._machine is None:
            return Where(ROOT, 0, self.program.line)
        frame = self._machine.frames[ROOT]
        return Where(ROOT, frame.step, frame.line)

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
    def _live(self) -> Machine:
        if self._machine is None:
            raise RuntimeError("the instance has no live machine")
        return self._machine

    def _advance(self) -> list[str]:
        """Let the frames go on; return the paths of the asks that they took back."""
        asks, withdrawn = self._live.advance(), list(self._live.withdrawn)
        for path in withdrawn:
            del self._asks[path]
        for ask in asks:
            self._asks[ask.path] = ask
            if isinstance(ask.awaited, bookmarks.WAITS):
                self._asked_at[ask.path] = self.runtime.now()
        return withdrawn

    def _answer(self, ask: Ask, outcome: Returned | Raised) -> None:
        del self._asks[ask.path]
        self._live.answer(ask.path, outcome)

    def _abandoned(self) -> list[str]:
        """Return the open bookmarks whose asks were taken back."""
        closed: set[str] = set()
        for event in self.unwritten.events:
            if isinstance(event, MessageReceived | TimerFired):
                closed.update(event.closes)
        return [
            name
            for name in self.state.bookmarks
            if name not in closed and not any(bookmarks.belongs(name, ask) for ask in self._asks.values())
        ]

    def _step_of(self, path: str) -> int:
        """Return the step at which a frame stood when it was last persisted, or its caller if it is a branch."""
        while path not in self.state.frames:
            path = path.rpartition(".")[0]
        return self.state.frames[path].step

    def _take(self, arrival: Arrival) -> None:
        self.unwritten.taken.append(arrival)

    def _record(self, event: Event) -> None:
        self.unwritten.events.append(event)

    def _ask_of(self, bookmark: str) -> Ask:
        return next(ask for ask in self._asks.values() if bookmarks.belongs(bookmark, ask))

    def _bookmarks_of(self, ask: Ask) -> tuple[str, ...]:
        return tuple(name for name in self.state.bookmarks if bookmarks.belongs(name, ask))

    def _waits_for(self, ask: Ask, error: KeyInUse) -> bool:
        return any(
            event.message_type == error.message_type and event.correlation_key == error.correlation_key
            for event in self.unwritten.events
            if isinstance(event, BookmarkOpened) and bookmarks.belongs(event.bookmark, ask)
        )


def _call(ask: Ask) -> ActivityCall[Any]:
    return cast("ActivityCall[Any]", ask.awaited)


def _where(ask: Ask) -> Where:
    return Where(ask.path, ask.step, ask.line)
