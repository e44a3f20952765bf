"""What the provider in memory keeps: the rows of the tables that Postgres has, and the looks into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import (
    InboxVerdict,
    Outgoing,
    Registration,
    Route,
    RouteKind,
    StoredMessage,
    StoredProgram,
)
from holdfast.projections.instance import Bookmark, InstanceState
from holdfast.projections.snapshot import dumps, loads
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.identifiers import digest
from holdfast.schemas.message import Envelope
from holdfast.schemas.words import SubflowMode


@dataclass(slots=True)
class HostRow:
    """A host, the moment at which its lease lapses, and the partitions that it consumes, each since when."""

    host: Host
    expiration: datetime
    partitions: dict[int, datetime] = field(default_factory=dict)
    held_back: frozenset[int] = frozenset()
    shared_at: datetime | None = None


@dataclass(slots=True)
class InstanceRow:
    """An instance: how it was registered, who holds it, whose child it is, and its state as bytes once persisted."""

    registration: Registration
    owner: UUID | None
    created: datetime
    token: int = 1
    version: int = 0
    status: str = "executing"
    is_suspended: bool = False
    suspension_reason: str | None = None
    suspension_exception_name: str | None = None
    state: bytes | None = None
    state_encoding: StateEncoding = "none"
    bookmarks: dict[str, Bookmark] = field(default_factory=dict)
    last_machine: str | None = None
    parent_id: UUID | None = None
    subflow: SubflowMode | None = None
    awaited_as: UUID | None = None

    @property
    def is_completed(self) -> bool:
        """Whether the instance is closed."""
        return self.status == "closed"

    @property
    def is_initialized(self) -> bool:
        """Whether the instance has had a persistence point."""
        return self.state is not None

    def come_to(self, state: InstanceState, encoding: StateEncoding) -> None:
        """Take over a state, to be stored in an encoding."""
        self.version, self.status = state.version, state.execution_status
        self.state, self.state_encoding = dumps(state, encoding), encoding
        self.is_suspended = state.is_suspended
        self.suspension_reason = state.suspension_reason
        self.suspension_exception_name = state.suspension_exception_name

    def read(self) -> InstanceState | None:
        """Return its state, once it is persisted; ``StorageError`` if it cannot be read."""
        return None if self.state is None else loads(self.state, self.state_encoding)

    @property
    def must_go_on(self) -> bool:
        """Whether the instance stands in the middle of a burst."""
        return self.is_initialized and self.status == "executing" and not self.is_suspended


@dataclass(slots=True)
class InboxRow:
    """A message taken in and what became of it; ``message`` has no body any more once it is settled."""

    message: StoredMessage
    digest: bytes
    verdict: InboxVerdict
    received_at: datetime
    reason: str | None = None
    detail: str | None = None
    instance_id: UUID | None = None
    version: int | None = None


@dataclass(slots=True)
class OutboxRow:
    """A message that is committed and not yet confirmed."""

    message: Outgoing
    instance_id: UUID
    host_id: UUID
    dead_reason: str | None = None


class Tables:
    """All rows of one app, and the questions that several operations ask of them.

    ``discarded`` are those of instances that were deleted as they closed: for tests to look at, and for nobody else.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.hosts: dict[UUID, HostRow] = {}
        self.programs: dict[str, StoredProgram] = {}
        self.instances: dict[UUID, InstanceRow] = {}
        self.discarded: dict[UUID, InstanceRow] = {}
        self.inbox: dict[str, InboxRow] = {}
        self.attempts: dict[str, int] = {}
        self.burst_attempts: dict[UUID, Counter[str]] = {}
        self.heartbeats: dict[str, datetime] = {}
        self.outbox: dict[str, OutboxRow] = {}
        self.sequence = 0
        self.looked_up_to: dict[UUID, UUID | int] = {}
        """Where a look of a host ended that found more than it could give."""

    def ever(self) -> dict[UUID, InstanceRow]:
        """Return the rows of all instances that there ever were, in the order of their registration."""
        rows = {**self.discarded, **self.instances}
        return dict(sorted(rows.items(), key=lambda item: item[1].created))

    def living(self, host_id: UUID | None, now: datetime) -> HostRow | None:
        """Return a host if its lease lives."""
        row = self.hosts.get(host_id) if host_id is not None else None
        return row if row is not None and row.expiration > now else None

    def holds(self, row: InstanceRow, host_id: UUID, token: int) -> bool:
        """Whether a living host holds the instance under a token."""
        living = self.living(host_id, self.now()) is not None
        return living and row.owner == host_id and row.token == token and not row.is_completed

    def foreign(self, host_id: UUID, now: datetime) -> dict[int, bool]:
        """Return the partitions that other living hosts consume and this one does not: whether their timers wait."""
        own = self.hosts[host_id].partitions if host_id in self.hosts else {}
        others = [row for name, row in self.hosts.items() if name != host_id and row.expiration > now]
        return {
            number: any(number in row.held_back for row in others)
            for row in others
            for number in row.partitions
            if number not in own
        }

    def is_free(self, row: InstanceRow, host_id: UUID, now: datetime) -> bool:
        """Whether the host holds the instance, or nobody living does."""
        return row.owner == host_id or self.living(row.owner, now) is None

    def waiting(self, envelope: Envelope, addressee: UUID | None = None) -> UUID | None:
        """Return the instance that has an open bookmark for a message, if that is not addressed to another."""
        for instance_id, row in self.instances.items():
            for bookmark in row.bookmarks.values():
                is_wanted = (bookmark.message_type, bookmark.correlation_key) == (envelope.type, envelope.key)
                if is_wanted and addressee in (None, instance_id):
                    return instance_id
        return None

    def of_key(self, message_type: str, key: str) -> tuple[UUID, InstanceRow] | None:
        """Return the living instance with a key that receives the type, else the last closed one."""
        found = [
            (row.is_completed, -row.created.timestamp(), instance_id, row)
            for instance_id, row in self.instances.items()
            if row.registration.correlation_key == key and row.subflow != "run" and self.knows(row, message_type)
        ]
        return min(found, key=lambda f: f[:2])[2:] if found else None

    def knows(self, row: InstanceRow, message_type: str) -> bool:
        """Whether the instance's program receives the type, or, if it is closed, starts with it."""
        program = self.programs.get(row.registration.program_hash)
        if program is None:
            return False
        return message_type in program.receives or (row.is_completed and message_type == program.starts_with)

    def reuse_keys(self, latest: StoredProgram) -> None:
        """Take over whether keys are used again for all the programs that a workflow ever had."""
        for name, program in self.programs.items():
            if program.starts_with and latest.starts_with and program.workflow == latest.workflow:
                self.programs[name] = replace(program, reuse_key=latest.reuse_key)

    def frees_key(self, row: InstanceRow, message_type: str) -> bool:
        """Whether a message may start the next instance of a key, since the workflow of this one uses keys again."""
        program = self.programs.get(row.registration.program_hash)
        return program is not None and program.reuse_key and message_type == program.starts_with

    def non_persisted(self, start_message_id: str) -> tuple[UUID, InstanceRow] | None:
        """Return the non-persisted instance that a message started."""
        for instance_id, row in self.instances.items():
            if (
                row.registration.start_message_id == start_message_id
                and not row.is_initialized
                and not row.is_completed
            ):
                return instance_id, row
        return None

    def can_start(self, instance_id: UUID) -> bool:
        """Whether an instance is non-persisted, not suspended, and its start message is there."""
        row = self.instances[instance_id]
        start = self.inbox.get(row.registration.start_message_id)
        is_kept = start is not None and start.verdict in ("buffered", "dead_lettered")
        return is_kept and not (row.is_initialized or row.is_completed or row.is_suspended)

    def route(self, envelope: Envelope) -> Route:
        """Return where a message belongs: the routing table, first match."""
        started = self.non_persisted(envelope.message_id)
        known = self.inbox.get(envelope.message_id)
        same = known is not None and known.digest == digest_of(envelope)
        if started is not None and (known is None or (same and known.verdict in ("buffered", "dead_lettered"))):
            return Route(RouteKind.NON_PERSISTED, started[0])
        if known is not None:
            return Route(RouteKind.DUPLICATE if same else RouteKind.REUSED)
        waiting = self.waiting(envelope)
        if waiting is not None:
            return Route(RouteKind.BOOKMARK, waiting)
        return self.route_by_key(envelope)

    def route_by_key(self, envelope: Envelope) -> Route:
        """Return where a message belongs that nobody waits for."""
        found = self.of_key(envelope.type, envelope.key)
        if found is None or (found[1].is_completed and self.frees_key(found[1], envelope.type)):
            return Route(RouteKind.NONE)
        return Route(RouteKind.FINISHED if found[1].is_completed else RouteKind.LIVING, found[0])

    def insert(
        self,
        envelope: Envelope,
        kind: Literal["message", "control"],
        instance_id: UUID | None = None,
        *,
        received_at: datetime | None = None,
        partition: int | None = None,
        arrived_at: datetime | None = None,
    ) -> InboxRow:
        """Add a message, buffered."""
        self.sequence += 1
        message = StoredMessage(
            sequence=self.sequence,
            kind=kind,
            envelope=envelope,
            received_at=arrived_at or received_at or self.now(),
            instance_id=instance_id,
            partition=partition,
        )
        row = InboxRow(message, digest_of(envelope), "buffered", received_at or self.now(), instance_id=instance_id)
        self.inbox[envelope.message_id] = row
        return row

    def buffered(self) -> Iterator[InboxRow]:
        """Yield what is buffered, oldest first."""
        rows = [row for row in self.inbox.values() if row.verdict == "buffered"]
        yield from sorted(rows, key=lambda row: row.message.sequence)

    def due(self, row: InstanceRow, now: datetime) -> list[str]:
        """Return the timers of an instance that are due."""
        return [name for name, b in row.bookmarks.items() if b.due is not None and datetime.fromisoformat(b.due) <= now]

    def is_for_another(self, envelope: Envelope) -> bool:
        """Whether a living instance may receive a message, or goes on in the place of one that was started with it."""
        for row in self.instances.values():
            program = self.programs.get(row.registration.program_hash)
            types = {*program.receives, program.starts_with} if program else set()
            is_its_key = row.registration.correlation_key == envelope.key and row.subflow != "run"
            if is_its_key and envelope.type in types and not row.is_completed:
                return True
        return False

    def lives(self, workflow: str, key: str) -> bool:
        """Whether there is a living instance of a workflow with a key; what runs within its parent does not count."""
        return any(
            (row.registration.workflow, row.registration.correlation_key) == (workflow, key)
            and not row.is_completed
            and row.subflow != "run"
            for row in self.instances.values()
        )

    def reject_left_over(self, instance_id: UUID) -> None:
        """Give what is left in the mailbox of a closed instance its verdict."""
        row = self.instances[instance_id]
        program = self.programs.get(row.registration.program_hash)
        types = {*program.receives, program.starts_with} if program else set()
        for left in list(self.buffered()):
            envelope = left.message.envelope
            by_key = (
                left.message.kind == "message"
                and left.instance_id is None
                and envelope.key == row.registration.correlation_key
                and envelope.type in types
                and not self.frees_key(row, envelope.type)
                and not self.is_for_another(envelope)
            )
            if by_key or left.instance_id == instance_id:
                settle(left, "rejected", reason="completed", instance_id=instance_id)


def settle(
    row: InboxRow,
    verdict: InboxVerdict,
    *,
    reason: str | None = None,
    instance_id: UUID | None = None,
    version: int | None = None,
) -> None:
    """Give a message its final verdict."""
    row.verdict, row.reason, row.detail = verdict, reason, None
    row.instance_id, row.version = instance_id or row.instance_id, version


def digest_of(envelope: Envelope) -> bytes:
    """Return what tells whether two messages with one id are the same."""
    return digest(envelope.type, envelope.key, envelope.body)


def lease_end(host: Host, now: datetime) -> datetime:
    """Return when a lease renewed now lapses."""
    return now + timedelta(seconds=host.lease_seconds)
