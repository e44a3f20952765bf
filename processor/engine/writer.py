"""The batch of one instance, and the road to its commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import orjson

from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    BookmarkClosed,
    BookmarkOpened,
    Event,
    MessageReceived,
    MessageSent,
    Persisted,
    Reason,
    SubflowEnded,
    TimerCancelled,
    TimerFired,
    Where,
)
from holdfast.processor import tracing
from holdfast.processor.core.machine import Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import family
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.call import Call, end_of
from holdfast.processor.engine.inner_streams import InnerStreams
from holdfast.processor.engine.participants import Participants
from holdfast.processor.engine.pending_work import do_pending_work
from holdfast.processor.engine.persistence_point import Encoder
from holdfast.processor.engine.provider import Batch, Child, Deposit, InnerBatch, Loaded, Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.processor.engine.user_sql import UserSql
from holdfast.projections.instance import Bookmark, fold, initial
from holdfast.schemas.errors import CommitRefused, KeyInUse
from holdfast.schemas.message import Envelope

Mark = tuple[int, int, int]
"""How many events, children and messages a batch has."""


@dataclass(slots=True)
class Unwritten:
    """The batch so far, and whom to tell once it has committed; ``deferred`` is its pending work.

    ``open`` are the names of the bookmarks that are open by now: those that were ``before``, with what the batch has
    changed.
    """

    before: Iterable[str]
    open: dict[str, None] = field(init=False)
    events: list[Event] = field(default_factory=list)
    taken: list[Arrival] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    deferred: list[Call] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    deposits: list[Deposit] = field(default_factory=list)
    has_activity: bool = False

    def __post_init__(self) -> None:
        self.open = dict.fromkeys(self.before)

    def add(self, event: Event) -> None:
        """Add an event."""
        self.events.append(event)
        if isinstance(event, BookmarkOpened):
            self.open[event.bookmark] = None
        elif isinstance(event, BookmarkClosed | TimerCancelled):
            self.open.pop(event.bookmark, None)
        elif isinstance(event, MessageReceived | TimerFired | SubflowEnded):
            for name in event.closes:
                self.open.pop(name, None)

    def keep(self, events: Sequence[Event]) -> None:
        """Have these events in place of all that were added."""
        self.events, self.open = [], dict.fromkeys(self.before)
        for event in events:
            self.add(event)

    def mark(self) -> Mark:
        """Return how far the batch has come."""
        return len(self.events), len(self.children), len(self.outgoing)

    def back_to(self, mark: Mark) -> None:
        """Drop the events, children and messages since then."""
        self.keep(self.events[: mark[0]])
        del self.children[mark[1] :], self.outgoing[mark[2] :]


class Writer:
    """Collects what one instance decides, and commits it.

    ``state`` is as of the last persistence point; ``name`` is the instance's id as text. ``is_released`` says that the
    last commit gave the lock back. ``cause`` is the message that woke the burst, if one did.
    """

    def __init__(self, runtime: Runtime, loaded: Loaded, line: int) -> None:
        self.runtime = runtime
        self.loaded = loaded
        self.instance_id: UUID = loaded.instance_id
        self.name = str(loaded.instance_id)
        self.state = loaded.state or initial
        self.is_released = False
        self.unwritten = Unwritten(self.state.bookmarks)
        self.cause: Envelope | None = None
        self.inner = InnerStreams(loaded.instance_id)
        self.sql = UserSql(runtime)
        self.participants = Participants(runtime, loaded)
        self._ahead: Mapping[str, Bookmark] | None = None
        self._encoder = Encoder.of(self.state, runtime.app.types)
        self._line = line
        workflow = runtime.app.workflows.get(loaded.workflow)
        self._frees_key = workflow is not None and workflow.frees_key

    @property
    def bookmarks(self) -> Mapping[str, Bookmark]:
        """The open bookmarks as of the last time at which the instance was idle."""
        return self.state.bookmarks if self._ahead is None else self._ahead

    @property
    def is_ahead(self) -> bool:
        """Whether the instance has been idle since its last persistence point."""
        return self._ahead is not None

    def go_ahead(self) -> None:
        """Leave the batch unwritten while the instance is idle."""
        self._ahead = fold(self.unwritten.events, self.state).bookmarks

    def record(self, event: Event) -> None:
        """Add an event to the batch."""
        self.unwritten.add(event)

    def record_end(self, call: Call, outcome: Returned | Raised, attempts: int) -> ActivityCompleted | ActivityFailed:
        """Record how an activity ended, after so many ``attempts``, and return the event."""
        event = end_of(call, outcome, attempts, self.runtime.app.types)
        self.record(event)
        if isinstance(event, ActivityCompleted):
            self.runtime.counts.activities_completed += 1
        else:
            self.runtime.counts.activities_failed += 1
        return event

    def take(self, arrival: Arrival) -> None:
        """Consume a message or command with the batch."""
        self.unwritten.taken.append(arrival)
        self.cause = arrival.envelope

    def send(self, where: Where, message: Outgoing) -> None:
        """Publish a message once the batch has committed."""
        self.post(message)
        self.record(
            MessageSent(
                where=where,
                message_id=message.message_id,
                message_type=message.type,
                correlation_key=message.key,
                body=orjson.loads(message.body),
            )
        )

    def post(self, message: Outgoing) -> None:
        """Publish a message once the batch has committed, without an event that says so."""
        tracer = self.runtime.tracer
        if tracer is not None:
            traceparent: str | None = tracing.create(tracer, message, message.exchange, message.routing_key)
        else:
            traceparent = self.traceparent
        self.unwritten.outgoing.append(message if traceparent is None else replace(message, traceparent=traceparent))

    @property
    def traceparent(self) -> str | None:
        """The trace context that the burst was given: by what woke it, or else by what started the instance."""
        cause = self.cause
        return (cause and cause.traceparent) or self.state.traceparent

    @property
    def trace(self) -> str | None:
        """The trace context that the burst gives on."""
        if self.runtime.tracer is None:
            return self.traceparent
        return tracing.current() or self.traceparent

    async def persist(self, reason: Reason, machine: Machine, *events: Event, idle: bool = False) -> None:
        """Commit everything since the previous persistence point, and ``events``, then tell whom it concerns.

        ``idle`` says that all frames wait at bookmarks. Raises ``UnhandledError`` for what the database will
        never take, ``NotPersistable``, and what the provider answers.
        """
        participants = self.participants
        if participants.are_there:
            await self.load_participants()
        if self.unwritten.deferred:
            await do_pending_work(self)
        persisted, texts = self._encoder.persisted(reason, machine, self.state, idle=idle)
        if participants.are_there:
            persisted = participants.collect(persisted, machine, self.state, self._place())
        batch = [*self.unwritten.events, *events, persisted]
        await self._commit(batch, release=reason in ("suspended", "unload"), save=reason)
        self._encoder.texts = texts

    async def load_participants(self) -> None:
        """See to it that the participants are loaded, with what was persisted of them."""
        await self.participants.load(self.state, self._place())

    async def let_go(self, reason: Reason, event: Event) -> None:
        """Note an event at the last persistence point, and let go; what came after it must have been dropped before."""
        await self._commit([*self.unwritten.events, event, Persisted(reason=reason)], release=True)

    async def close(self, reason: Reason, *events: Event) -> None:
        """Close the instance where it stands, without running anything more."""
        ended = tuple(self.state.frames)
        await self._commit([*self.unwritten.events, *events, Persisted(reason=reason, ended=ended)], release=True)

    async def drop(self) -> list[Arrival]:
        """Forget everything since the last persistence point; return the messages that it had taken."""
        taken, self.unwritten = self.unwritten.taken, Unwritten(self.state.bookmarks)
        self._ahead = None
        self.inner.drop()
        self.participants.drop()
        await self.sql.drop()
        return taken

    async def _commit(self, events: list[Event], *, release: bool, save: Reason | None = None) -> None:
        """Commit; ``save`` is the reason for which participants are to write too."""
        runtime, unwritten, before = self.runtime, self.unwritten, self.state
        metadata, trace = runtime.metadata, self.trace
        if trace is not None:
            metadata = {**metadata, "traceparent": trace}
        inner: list[InnerBatch] = []
        if self.inner:
            events, inner = self.inner.split(events, before, metadata)
            inner = [replace(each, keeping=runtime.keeping(each.workflow)) for each in inner]
        state = fold(events, before)
        had_sql = self.sql.is_open
        if save is not None and self.participants.are_there:
            await self.participants.save(self.sql, state, save, self._place())
        opened = tuple([name for name in state.bookmarks if name not in before.bookmarks])
        # What is as it was is the same object still.
        moved = tuple([n for n, mark in before.bookmarks.items() if state.bookmarks.get(n, mark) is not mark])
        is_closed = state.execution_status == "closed"
        deposits = unwritten.deposits
        if is_closed:
            deposits = [*deposits, *family.at_close(self.instance_id, before, state, events, trace)]
        batch = Batch(
            instance_id=self.instance_id,
            host_id=runtime.host_id,
            lock_token=self.loaded.lock_token,
            expected_version=before.version,
            events=events,
            metadata=metadata,
            state=state,
            keeping=runtime.keeping(self.loaded.workflow),
            opened=opened,
            closed=tuple([name for name in before.bookmarks if name not in state.bookmarks]),
            moved=moved,
            consumed=[arrival.consumed() for arrival in unwritten.taken],
            outgoing=unwritten.outgoing,
            children=unwritten.children,
            inner=inner,
            deposits=deposits,
            release=release or is_closed,
        )
        try:
            await self.sql.commit(batch)
        except CommitRefused as error:
            raise UnhandledError(error.__cause__ or error, self._place()) from error
        except KeyInUse:
            # What participants wrote they write again, so the burst can go on without this transaction.
            if not had_sql:
                await self.sql.drop()
            raise
        self.state = state
        self.is_released = batch.release
        self.unwritten = Unwritten(self.state.bookmarks)
        self._ahead = None
        if inner:
            self.inner.committed(inner)
        for arrival in unwritten.taken:
            arrival.settle()
        if unwritten.outgoing:
            runtime.publish(self.instance_id, unwritten.outgoing, fresh=self.loaded.is_fresh)
        is_timed = moved or (opened and any(state.bookmarks[name].kind == "timer" for name in opened))
        if is_timed or (is_closed and self._frees_key):
            runtime.hint()
        if unwritten.children or deposits:
            self._wake(unwritten.children, deposits)

    def _wake(self, children: Sequence[Child], deposits: Sequence[Deposit]) -> None:
        """Have those looked at that this commit gave something to do."""
        for child in children:
            self.runtime.wake(child.instance_id)
        for deposit in deposits:
            if deposit.instance_id is not None:
                self.runtime.wake(deposit.instance_id)
            elif self.state.subflow == "start" and self.state.parent is not None:
                self.runtime.wake(UUID(self.state.parent))

    def place_of(self, bookmark: str) -> Where:
        """Return where a bookmark stands that was open at the last persistence point."""
        mark = self.state.bookmarks[bookmark]
        path = mark.frame
        while path not in self.state.frames:
            # A branch stands where the frame does that it is one of.
            path = path.rpartition(".")[0]
        return Where(mark.frame, self.state.frames[path].step, mark.line)

    def _place(self) -> Where:
        root = self.state.frames.get("0")
        return Where("0", 0, self._line) if root is None else Where("0", root.step, root.line)
