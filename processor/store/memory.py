"""The persistence provider in memory, for tests and simulations: the same laws, a clock that is passed in.

Nothing in it waits: each operation happens at once, between two steps of the event loop. States go
through their stored form, so that whatever would not survive Postgres does not survive here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from holdfast.events.log import Append
from holdfast.events.memory import MemoryEventLog
from holdfast.events.recorded import Cursor
from holdfast.processor.engine.peers import Hint, Host, Peer
from holdfast.processor.engine.provider import (
    Batch,
    Committed,
    Intake,
    Loaded,
    Outgoing,
    Registration,
    Route,
    RouteKind,
    StoredMessage,
    StoredProgram,
    Suspension,
)
from holdfast.processor.engine.wakeups import Mail, Runnable, Wakeups
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store import memory_commit, memory_locks, memory_messages, memory_subflows, memory_wakeups
from holdfast.processor.store.memory_tables import (
    HostRow,
    Tables,
    lease_end,
)
from holdfast.projections.instance import InstanceState
from holdfast.schemas.activity_messages import ActivityHeartbeat
from holdfast.schemas.errors import (
    HoldfastError,
    StorageError,
)
from holdfast.schemas.message import Envelope

UserSql = Callable[[Any, Any], Any]
"""Takes a query and its parameters and answers what a cursor would be."""


class MemoryProvider:
    """``PersistenceProvider`` for one app in one process.

    ``clock`` gives the time, in UTC. ``sql`` serves the user SQL of record activities; without it they
    raise ``StorageError``. ``log`` and ``tables`` are open to look at, and so are the ``statements`` of user SQL that
    were committed, oldest first, each with its parameters.
    """

    def __init__(self, app: str, clock: Callable[[], datetime], sql: UserSql | None = None) -> None:
        self.log = MemoryEventLog(clock)
        self.tables = Tables(clock)
        self.statements: list[tuple[str, Any]] = []
        self._app = app
        self._clock = clock
        self._sql = sql
        self._listeners: set[asyncio.Queue[Hint]] = set()

    # Hosts and programs.

    async def open_host(self, host: Host) -> None:
        if host.host_id in self.tables.hosts:
            raise StorageError(f"host {host.host_id} is there already")
        self.tables.hosts[host.host_id] = HostRow(host, lease_end(host, self._clock()))
        self._hint("hosts")

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
        self._hint("hosts")

    async def share(
        self, host_id: UUID, consumed: Mapping[int, datetime], held_back: Sequence[int] = ()
    ) -> Sequence[Peer]:
        now = self._clock()
        row = self.tables.hosts.get(host_id)
        if row is not None:
            is_news = row.partitions.keys() != consumed.keys()
            row.partitions, row.held_back, row.shared_at = dict(consumed), frozenset(held_back), now
            if is_news:
                self._hint("hosts")
        return [
            Peer(
                host_id=name,
                lease_left=(each.expiration - now).total_seconds(),
                partitions=frozenset(each.partitions),
                shared_at=each.shared_at,
            )
            for name, each in self.tables.hosts.items()
            if each.expiration > now and each.host.programs
        ]

    async def known_types(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(
            name for row in self.tables.hosts.values() if row.expiration > now for name in row.host.message_types
        )

    async def save_programs(self, programs: Sequence[StoredProgram]) -> None:
        for program in programs:
            kept = self.tables.programs.get(program.program_hash, program)
            self.tables.programs[program.program_hash] = replace(
                kept, signature=kept.signature or program.signature, expected_lifetime=program.expected_lifetime
            )
            self.tables.reuse_keys(program)

    async def load_program(self, program_hash: str) -> StoredProgram | None:
        return self.tables.programs.get(program_hash)

    async def living_programs(self) -> Sequence[tuple[str, str]]:
        live = {row.registration.program_hash for row in self.tables.instances.values() if not row.is_completed}
        return sorted((p.workflow, p.program_hash) for p in self.tables.programs.values() if p.program_hash in live)

    async def runs_elsewhere(self, host_id: UUID, programs: Sequence[str]) -> bool:
        now = self._clock()
        return any(
            name != host_id and row.expiration > now and {*programs} <= {*row.host.programs}
            for name, row in self.tables.hosts.items()
        )

    # Locks.

    async def register(self, host_id: UUID, registrations: Sequence[Registration]) -> Sequence[int | HoldfastError]:
        return [memory_locks.register(self.tables, host_id, registration) for registration in registrations]

    async def load(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Loaded | HoldfastError]:
        return [memory_locks.load(self.tables, host_id, instance_id) for instance_id in instance_ids]

    async def read_states(self, instance_ids: Sequence[UUID]) -> Sequence[InstanceState | HoldfastError]:
        return [memory_subflows.read_state(self.tables, instance_id) for instance_id in instance_ids]

    async def release(self, host_id: UUID, instance_ids: Sequence[UUID]) -> None:
        for instance_id in instance_ids:
            row = self.tables.instances.get(instance_id)
            if row is not None and row.owner == host_id:
                row.owner = None

    async def suspend(self, suspensions: Sequence[Suspension]) -> None:
        for suspension in suspensions:
            memory_locks.suspend(self.tables, suspension)

    async def resume(self, host_id: UUID, instance_id: UUID, control_id: str) -> None:
        memory_locks.resume(self.tables, host_id, instance_id, control_id)

    # Persistence points.

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        if len({batch.instance_id for batch in batches}) < len(batches):
            raise ValueError("a group holds at most one batch of an instance")
        answers: dict[UUID, Committed | HoldfastError] = {}
        members = list(batches)
        while True:
            refusals = memory_commit.refusals(self.tables, members)
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

    @asynccontextmanager
    async def own_transaction(self) -> AsyncIterator[Transaction]:
        statements: list[tuple[str, Any]] = []
        yield _Handle(statements, self._sql)
        self.statements += statements

    # Messages.

    async def route(self, envelopes: Sequence[Envelope]) -> Sequence[Route]:
        return [self.tables.route(envelope) for envelope in envelopes]

    async def take_in(self, intakes: Sequence[Intake]) -> Sequence[Route]:
        routes = [memory_messages.take_in(self.tables, intake) for intake in intakes]
        if any(i.kind == "control" for i in intakes) or any(r.kind is RouteKind.BOOKMARK for r in routes):
            self._hint()
        return routes

    async def attempt(self, message_ids: Sequence[str]) -> Sequence[int]:
        for message_id in set(message_ids):
            self.tables.attempts[message_id] = self.tables.attempts.get(message_id, 0) + 1
        return [self.tables.attempts[message_id] for message_id in message_ids]

    async def attempt_burst(self, instance_id: UUID, how: str) -> int:
        counts = self.tables.burst_attempts.setdefault(instance_id, Counter())
        counts[how] += 1
        return counts[how]

    async def expire(self, ttl_seconds: float, limit: int) -> int:
        return memory_messages.expire(self.tables, ttl_seconds, limit)

    async def outbox(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        return memory_messages.outbox(self.tables, host_id, limit)

    async def published(self, message_ids: Sequence[str]) -> None:
        for message_id in message_ids:
            self.tables.outbox.pop(message_id, None)

    async def unroutable(self, message_id: str, reason: str) -> None:
        row = self.tables.outbox.get(message_id)
        if row is not None:
            row.dead_reason = reason

    # What wakes instances.

    async def wakeups(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Wakeups]:
        return [memory_wakeups.wakeups(self.tables, host_id, instance_id) for instance_id in instance_ids]

    async def find_mail(self, mails: Sequence[Mail]) -> Sequence[Sequence[StoredMessage]]:
        return [memory_wakeups.find_mail(self.tables, mail) for mail in mails]

    async def runnable(
        self, host_id: UUID, start_types: Sequence[str], limit: int, held_back: Sequence[int] = ()
    ) -> Sequence[Runnable]:
        return memory_wakeups.runnable(self.tables, host_id, start_types, limit, held_back)

    async def beat(self, beats: Sequence[ActivityHeartbeat]) -> None:
        for each in beats:
            memory_messages.beat(self.tables, each)

    async def lapse(self, limit: int) -> int:
        answers = memory_messages.lapse(self.tables, limit)
        await self.take_in(answers)
        return len(answers)

    async def next_timer(self, host_id: UUID, held_back: Sequence[int] = ()) -> float | None:
        return memory_wakeups.next_timer(self.tables, host_id, held_back)

    async def listen(self) -> AsyncGenerator[Hint, None]:
        listener: asyncio.Queue[Hint] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            yield "hosts"
            while True:
                yield await listener.get()
        finally:
            self._listeners.discard(listener)

    async def now(self) -> datetime:
        return self._clock()

    async def close(self) -> None:
        """Keep everything: another host may still use it."""

    async def _write(self, batch: Batch) -> Committed | HoldfastError:
        appends = [
            Append(instance_id=s.instance_id, expected=s.expected_version, events=s.events, metadata=s.metadata)
            for s in batch.streams
        ]
        async with self.log.transaction() as transaction:
            answers = await self.log.append_many(transaction, appends)
        for answer in answers:
            if not isinstance(answer, Cursor):
                return answer
        memory_commit.apply(self.tables, batch)
        if batch.deposits:
            self._hint()
        return Committed(str(answers[-1]))

    def _hint(self, hint: Hint = "work") -> None:
        for listener in self._listeners:
            listener.put_nowait(hint)


class MemoryUnitOfWork:
    """A unit of work whose user SQL goes to a function.

    What is rolled back is forgotten by the list of statements; what the function did stays its own affair.
    """

    def __init__(self, provider: MemoryProvider, sql: UserSql | None) -> None:
        self._provider = provider
        self._sql = sql
        self._statements: list[tuple[str, Any]] = []
        self._marks: list[int] = []

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        await self.mark()
        try:
            yield _Handle(self._statements, self._sql)
        except BaseException:
            await self.back_to_mark()
            raise
        await self.drop_mark()

    async def mark(self) -> None:
        self._marks.append(len(self._statements))

    async def back_to_mark(self) -> None:
        del self._statements[self._marks.pop() :]

    async def drop_mark(self) -> None:
        self._marks.pop()

    async def commit(self, batch: Batch) -> Committed:
        (answer,) = await self._provider.commit([batch])
        if isinstance(answer, HoldfastError):
            raise answer
        self._provider.statements += self._statements
        return answer

    async def rollback(self) -> None:
        self._statements.clear()
        self._marks.clear()


class _Handle:
    def __init__(self, statements: list[tuple[str, Any]], sql: UserSql | None) -> None:
        self._statements = statements
        self._sql = sql

    async def execute(self, query: Any, params: Any = None) -> Any:
        if self._sql is None:
            raise StorageError("there is no SQL in memory: give the provider a function that answers it")
        answer = self._sql(query, params)
        self._statements.append((str(query), params))
        return answer
