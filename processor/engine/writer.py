"""The batch of one instance, and the road to its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from holdfast.events.types import Event, MessageSent, Persisted, Reason, Where
from holdfast.processor.core.machine import Ask, Machine
from holdfast.processor.engine import family
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.inner_streams import InnerStreams
from holdfast.processor.engine.participants import Participants
from holdfast.processor.engine.persistence_point import Encoder
from holdfast.processor.engine.provider import Batch, Child, Deposit, Loaded, Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.processor.engine.user_sql import UserSql
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.projections.instance import fold, initial
from holdfast.schemas.errors import CommitRefused, KeyInUse

Mark = tuple[int, int, int]
"""How many events and children a batch has."""

BeforeCommit = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Unwritten:
    """The batch so far, and whom to tell once it has committed; ``deferred`` is its pending work."""

    events: list[Event] = field(default_factory=list)
    taken: list[Arrival] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    deferred: list[tuple[Ask, ActivityCall[object]]] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    deposits: list[Deposit] = field(default_factory=list)
    has_activity: bool = False

    def mark(self) -> Mark:
        """Return how far the batch has come."""
        return len(self.events), len(self.children), len(self.outgoing)

    def back_to(self, mark: Mark) -> None:
        """Drop the events, children and messages since then."""
        del self.events[mark[0] :], self.children[mark[1] :], self.outgoing[mark[2] :]


class Writer:
    """Collects what one instance decides, and commits it; ``state`` is as of the last persistence point.

    ``is_released`` says that the last commit gave the lock back. What is in ``before_commit`` is awaited before each
    batch is closed, and may add to it.
    """

    def __init__(self, runtime: Runtime, loaded: Loaded, line: int) -> None:
        self.runtime = runtime
        self.loaded = loaded
        self.instance_id: UUID = loaded.instance_id
        self.state = loaded.state or initial
        self.is_released = False
        self.unwritten = Unwritten()
        self.inner = InnerStreams(loaded.instance_id)
        self.sql = UserSql(runtime)
        self.before_commit: list[BeforeCommit] = []
        self.participants = Participants(runtime, loaded)
        self._encoder = Encoder.of(self.state, runtime.app.types)
        self._line = line

    def record(self, event: Event) -> None:
        """Add an event to the batch."""
        self.unwritten.events.append(event)

    def take(self, arrival: Arrival) -> None:
        """Consume a message or command with the batch."""
        self.unwritten.taken.append(arrival)

    def send(self, where: Where, message: Outgoing) -> None:
        """Publish a message once the batch has committed."""
        self.unwritten.outgoing.append(message)
        self.record(
            MessageSent(
                where=where,
                message_id=message.message_id,
                message_type=message.type,
                correlation_key=message.key,
                body=orjson.loads(message.body),
            )
        )

    async def persist(self, reason: Reason, machine: Machine, *events: Event, idle: bool = False) -> None:
        """Commit everything since the previous persistence point, and ``events``, then tell whom it concerns.

        ``idle`` says that all frames wait at bookmarks. Raises ``UnhandledError`` for what the database will
        never take, ``NotPersistable``, and what the provider answers.
        """
        await self.load_participants()
        for prepare in self.before_commit:
            await prepare()
        persisted, texts = self._encoder.persisted(reason, machine, self.state, idle=idle)
        if self.participants:
            persisted = self.participants.collect(persisted, machine, self.state, self._place())
        batch = [*self.unwritten.events, *events, persisted]
        await self._commit(batch, release=reason in ("suspended", "unload"), save=reason)
        self._encoder.texts = texts

    async def load_participants(self) -> None:
        """See to it that the participants are there, with what was persisted of them."""
        if self.participants:
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
        taken, self.unwritten = self.unwritten.taken, Unwritten()
        self.inner.drop()
        self.participants.drop()
        await self.sql.drop()
        return taken

    async def _commit(self, events: list[Event], *, release: bool, save: Reason | None = None) -> None:
        """Commit; ``save`` is the reason for which participants are to write too."""
        runtime, unwritten, before = self.runtime, self.unwritten, self.state
        metadata = {"app": runtime.app.name, "host": str(runtime.host_id)}
        events, inner = self.inner.split(events, before, metadata)
        state = fold(events, before)
        had_sql = self.sql.is_open
        if save is not None and self.participants:
            await self.participants.save(self.sql, state, save, self._place())
        opened = tuple(name for name in state.bookmarks if name not in before.bookmarks)
        is_closed = state.execution_status == "closed"
        deposits = unwritten.deposits
        if is_closed:
            deposits = [*deposits, *family.at_close(self.instance_id, before, state, events)]
        batch = Batch(
            instance_id=self.instance_id,
            host_id=runtime.host_id,
            lock_token=self.loaded.lock_token,
            expected_version=before.version,
            events=events,
            metadata=metadata,
            state=state,
            opened=opened,
            closed=tuple(name for name in before.bookmarks if name not in state.bookmarks),
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
        self.unwritten = Unwritten()
        self.inner.committed(inner)
        for arrival in unwritten.taken:
            arrival.settle()
        if unwritten.outgoing:
            runtime.publish(self.instance_id, unwritten.outgoing, fresh=self.loaded.is_fresh)
        if any(state.bookmarks[name].kind == "timer" for name in opened):
            runtime.timer_opened()
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

    def _place(self) -> Where:
        root = self.state.frames.get("0")
        return Where("0", 0, self._line) if root is None else Where("0", root.step, root.line)
