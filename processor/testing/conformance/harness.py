"""A store to show laws on: a provider, looks behind its door, and instances as a host of it sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, Protocol
from uuid import UUID, uuid4

from holdfast.events.types import (
    BookmarkOpened,
    Event,
    FrameChange,
    InstanceCompleted,
    InstanceStarted,
    Persisted,
    Reason,
    Where,
)
from holdfast.processor.engine.batch import KEPT
from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import (
    Batch,
    Child,
    Consumed,
    Deposit,
    InnerBatch,
    Intake,
    Keeping,
    Outgoing,
    PersistenceProvider,
    Registration,
    StoredProgram,
)
from holdfast.projections.instance import InstanceState, fold, initial
from holdfast.schemas.message import Envelope
from holdfast.schemas.words import BookmarkKind, SubflowMode

APP = "shop"
HERE = Where("0", 3, 17)
ORDER = StoredProgram(
    program_hash="order-1",
    workflow="order",
    format=1,
    program={"steps": []},
    starts_with="Placed",
    receives=("Paid", "Note"),
    signature=b"signed",
)
AUDIT = StoredProgram(
    program_hash="audit-1",
    workflow="audit",
    format=1,
    program={"steps": []},
    starts_with="Audited",
    receives=("Note",),
    signature=None,
)
_numbers = count(1)


@dataclass(kw_only=True)
class InboxEntry:
    """What the store says of one message."""

    verdict: str
    reason: str | None
    instance_id: UUID | None
    has_body: bool


class Behind(Protocol):
    """Looks behind a store's door, and time that passes at once."""

    async def lapse(self, host_id: UUID) -> None:
        """Let a host's lease lapse now."""
        ...

    async def age_messages(self, seconds: float) -> None:
        """Let all messages of the inbox be older by that much."""
        ...

    async def inbox(self) -> dict[str, InboxEntry]:
        """Return what the store has of each message, by id."""
        ...

    async def versions(self, instance_id: UUID) -> list[int]:
        """Return the versions of an instance's events, in order."""
        ...

    async def make_notes(self) -> None:
        """Make a table ``notes`` of a growing ``number`` and a text ``note``, if SQL is not taken without one."""
        ...

    async def notes(self) -> list[str]:
        """Return, in order, the notes that were committed by ``insert into notes (note) values (%s)``."""
        ...


@dataclass
class Store:
    """A provider under test."""

    provider: PersistenceProvider
    behind: Behind

    async def host(self, *, machine: str = "here", lease_seconds: float = 60.0) -> UUID:
        """Open a host and bring the programs along."""
        host_id = uuid4()
        await self.provider.open_host(
            Host(
                host_id=host_id,
                app=APP,
                machine=machine,
                process_id=1,
                lease_seconds=lease_seconds,
                programs=(ORDER.program_hash, AUDIT.program_hash),
                message_types=("Placed", "Paid", "Note"),
            )
        )
        await self.provider.save_programs([ORDER, AUDIT])
        return host_id

    async def register(self, host_id: UUID, key: str, program: StoredProgram = ORDER) -> Case:
        """Register an instance with a start message of its own."""
        start = message(program.starts_with or "", key)
        case = Case(instance_id=uuid4(), host_id=host_id, start=start, program=program)
        (token,) = await self.provider.register(host_id, [case.registration])
        assert isinstance(token, int), token
        case.token = token
        return case

    async def waiting(
        self, host_id: UUID, key: str, *types: str, due: datetime | None = None, program: StoredProgram = ORDER
    ) -> Case:
        """Register an instance and bring it to its first idle point, waiting for types with its key."""
        case = await self.register(host_id, key, program)
        await self.commit(case.begin(*(case.wait(name) for name in types), *([case.timer(due)] if due else [])))
        return case

    async def commit(self, *moves: Move) -> None:
        """Commit a group in which nothing may go wrong."""
        answers = await self.provider.commit([move.batch for move in moves])
        for move, answer in zip(moves, answers, strict=True):
            assert not isinstance(answer, Exception), answer
            move.take()

    async def buffer(self, *envelopes: Envelope) -> None:
        """Store messages as buffered."""
        await self.provider.take_in([Intake(envelope=envelope, verdict="buffered") for envelope in envelopes])

    async def command(self, instance_id: UUID) -> Envelope:
        """Store a control command for an instance."""
        envelope = message("resume", str(instance_id))
        await self.provider.take_in(
            [Intake(envelope=envelope, verdict="buffered", kind="control", instance_id=instance_id)]
        )
        return envelope

    async def verdict(self, envelope: Envelope) -> str | None:
        """Return the verdict of a message, with its reason after a colon."""
        entry = (await self.behind.inbox()).get(envelope.message_id)
        if entry is None:
            return None
        return entry.verdict if entry.reason is None else f"{entry.verdict}: {entry.reason}"


@dataclass
class Move:
    """A batch and what the instance is once it is committed."""

    case: Case
    batch: Batch

    def take(self) -> None:
        """Believe that the batch is committed."""
        self.case.state = self.batch.state


@dataclass
class Case:
    """An instance as a host sees it."""

    instance_id: UUID
    host_id: UUID
    start: Envelope
    program: StoredProgram = ORDER
    token: int = 1
    state: InstanceState = field(default=initial)
    mode: SubflowMode | None = None
    parent: Case | None = None

    @property
    def key(self) -> str:
        return self.start.key

    @property
    def awaited_as(self) -> UUID | None:
        """The id under which its parent, or that of the one in whose place it goes on, waits for its end."""
        if self.mode == "continued" and self.parent is not None:
            return self.parent.awaited_as
        return self.instance_id if self.mode == "start" else None

    @property
    def registration(self) -> Registration:
        return Registration(
            instance_id=self.instance_id,
            workflow=self.program.workflow,
            program_hash=self.program.program_hash,
            correlation_key=self.start.key,
            start_message_id=self.start.message_id,
            partition=0,
        )

    def begin(self, *events: Event, **options: Any) -> Move:
        """Return the first batch: it consumes the start message."""
        started = InstanceStarted(
            workflow=self.program.workflow,
            program_hash=self.program.program_hash,
            correlation_key=self.start.key,
            message_id=self.start.message_id,
            message_type=self.start.type,
            body={},
            reply_to=self.start.reply_to,
            parent=str(self.parent.instance_id) if self.parent else None,
            subflow=self.mode,
            awaited_as=str(self.awaited_as) if self.awaited_as else None,
        )
        options.setdefault("consumed", [Consumed(envelope=self.start, stored=False)])
        return self.move(started, *events, **options)

    def move(
        self,
        *events: Event,
        reason: Reason = "idle",
        consumed: Sequence[Consumed] = (),
        outgoing: Sequence[Outgoing] = (),
        children: Sequence[Child] = (),
        inner: Sequence[InnerBatch] = (),
        deposits: Sequence[Deposit] = (),
        keeping: Keeping = KEPT,
        release: bool = False,
    ) -> Move:
        """Return a batch of events and the persistence point after them."""
        frame = FrameChange(program=self.program.program_hash, step=3, line=17, visits=1, set={"0.x": 1})
        written = [*events, Persisted(reason=reason, frames={"0": frame})]
        state = fold(written, self.state)
        batch = Batch(
            instance_id=self.instance_id,
            host_id=self.host_id,
            lock_token=self.token,
            expected_version=self.state.version,
            events=written,
            metadata={"app": APP},
            state=state,
            keeping=keeping,
            opened=tuple(name for name in state.bookmarks if name not in self.state.bookmarks),
            closed=tuple(name for name in self.state.bookmarks if name not in state.bookmarks),
            moved=tuple(n for n, mark in self.state.bookmarks.items() if state.bookmarks.get(n, mark) != mark),
            consumed=consumed,
            outgoing=outgoing,
            children=children,
            inner=inner,
            deposits=deposits,
            release=release,
        )
        return Move(self, batch)

    def child(self, key: str, mode: SubflowMode = "start", program: StoredProgram = AUDIT) -> Case:
        """Return a child as the host sees it that is the first to load it."""
        start = replace(message(program.starts_with or "", key), reply_to="answers")
        return Case(uuid4(), self.host_id, start, program, mode=mode, parent=self)

    @property
    def newborn(self) -> Child:
        """What the parent's batch says of it."""
        return Child(
            instance_id=self.instance_id,
            workflow=self.program.workflow,
            program_hash=self.program.program_hash,
            correlation_key=self.key,
            partition=0,
            mode=self.mode or "start",
            start=self.start,
            awaited_as=self.awaited_as,
        )

    def inner(self, move: Move) -> InnerBatch:
        """Return a move of this subflow as part of its parent's batch."""
        batch = move.batch
        return InnerBatch(
            instance_id=self.instance_id,
            workflow=self.program.workflow,
            program_hash=self.program.program_hash,
            correlation_key=self.key,
            start_message_id=self.start.message_id,
            expected_version=batch.expected_version,
            events=batch.events,
            metadata=batch.metadata,
            state=batch.state,
            keeping=batch.keeping,
        )

    def end(self, **options: Any) -> Move:
        """Return the last batch."""
        return self.move(InstanceCompleted(result=None), reason="completed", **options)

    def wait(
        self, message_type: str, key: str | None = None, name: str | None = None, kind: BookmarkKind = "message"
    ) -> BookmarkOpened:
        """Return the event that opens a bookmark for a message."""
        return BookmarkOpened(
            where=HERE,
            bookmark=name or f"wait-{message_type}-{next(_numbers)}",
            kind=kind,
            message_type=message_type,
            correlation_key=self.key if key is None else key,
        )

    def timer(self, due: datetime) -> BookmarkOpened:
        """Return the event that opens a timer."""
        return BookmarkOpened(
            where=HERE, bookmark=f"timer-{next(_numbers)}", kind="timer", due=due.astimezone(UTC).isoformat()
        )

    def send(self) -> Outgoing:
        """Return a message to publish."""
        return Outgoing(
            message_id=f"{self.instance_id}:{next(_numbers)}",
            exchange="out",
            routing_key="Shipped",
            type="Shipped",
            key=self.key,
            body=b"{}",
        )


def message(message_type: str, key: str, body: bytes = b"{}") -> Envelope:
    """Return a message with an id that no other has."""
    return Envelope(message_id=f"m-{next(_numbers)}", type=message_type, key=key, body=body, traceparent="00-1-2-01")


def fresh(envelope: Envelope) -> Consumed:
    """Say that a message came from the broker."""
    return Consumed(envelope=envelope, stored=False)


def stored(envelope: Envelope) -> Consumed:
    """Say that a message lay in the inbox."""
    return Consumed(envelope=envelope, stored=True)
