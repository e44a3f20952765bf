"""The persistence provider on Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from uuid import UUID

import psycopg

from holdfast.processor.engine.peers import Hint, Host, Peer
from holdfast.processor.engine.provider import (
    Batch,
    Committed,
    Intake,
    Loaded,
    Outgoing,
    Registration,
    Route,
    StoredMessage,
    StoredProgram,
    Suspension,
    UnitOfWork,
)
from holdfast.processor.engine.wakeups import Mail, Runnable, Wakeups
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store import heartbeats, hosts, inbox, locks, outbox, stored_programs, subflows, tally, wakeups
from holdfast.processor.store.commit import GroupWriter
from holdfast.processor.store.connections import Connections
from holdfast.processor.store.unit_of_work import open_unit_of_work, own_transaction
from holdfast.projections.instance import InstanceState
from holdfast.schemas.activity_messages import ActivityHeartbeat
from holdfast.schemas.errors import HoldfastError, StorageError
from holdfast.schemas.message import Envelope
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

RECONNECT = 1.0
"""Seconds before ``listen`` tries to connect again."""


class PostgresProvider:
    """``PersistenceProvider`` on a migrated Postgres database, for one app.

    Group commits have a connection of their own, units of work at most ``user_connections``, and
    everything else shares ``connections``. All are opened when they are first needed. Every method
    raises ``StorageError`` while the database cannot be reached, and works again once it can.
    """

    def __init__(
        self,
        database_url: str,
        app: str,
        *,
        connections: int = 4,
        user_connections: int = 8,
        transaction_timeout: float = 60.0,
        prepare_threshold: int | None = None,
    ) -> None:
        self._app = app
        self._shared = Connections(database_url, limit=connections, prepare_threshold=prepare_threshold)
        self._user = Connections(database_url, limit=user_connections, prepare_threshold=prepare_threshold)
        self._writer = GroupWriter(self._shared, app)
        self._sweep = wakeups.Sweep(app)
        self._leases: dict[UUID, float] = {}
        self._transaction_timeout = transaction_timeout
        self._expired_up_to = 0
        self._closed = False

    async def open_host(self, host: Host) -> None:
        await self._shared.run(lambda c: hosts.open_host(c, host))
        self._leases[host.host_id] = host.lease_seconds

    async def renew_host(self, host_id: UUID) -> bool:
        return await self._shared.run(lambda c: hosts.renew_host(c, host_id, self._leases[host_id]))

    async def close_host(self, host_id: UUID) -> None:
        await self._shared.run(lambda c: hosts.close_host(c, self._app, host_id))

    async def share(
        self, host_id: UUID, consumed: Mapping[int, datetime], held_back: Sequence[int] = ()
    ) -> Sequence[Peer]:
        return await self._shared.run(lambda c: hosts.share(c, self._app, host_id, consumed, held_back))

    async def known_types(self) -> frozenset[str]:
        return await self._shared.run(lambda c: hosts.known_types(c, self._app))

    async def save_programs(self, programs: Sequence[StoredProgram]) -> None:
        await self._shared.run(lambda c: stored_programs.save(c, self._app, programs))

    async def load_program(self, program_hash: str) -> StoredProgram | None:
        return await self._shared.run(lambda c: stored_programs.find(c, self._app, program_hash))

    async def living_programs(self) -> Sequence[tuple[str, str]]:
        return await self._shared.run(lambda c: stored_programs.living(c, self._app))

    async def runs_elsewhere(self, host_id: UUID, programs: Sequence[str]) -> bool:
        return await self._shared.run(lambda c: stored_programs.runs_elsewhere(c, self._app, host_id, programs))

    async def route(self, envelopes: Sequence[Envelope]) -> Sequence[Route]:
        return await self._shared.run(lambda c: inbox.route(c, self._app, envelopes))

    async def register(self, host_id: UUID, registrations: Sequence[Registration]) -> Sequence[int | HoldfastError]:
        return await self._shared.run(lambda c: locks.register(c, self._app, host_id, registrations))

    async def load(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Loaded | HoldfastError]:
        return await self._shared.run(lambda c: locks.load(c, self._app, host_id, instance_ids))

    async def read_states(self, instance_ids: Sequence[UUID]) -> Sequence[InstanceState | HoldfastError]:
        return await self._shared.run(lambda c: subflows.read_states(c, self._app, instance_ids))

    async def release(self, host_id: UUID, instance_ids: Sequence[UUID]) -> None:
        await self._shared.run(lambda c: locks.release(c, host_id, instance_ids))

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        return await self._writer.commit(batches)

    def begin(self, host_id: UUID) -> AbstractAsyncContextManager[UnitOfWork]:  # noqa: ARG002 The commit knows the host.
        return open_unit_of_work(self._user, self._app, self._transaction_timeout)

    def own_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return own_transaction(self._user, self._app, self._transaction_timeout)

    async def suspend(self, suspensions: Sequence[Suspension]) -> None:
        await self._shared.run(lambda c: locks.suspend(c, suspensions))

    async def resume(self, host_id: UUID, instance_id: UUID, control_id: str) -> None:
        await self._shared.run(lambda c: locks.resume(c, host_id, instance_id, control_id))

    async def take_in(self, intakes: Sequence[Intake]) -> Sequence[Route]:
        return await self._shared.run(lambda c: inbox.take_in(c, self._app, intakes))

    async def attempt(self, message_ids: Sequence[str]) -> Sequence[int]:
        return await self._shared.run(lambda c: inbox.attempt(c, self._app, message_ids))

    async def attempt_burst(self, instance_id: UUID, how: str) -> int:
        name = f"{instance_id}:{how}"
        (count,) = await self._shared.run(lambda c: inbox.attempt(c, self._app, [name], instance_id))
        return count

    async def wakeups(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Wakeups]:
        return await self._shared.run(lambda c: wakeups.wakeups(c, host_id, instance_ids))

    async def find_mail(self, mails: Sequence[Mail]) -> Sequence[Sequence[StoredMessage]]:
        return await self._shared.run(lambda c: wakeups.find_mail(c, self._app, mails))

    async def runnable(
        self, host_id: UUID, start_types: Sequence[str], limit: int, held_back: Sequence[int] = ()
    ) -> Sequence[Runnable]:
        return await self._shared.run(lambda c: self._sweep.runnable(c, host_id, start_types, limit, held_back))

    async def beat(self, beats: Sequence[ActivityHeartbeat]) -> None:
        await self._shared.run(lambda c: heartbeats.beat(c, self._app, beats))

    async def lapse(self, limit: int) -> int:
        return await self._shared.run(lambda c: heartbeats.lapse(c, self._app, limit))

    async def next_timer(self, host_id: UUID, held_back: Sequence[int] = ()) -> float | None:
        return await self._shared.run(lambda c: wakeups.next_timer(c, self._app, host_id, held_back))

    async def expire(self, ttl_seconds: float, limit: int) -> int:
        count, self._expired_up_to = await self._shared.run(
            lambda c: inbox.expire(c, self._app, ttl_seconds, limit, self._expired_up_to)
        )
        # Nobody asks for this but the database itself, so it is done on the occasion of what is done now and then.
        await self._shared.run(tally.merge)
        return count

    async def outbox(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        return await self._shared.run(lambda c: outbox.unpublished(c, self._app, host_id, limit))

    async def published(self, message_ids: Sequence[str]) -> None:
        await self._shared.run(lambda c: outbox.published(c, message_ids))

    async def unroutable(self, message_id: str, reason: str) -> None:
        await self._shared.run(lambda c: outbox.unroutable(c, message_id, reason))

    async def now(self) -> datetime:
        return await self._shared.run(hosts.now)

    async def listen(self) -> AsyncGenerator[Hint, None]:
        while not self._closed:
            try:
                connection = await self._shared.open()
                async with connection:
                    await connection.execute(_SQL["listen"])
                    await connection.execute(_SQL["listen_to_hosts"])
                    # What was sent while nobody listened is lost, so the start of listening is a hint too.
                    yield "hosts"
                    async for notification in connection.notifies():
                        if notification.payload == self._app:
                            yield "hosts" if notification.channel == hosts.CHANNEL else "work"
            except (StorageError, psycopg.Error):
                await asyncio.sleep(RECONNECT)

    async def close(self) -> None:
        self._closed = True
        await self._writer.close()
        await self._user.close()
        await self._shared.close()
