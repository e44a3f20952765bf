"""The engine's one door to storage: the ``PersistenceProvider`` port and the values that pass it.

Every method takes many items and answers each, in order, so that an adapter can serve them in one
round trip; the engine collects what is ready (``engine/batcher.py``). An adapter must keep these laws,
which the suite in ``tests/contract`` states one by one:

* ``commit`` writes all of a batch or nothing of it, and one bad batch harms no other of its group.
* A batch commits only while its host's lease lives and the instance's lock token and version are
  unchanged.
* A message id gets one verdict ``applied`` at most, ever.
* The clock that decides about leases and timers is the store's own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from holdfast.processor.engine.batch import KEPT, Batch, Child, Consumed, Deposit, InnerBatch, Keeping, Outgoing
from holdfast.processor.engine.peers import Hint, Host, Peer
from holdfast.processor.engine.stored_program import StoredProgram
from holdfast.processor.engine.wakeups import Mail, Runnable, Wakeups
from holdfast.processor.language.transaction import Transaction
from holdfast.projections.instance import InstanceState
from holdfast.schemas.activity_messages import ActivityHeartbeat
from holdfast.schemas.envelope import Envelope
from holdfast.schemas.errors import HoldfastError
from holdfast.schemas.words import SubflowMode

__all__ = [
    "AlreadyConsumed",
    "Batch",
    "Child",
    "Committed",
    "Consumed",
    "Deposit",
    "InboxVerdict",
    "InnerBatch",
    "Intake",
    "Keeping",
    "Loaded",
    "Outgoing",
    "PersistenceProvider",
    "Registration",
    "Route",
    "RouteKind",
    "Runnable",
    "StoredMessage",
    "StoredProgram",
    "Suspension",
    "UnitOfWork",
    "Wakeups",
]


class RouteKind(StrEnum):
    """What the store knows of a message: the first of these that holds."""

    NON_PERSISTED = "non_persisted"
    """It started an instance that has no persistence point yet: that instance."""
    DUPLICATE = "duplicate"
    """The id is known, with the same type, key and body."""
    REUSED = "reused"
    """The id is known, with another type, key or body."""
    BOOKMARK = "bookmark"
    """An instance waits for it."""
    LIVING = "living"
    """An instance with that key lives and its program receives the type, but does not wait for it now."""
    FULL = "full"
    """As much waits under its key as may: it is a dead letter."""
    FINISHED = "finished"
    """The instance with that key is closed and its program starts with or receives the type.

    Not so for a start message if its workflow uses keys again."""
    NONE = "none"
    """Nothing is known: it may start a workflow, else it is buffered."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one message belongs."""

    kind: RouteKind
    instance_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A new instance, made known to the store before its first burst; it is locked by the host.

    One that leaves no row when it closes (``keeping``) may have come and gone at the same moment elsewhere.
    """

    instance_id: UUID
    workflow: str
    program_hash: str
    correlation_key: str
    start_message_id: str
    partition: int
    keeping: Keeping = KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An instance that this host has just locked.

    ``state`` is None for a non-persisted instance; ``start_message`` is then its start message if the
    store still has it (buffered or dead-lettered). ``is_fresh`` says that it was registered just now,
    ``is_taken_over`` that the host which held it fell.
    """

    instance_id: UUID
    workflow: str
    program_hash: str
    correlation_key: str
    partition: int
    start_message_id: str
    lock_token: int
    is_initialized: bool
    is_suspended: bool
    state: InstanceState | None
    start_message: StoredMessage | None = None
    parent_id: UUID | None = None
    subflow: SubflowMode | None = None
    awaited_as: UUID | None = None
    is_fresh: bool = False
    is_taken_over: bool = False


InboxVerdict = Literal["applied", "buffered", "rejected", "expired", "dead_lettered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message or control command in the inbox, in the order of ``sequence``, and when and where it arrived."""

    sequence: int
    kind: Literal["message", "control"]
    envelope: Envelope
    received_at: datetime
    instance_id: UUID | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """A message to be stored with a verdict but without a batch.

    ``instance_id`` addresses it to one instance (control commands, messages kept for a suspended instance), or names
    the one that it came too late for. ``reason`` and ``detail`` explain a rejection or a dead letter. ``received_at``
    is when it came, if that was earlier. If ``room`` messages are buffered under its key, it becomes a dead letter.
    It came by ``partition``; ``arrived_at`` is when it came there, if it waited for a host.
    """

    envelope: Envelope
    verdict: InboxVerdict
    kind: Literal["message", "control"] = "message"
    reason: str | None = None
    detail: str | None = None
    instance_id: UUID | None = None
    received_at: datetime | None = None
    room: int | None = None
    partition: int | None = None
    arrived_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The batch is durable; ``cursor`` is the log's opaque cursor of its last event."""

    cursor: str


class AlreadyConsumed(HoldfastError):
    """A message of the batch has its verdict already; nothing of the batch was written."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"message {message_id!r} was consumed before")
        self.message_id = message_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """Suspends a non-persisted instance: operational, without an event."""

    instance_id: UUID
    host_id: UUID
    lock_token: int
    reason: str
    exception_name: str | None
    message: Consumed | None = None


class UnitOfWork(Protocol):
    """An open transaction for batches with user SQL, on a connection of its own."""

    def savepoint(self) -> AbstractAsyncContextManager[Transaction]:
        """Give a transaction handle under a savepoint, rolled back if the body raises.

        ``TransactionConflict`` for what the database gave up in favour of another transaction.
        """
        ...

    async def mark(self) -> None:
        """Remember this point of the transaction; marks nest."""
        ...

    async def back_to_mark(self) -> None:
        """Drop everything since the latest mark, and the mark."""
        ...

    async def drop_mark(self) -> None:
        """Forget the latest mark; what came after it stays."""
        ...

    async def commit(self, batch: Batch) -> Committed:
        """Commit the user's writes and the batch together; raises as ``commit`` answers."""
        ...

    async def rollback(self) -> None:
        """Drop everything since the transaction began."""
        ...


class PersistenceProvider(Protocol):
    """What the engine needs of a store."""

    async def open_host(self, host: Host) -> None:
        """Add a host with a fresh lease; its id must be new."""
        ...

    async def renew_host(self, host_id: UUID) -> bool:
        """Renew a living lease; False if it lapsed, and then it stays lapsed."""
        ...

    async def close_host(self, host_id: UUID) -> None:
        """Free every lock of the host and end its lease."""
        ...

    async def share(
        self, host_id: UUID, consumed: Mapping[int, datetime], held_back: Sequence[int] = ()
    ) -> Sequence[Peer]:
        """Note what a host consumes, each since when, and whose timers are ``held_back``; return the living hosts."""
        ...

    async def known_types(self) -> frozenset[str]:
        """Return the message types that some living host of the app knows."""
        ...

    async def save_programs(self, programs: Sequence[StoredProgram]) -> None:
        """Keep programs; of one that is there already only a missing signature and the lifetime change."""
        ...

    async def load_program(self, program_hash: str) -> StoredProgram | None:
        """Return a program of the app."""
        ...

    async def living_programs(self) -> Sequence[tuple[str, str]]:
        """Return name of workflow and hash of each program on which an instance lives."""
        ...

    async def runs_elsewhere(self, host_id: UUID, programs: Sequence[str]) -> bool:
        """Whether some other living host can run all of these programs."""
        ...

    async def route(self, envelopes: Sequence[Envelope]) -> Sequence[Route]:
        """Answer where each message belongs."""
        ...

    async def register(self, host_id: UUID, registrations: Sequence[Registration]) -> Sequence[int | HoldfastError]:
        """Register instances, each locked by the host; answers the lock token of each.

        ``KeyInUse`` or ``AlreadyConsumed`` for one whose key lives or whose start message is known.
        """
        ...

    async def load(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Loaded | HoldfastError]:
        """Lock and load instances; ``InstanceLocked``, ``InstanceCompleted`` or ``InstanceNotFound`` instead.

        ``InstanceUnreadable`` for one that is locked now but whose state cannot be read. A subflow that runs within
        its parent is not found: only the parent can be loaded. An instance that this host holds already is given again
        with its token unchanged.
        """
        ...

    async def read_states(self, instance_ids: Sequence[UUID]) -> Sequence[InstanceState | HoldfastError]:
        """Return the states of persisted instances, locked or not; ``InstanceNotFound``, ``InstanceUnreadable``."""
        ...

    async def release(self, host_id: UUID, instance_ids: Sequence[UUID]) -> None:
        """Give locks of this host back."""
        ...

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        """Commit a group: at most one batch an instance, each answered for itself.

        ``InstanceLockLost``, ``WrongExpectedVersion``, ``AlreadyConsumed``, ``KeyInUse`` for a member
        that was dropped; ``CommitOutcomeUnknown`` if nobody can tell; ``StorageError`` raised
        (not answered) when nothing at all was committed and the store cannot be reached.
        """
        ...

    def begin(self, host_id: UUID) -> AbstractAsyncContextManager[UnitOfWork]:
        """Open a transaction for user SQL from a bounded pool; rolled back unless committed."""
        ...

    def own_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction for user SQL alone; committed at the end of the body, rolled back if that raises."""
        ...

    async def suspend(self, suspensions: Sequence[Suspension]) -> None:
        """Suspend non-persisted instances, keep their start message in the inbox, free the lock."""
        ...

    async def resume(self, host_id: UUID, instance_id: UUID, control_id: str) -> None:
        """Let a suspended non-persisted instance, locked by this host, go on; applies the control row."""
        ...

    async def take_in(self, intakes: Sequence[Intake]) -> Sequence[Route]:
        """Store messages with a verdict; an id that is known already is left alone.

        Answers ``DUPLICATE`` or ``REUSED`` for a known id; but a message that is buffered may still get
        another verdict, and a dead letter whose id another message has is kept under an id of its own.
        Otherwise ``BOOKMARK`` with the instance for a buffered message that an open bookmark waits for,
        looked up after the commit so that no wake-up is lost; ``NON_PERSISTED`` with an instance that may come
        to wait for it and was never persisted, if its start message is there; ``FINISHED`` for a message that
        turned out to come too late and was rejected, ``FULL`` for one without room; else ``NONE``.
        """
        ...

    async def attempt(self, message_ids: Sequence[str]) -> Sequence[int]:
        """Count one more attempt of each message, durably, and return the counts."""
        ...

    async def attempt_burst(self, instance_id: UUID, how: Literal["taken_over", "alone", "abandoned"]) -> int:
        """Count one more attempt of an instance's burst, until its next commit or suspension; return the count."""
        ...

    async def wakeups(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Wakeups]:
        """Return what wakes each of these instances now, as of a fresh look at the store."""
        ...

    async def find_mail(self, mails: Sequence[Mail]) -> Sequence[Sequence[StoredMessage]]:
        """Return, for each, the oldest buffered message of each type and key that it waits for, oldest first."""
        ...

    async def runnable(
        self, host_id: UUID, start_types: Sequence[str], limit: int, held_back: Sequence[int] = ()
    ) -> Sequence[Runnable]:
        """Return work for this host: what woke instances that it holds or that no living host holds.

        Due timers, buffered messages with an open bookmark, control commands, instances of lapsed
        hosts that were running, and buffered messages that start a workflow. What this host does not hold is left to
        whoever consumes its partition, as long as some other living host does and this one does not. Timers of the
        partitions ``held_back`` are none of it.
        """
        ...

    async def beat(self, beats: Sequence[ActivityHeartbeat]) -> None:
        """Note that activity workers are busy with requests, each for so many seconds from now on.

        A request that no instance waits for is left alone.
        """
        ...

    async def lapse(self, limit: int) -> int:
        """Deposit failures (``ActivityLost``) for requests whose workers should have said by now that they live.

        At most ``limit`` of them; each once, and only while an instance waits for it. Counts them.
        """
        ...

    async def next_timer(self, host_id: UUID, held_back: Sequence[int] = ()) -> float | None:
        """Return the seconds until the next timer of this host that is in no partition ``held_back``, or None."""
        ...

    async def expire(self, ttl_seconds: float, limit: int) -> int:
        """Give buffered messages older than their time to live the verdict ``expired``; count them."""
        ...

    async def outbox(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        """Return the oldest unpublished messages that this host, or none that lives, has committed.

        One waits for the older messages of its instance, whoever is to publish them.
        """
        ...

    async def published(self, message_ids: Sequence[str]) -> None:
        """Remove confirmed messages from the outbox."""
        ...

    async def unroutable(self, message_id: str, reason: str) -> None:
        """Mark a message as a dead letter of the outbox."""
        ...

    def listen(self) -> AsyncGenerator[Hint, None]:
        """Yield a hint when ``runnable`` may find something (``work``), or ``share`` other hosts too (``hosts``).

        The first is given at the start, for all that came before.
        """
        ...

    async def now(self) -> datetime:
        """Return the store's clock."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
