"""The persistence provider in memory, for tests and simulations: the same laws, a clock that is passed in.

Nothing in it waits: each operation happens at once, between two steps of the event loop. States go
through their stored form, so that whatever would not survive Postgres does not survive here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from holdfast.events.log import Append
from holdfast.events.memory import MemoryEventLog
from holdfast.events.recorded import Cursor
from holdfast.processor.engine.provider import (
    AlreadyConsumed,
    Batch,
    Committed,
    Consumed,
    Host,
    Intake,
    Loaded,
    Outgoing,
    Registration,
    Route,
    RouteKind,
    Runnable,
    StoredMessage,
    StoredProgram,
    Suspension,
    Wakeups,
)
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store.memory_tables import (
    HostRow,
    InboxRow,
    InstanceRow,
    OutboxRow,
    Tables,
    digest_of,
    lease_end,
    settle,
)
from holdfast.projections.snapshot import dumps, loads
from holdfast.schemas.errors import (
    HoldfastError,
    InstanceCompleted,
    InstanceLocked,
    InstanceLockLost,
    InstanceNotFound,
    KeyInUse,
    StorageError,
    WrongExpectedVersion,
)
from holdfast.schemas.message import Envelope

UserSql = Callable[[Any, Any], Any]
"""Takes a query and its parameters and answers what a cursor would be."""


class MemoryProvider:
    """``PersistenceProvider`` for one app in one process.

    ``clock`` gives the time, in UTC. ``sql`` serves the user SQL of record activities; without it they
    raise ``StorageError``. ``log`` and ``tables`` are open to look at.
    """

    def __init__(self, app: str, clock: Callable[[], datetime], sql: UserSql | None = None) -> None:
        self.log = MemoryEventLog(clock)
        self.tables = Tables()
        self._app = app
        self._clock = clock
        self._sql = sql
        self._listeners: set[asyncio.Event] = set()

    # Hosts and programs.

    async def open_host(self, host: Host) -> None:
        if host.host_id in self.tables.hosts:
            raise StorageError(f"host {host.host_id} is there already")
        self.tables.hosts[host.host_id] = HostRow(host, lease_end(host, self._clock()))

    async def renew_host(self, host_id: UUID) -> bool:
        row = self.tables.living(host_id, self._clock())
        if row is not None:
            row.expiration = lease_end(row.host, self._clock())
        return row is not None

    async def close_host(self, host_id: UUID) -> None:
        self.tables.hosts.pop(host_id, None)
        for row in self.tables.instances.values():
            if row.owner == host_id:
                row.owner = None

    async def known_types(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(
            name for row in self.tables.hosts.values() if row.expiration > now for name in row.host.message_types
        )

    async def save_programs(self, programs: Sequence[StoredProgram]) -> None:
        for program in programs:
            self.tables.programs.setdefault(program.program_hash, program)

    async def load_program(self, program_hash: str) -> StoredProgram | None:
        return self.tables.programs.get(program_hash)

    # Locks.

    async def register(self, host_id: UUID, registrations: Sequence[Registration]) -> Sequence[int | HoldfastError]:
        return [self._register(host_id, registration) for registration in registrations]

    async def load(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Loaded | HoldfastError]:
        return [self._load(host_id, instance_id) for instance_id in instance_ids]

    async def release(self, host_id: UUID, instance_ids: Sequence[UUID]) -> None:
        for instance_id in instance_ids:
            row = self.tables.instances.get(instance_id)
            if row is not None and row.owner == host_id:
                row.owner = None

    async def suspend(self, suspensions: Sequence[Suspension]) -> None:
        for suspension in suspensions:
            row = self.tables.instances.get(suspension.instance_id)
            if row is None or not self._holds(row, suspension.host_id, suspension.lock_token) or row.is_initialized:
                raise InstanceLockLost(suspension.instance_id)
            row.is_suspended, row.owner = True, None
            row.suspension_reason, row.suspension_exception_name = suspension.reason, suspension.exception_name
            if suspension.message is not None:
                self._keep_for(suspension.instance_id, suspension.message)

    async def resume(self, host_id: UUID, instance_id: UUID, control_id: str) -> None:
        row = self.tables.instances.get(instance_id)
        if row is None or not self._holds(row, host_id, row.token) or row.is_initialized:
            raise InstanceLockLost(instance_id)
        row.is_suspended, row.suspension_reason, row.suspension_exception_name = False, None, None
        control = self.tables.inbox.get(control_id)
        if control is not None and control.verdict == "buffered":
            settle(control, "applied", instance_id=instance_id)

    # Persistence points.

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        if len({batch.instance_id for batch in batches}) < len(batches):
            raise ValueError("a group holds at most one batch of an instance")
        answers: dict[UUID, Committed | HoldfastError] = {}
        members = list(batches)
        while True:
            refusals = self._refusals(members)
            if not refusals:
                break
            answers |= refusals
            members = [batch for batch in members if batch.instance_id not in refusals]
        for batch in members:
            answers[batch.instance_id] = await self._write(batch)
        return [answers[batch.instance_id] for batch in batches]

    @asynccontextmanager
    async def begin(self, host_id: UUID) -> AsyncIterator[MemoryUnitOfWork]:  # noqa: ARG002 The commit knows the host.
        yield MemoryUnitOfWork(self, self._sql)

    # Messages.

    async def route(self, envelopes: Sequence[Envelope]) -> Sequence[Route]:
        return [self.tables.route(envelope) for envelope in envelopes]

    async def take_in(self, intakes: Sequence[Intake]) -> Sequence[Route]:
        routes = [self._take_in(intake) for intake in intakes]
        heard = any(i.kind == "control" for i in intakes) or any(r.kind is RouteKind.BOOKMARK for r in routes)
        for listener in self._listeners if heard else ():
            listener.set()
        return routes

    async def attempt(self, message_ids: Sequence[str]) -> Sequence[int]:
        for message_id in set(message_ids):
            self.tables.attempts[message_id] = self.tables.attempts.get(message_id, 0) + 1
        return [self.tables.attempts[message_id] for message_id in message_ids]

    async def expire(self, ttl_seconds: float, limit: int) -> int:
        now = self._clock()
        old = [
            row
            for row in self.tables.buffered()
            if row.message.kind == "message"
            and row.instance_id is None
            and (now - row.message.received_at).total_seconds() > ttl_seconds
            and self.tables.route_by_key(row.message.envelope).kind is not RouteKind.LIVING
        ][:limit]
        for row in old:
            settle(row, "expired")
            self.tables.attempts.pop(row.message.envelope.message_id, None)
        return len(old)

    async def outbox(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        now, held_up, found = self._clock(), set(), []
        for row in self.tables.outbox.values():
            if row.dead_reason is not None:
                continue
            if row.host_id != host_id and self.tables.living(row.host_id, now) is not None:
                held_up.add(row.instance_id)
            elif row.instance_id not in held_up:
                found.append(row.message)
        return found[:limit]

    async def published(self, message_ids: Sequence[str]) -> None:
        for message_id in message_ids:
            self.tables.outbox.pop(message_id, None)

    async def unroutable(self, message_id: str, reason: str) -> None:
        row = self.tables.outbox.get(message_id)
        if row is not None:
            row.dead_reason = reason

    # What wakes instances.

    async def wakeups(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Wakeups]:
        return [self._wakeups(host_id, instance_id) for instance_id in instance_ids]

    async def runnable(self, host_id: UUID, start_types: Sequence[str], limit: int) -> Sequence[Runnable]:
        now, tables = self._clock(), self.tables
        found: dict[UUID | int, Runnable] = {}
        free = {name: row for name, row in tables.instances.items() if tables.is_free(row, host_id, now)}
        for left in tables.buffered():
            if left.message.kind == "control" and left.instance_id in free:
                found.setdefault(left.instance_id, Runnable(instance_id=left.instance_id, why="control"))
        awake = {name: row for name, row in free.items() if not row.is_suspended and not row.is_completed}
        for instance_id, row in awake.items():
            if tables.due(row, now):
                found.setdefault(instance_id, Runnable(instance_id=instance_id, why="timer"))
        for instance_id, row in awake.items():
            if row.must_go_on and row.owner != host_id and tables.living(row.owner, now) is None:
                found.setdefault(instance_id, Runnable(instance_id=instance_id, why="lapsed"))
        for left in list(tables.buffered()):
            if left.message.kind == "message":
                self._consider(left, awake, start_types, found)
        return list(found.values())[:limit]

    async def next_timer(self, host_id: UUID) -> float | None:
        now = self._clock()
        due = [
            datetime.fromisoformat(bookmark.due)
            for row in self.tables.instances.values()
            if self.tables.is_free(row, host_id, now) and not row.is_suspended
            for bookmark in row.bookmarks.values()
            if bookmark.due is not None
        ]
        return max(0.0, (min(due) - now).total_seconds()) if due else None

    async def listen(self) -> AsyncGenerator[None, None]:
        listener = asyncio.Event()
        self._listeners.add(listener)
        try:
            while True:
                yield
                await listener.wait()
                listener.clear()
        finally:
            self._listeners.discard(listener)

    async def now(self) -> datetime:
        return self._clock()

    async def close(self) -> None:
        """Keep everything: another host may still use it."""

    # Small parts.

    def _holds(self, row: InstanceRow, host_id: UUID, token: int) -> bool:
        living = self.tables.living(host_id, self._clock()) is not None
        return living and row.owner == host_id and row.token == token and not row.is_completed

    def _register(self, host_id: UUID, registration: Registration) -> int | HoldfastError:
        tables = self.tables
        host = tables.living(host_id, self._clock())
        own = tables.instances.get(registration.instance_id)
        if own is not None and own.owner == host_id:
            return own.token
        if host is None:
            return InstanceLockLost(registration.instance_id)
        known = tables.inbox.get(registration.start_message_id)
        rows = [row.registration for row in tables.instances.values()]
        if (known is not None and known.verdict != "buffered") or any(
            other.start_message_id == registration.start_message_id for other in rows
        ):
            return AlreadyConsumed(registration.start_message_id)
        for row in tables.instances.values():
            other = row.registration
            mine = (registration.workflow, registration.correlation_key)
            if (other.workflow, other.correlation_key) == mine and not row.is_completed:
                program = tables.programs.get(registration.program_hash)
                return KeyInUse(
                    registration.instance_id,
                    message_type=(program.starts_with if program else None) or registration.workflow,
                    correlation_key=registration.correlation_key,
                )
        tables.instances[registration.instance_id] = InstanceRow(
            registration, owner=host_id, created=self._clock(), last_machine=host.host.machine
        )
        return 1

    def _load(self, host_id: UUID, instance_id: UUID) -> Loaded | HoldfastError:
        tables, now = self.tables, self._clock()
        row = tables.instances.get(instance_id)
        if row is None:
            return InstanceNotFound(instance_id)
        if row.is_completed:
            return InstanceCompleted(instance_id)
        holder = tables.living(row.owner, now)
        if holder is not None and row.owner is not None and row.owner != host_id:
            return InstanceLocked(
                instance_id, owner=row.owner, machine=holder.host.machine, expiration=holder.expiration
            )
        host = tables.living(host_id, now)
        if host is None:
            return InstanceLockLost(instance_id)
        if row.owner != host_id:
            row.owner, row.token = host_id, row.token + 1
        row.last_machine = host.host.machine
        registration = row.registration
        start = tables.inbox.get(registration.start_message_id)
        kept = start is not None and not row.is_initialized and start.verdict in ("buffered", "dead_lettered")
        return Loaded(
            instance_id=instance_id,
            workflow=registration.workflow,
            program_hash=registration.program_hash,
            correlation_key=registration.correlation_key,
            partition=registration.partition,
            start_message_id=registration.start_message_id,
            lock_token=row.token,
            is_initialized=row.is_initialized,
            is_suspended=row.is_suspended,
            state=None if row.state is None else loads(row.state),
            start_message=start.message if kept and start is not None else None,
        )

    def _refusals(self, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
        """Return what is wrong with members of a group, as far as one look shows."""
        refusals: dict[UUID, HoldfastError] = {}
        for batch in members:
            row = self.tables.instances.get(batch.instance_id)
            if row is None or not self._holds(row, batch.host_id, batch.lock_token):
                refusals[batch.instance_id] = InstanceLockLost(batch.instance_id)
            elif row.version != batch.expected_version:
                refusals[batch.instance_id] = WrongExpectedVersion(
                    batch.instance_id, expected=batch.expected_version, actual=row.version
                )
        if refusals:
            return refusals
        return self._keys_in_use(members) or self._consumed_before(members)

    def _keys_in_use(self, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
        closed = {(batch.instance_id, name) for batch in members for name in batch.closed}
        taken = {
            (bookmark.message_type, bookmark.correlation_key)
            for instance_id, row in self.tables.instances.items()
            for name, bookmark in row.bookmarks.items()
            if bookmark.kind == "message" and (instance_id, name) not in closed
        }
        for batch in sorted(members, key=lambda batch: batch.instance_id.int):
            for name in batch.opened:
                bookmark = batch.state.bookmarks[name]
                wanted = (bookmark.message_type, bookmark.correlation_key)
                if bookmark.kind == "message" and wanted in taken:
                    refusal = KeyInUse(
                        batch.instance_id,
                        message_type=bookmark.message_type or "",
                        correlation_key=bookmark.correlation_key or "",
                    )
                    return {batch.instance_id: refusal}
                taken.add(wanted)
        return {}

    def _consumed_before(self, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
        seen: set[str] = set()
        for batch in members:
            for consumed in batch.consumed:
                envelope = consumed.envelope
                known = self.tables.inbox.get(envelope.message_id)
                open_still = known is None or (
                    known.verdict in ("buffered", "dead_lettered") and known.digest == digest_of(envelope)
                )
                if envelope.message_id in seen or not open_still:
                    return {batch.instance_id: AlreadyConsumed(envelope.message_id)}
                seen.add(envelope.message_id)
        return {}

    async def _write(self, batch: Batch) -> Committed | HoldfastError:
        async with self.log.transaction() as transaction:
            (answer,) = await self.log.append_many(
                transaction,
                [
                    Append(
                        instance_id=batch.instance_id,
                        expected=batch.expected_version,
                        events=batch.events,
                        metadata=batch.metadata,
                    )
                ],
            )
        if not isinstance(answer, Cursor):
            return answer
        tables, state = self.tables, batch.state
        row = tables.instances[batch.instance_id]
        row.version, row.status, row.state = state.version, state.execution_status, dumps(state)
        row.is_suspended = state.is_suspended
        row.suspension_reason = state.suspension_reason
        row.suspension_exception_name = state.suspension_exception_name
        for name in batch.closed:
            row.bookmarks.pop(name, None)
        row.bookmarks |= {name: state.bookmarks[name] for name in batch.opened}
        for consumed in batch.consumed:
            self._apply(batch, consumed)
        for message in batch.outgoing:
            tables.outbox[message.message_id] = OutboxRow(message, batch.instance_id, batch.host_id)
        if batch.release or row.is_completed:
            row.owner = None
        if row.is_completed:
            tables.reject_left_over(batch.instance_id)
        return Committed(str(answer))

    def _apply(self, batch: Batch, consumed: Consumed) -> None:
        envelope = consumed.envelope
        row = self.tables.inbox.get(envelope.message_id) or self._insert(envelope, consumed.kind)
        settle(row, "applied", instance_id=batch.instance_id, version=batch.state.version)
        self.tables.attempts.pop(envelope.message_id, None)

    def _insert(self, envelope: Envelope, kind: Any, instance_id: UUID | None = None) -> InboxRow:
        tables = self.tables
        tables.sequence += 1
        message = StoredMessage(
            sequence=tables.sequence,
            kind=kind,
            envelope=envelope,
            received_at=self._clock(),
            instance_id=instance_id,
        )
        row = InboxRow(message, digest_of(envelope), "buffered", instance_id=instance_id)
        tables.inbox[envelope.message_id] = row
        return row

    def _keep_for(self, instance_id: UUID, message: Consumed) -> None:
        envelope = message.envelope
        row = self.tables.inbox.get(envelope.message_id) or self._insert(envelope, message.kind, instance_id)
        if row.verdict in ("buffered", "dead_lettered"):
            row.verdict, row.reason, row.detail, row.instance_id = "buffered", None, None, instance_id
            row.message = replace(row.message, instance_id=instance_id)
        self.tables.attempts.pop(envelope.message_id, None)

    def _take_in(self, intake: Intake) -> Route:
        tables, envelope = self.tables, intake.envelope
        known = tables.inbox.get(envelope.message_id)
        if known is not None:
            if known.digest != digest_of(envelope):
                if intake.verdict == "dead_lettered":
                    own = f"{envelope.message_id}#{digest_of(envelope).hex()}"
                    self._take_in(replace(intake, envelope=replace(envelope, message_id=own)))
                return Route(RouteKind.REUSED)
            if known.verdict != "buffered" or intake.verdict == "buffered":
                return Route(RouteKind.DUPLICATE)
        row = known or self._insert(envelope, intake.kind, intake.instance_id)
        row.verdict, row.reason, row.detail = intake.verdict, intake.reason, intake.detail
        if intake.verdict != "buffered":
            tables.attempts.pop(envelope.message_id, None)
            return Route(RouteKind.NONE)
        if intake.kind == "control":
            return Route(RouteKind.NONE)
        waiting = tables.waiting(envelope.type, envelope.key)
        if waiting is not None:
            return Route(RouteKind.BOOKMARK, waiting)
        found = tables.route_by_key(envelope)
        if found.kind is RouteKind.FINISHED:
            settle(row, "rejected", reason="completed", instance_id=found.instance_id)
            return found
        return Route(RouteKind.NONE)

    def _wakeups(self, host_id: UUID, instance_id: UUID) -> Wakeups:
        tables, now = self.tables, self._clock()
        row = tables.instances.get(instance_id)
        if row is None or not self._holds(row, host_id, row.token):
            return Wakeups(now=now)
        messages: dict[tuple[str, str] | int, StoredMessage] = {}
        wanted = {(b.message_type, b.correlation_key) for b in row.bookmarks.values() if b.kind == "message"}
        for left in tables.buffered():
            message = left.message
            address = (message.envelope.type, message.envelope.key)
            if message.kind == "control":
                if left.instance_id == instance_id:
                    messages[message.sequence] = message
            elif address in wanted and not row.is_suspended:
                messages.setdefault(address, message)
        due = () if row.is_suspended else tuple(tables.due(row, now))
        return Wakeups(now=now, messages=list(messages.values()), due=due)

    def _consider(
        self,
        left: InboxRow,
        awake: dict[UUID, InstanceRow],
        start_types: Sequence[str],
        found: dict[UUID | int, Runnable],
    ) -> None:
        """Add what a buffered message makes runnable; reject it if its instance is closed."""
        tables, envelope = self.tables, left.message.envelope
        waiting = tables.waiting(envelope.type, envelope.key)
        started = tables.non_persisted(envelope.message_id)
        if waiting is not None:
            if waiting in awake:
                found.setdefault(waiting, Runnable(instance_id=waiting, why="message"))
        elif started is not None:
            if started[0] in awake:
                found.setdefault(started[0], Runnable(instance_id=started[0], why="start"))
        else:
            known = tables.route_by_key(envelope)
            if known.kind is RouteKind.FINISHED and known.instance_id is not None:
                tables.reject_left_over(known.instance_id)
            elif (
                known.kind is RouteKind.NONE
                and left.instance_id is None
                and envelope.type in start_types
                and not self._is_started(envelope)
            ):
                found[left.message.sequence] = Runnable(message=left.message, why="start")

    def _is_started(self, envelope: Envelope) -> bool:
        """Whether a living instance was started with the type and key."""
        for row in self.tables.instances.values():
            program = self.tables.programs.get(row.registration.program_hash)
            if row.registration.correlation_key == envelope.key and program and program.starts_with == envelope.type:
                return True
        return False


class MemoryUnitOfWork:
    """A unit of work whose user SQL goes to a function."""

    def __init__(self, provider: MemoryProvider, sql: UserSql | None) -> None:
        self._provider = provider
        self._sql = sql

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        yield _Handle(self._sql)

    async def commit(self, batch: Batch) -> Committed:
        (answer,) = await self._provider.commit([batch])
        if isinstance(answer, HoldfastError):
            raise answer
        return answer

    async def rollback(self) -> None:
        """Nothing is to be undone: a function's effects are its own."""


class _Handle:
    def __init__(self, sql: UserSql | None) -> None:
        self._sql = sql

    async def execute(self, query: Any, params: Any = None) -> Any:
        if self._sql is None:
            raise StorageError("there is no SQL in memory: give the provider a function that answers it")
        return self._sql(query, params)
