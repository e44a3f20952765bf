"""Looks behind the doors of the two providers, for the laws that they keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from holdfast.processor.store.memory import MemoryProvider
from holdfast.processor.testing.conformance.harness import APP, InboxEntry


class BehindMemory:
    def __init__(self, provider: MemoryProvider) -> None:
        self._provider = provider
        self._tables = provider.tables

    async def lapse(self, host_id: UUID) -> None:
        self._tables.hosts[host_id].expiration = await self._provider.now() - timedelta(seconds=1)

    async def age_messages(self, seconds: float) -> None:
        for row in self._tables.inbox.values():
            row.received_at -= timedelta(seconds=seconds)
            object.__setattr__(row.message, "received_at", row.message.received_at - timedelta(seconds=seconds))

    async def inbox(self) -> dict[str, InboxEntry]:
        return {
            message_id: InboxEntry(
                verdict=row.verdict,
                reason=row.reason,
                instance_id=row.instance_id,
                has_body=row.verdict in ("buffered", "dead_lettered"),
            )
            for message_id, row in self._tables.inbox.items()
        }

    async def versions(self, instance_id: UUID) -> list[int]:
        async with self._provider.log.transaction() as transaction:
            return [event.version async for event in self._provider.log.read_stream(transaction, instance_id)]

    async def make_notes(self) -> None:
        """Statements are kept without one."""

    async def notes(self) -> list[str]:
        return [parameters[0] for _, parameters in self._provider.statements]


class BehindPostgres:
    def __init__(self, database_url: str) -> None:
        self._url = database_url

    async def ask(self, query: Any, *parameters: object) -> list[Any]:
        """Run a statement in a transaction of its own."""
        async with await psycopg.AsyncConnection.connect(self._url) as connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def lapse(self, host_id: UUID) -> None:
        await self.ask(
            "update holdfast.hosts set lease_expiration = clock_timestamp() - interval '1 s' where host_id = %s",
            host_id,
        )

    async def age_messages(self, seconds: float) -> None:
        await self.ask("update holdfast.inbox set received_at = received_at - make_interval(secs => %s)", seconds)

    async def inbox(self) -> dict[str, InboxEntry]:
        rows = await self.ask(
            "select message_id, verdict, reason, instance_id, body is not null from holdfast.inbox where app = %s", APP
        )
        return {
            message_id: InboxEntry(verdict=verdict, reason=reason, instance_id=instance_id, has_body=has_body)
            for message_id, verdict, reason, instance_id, has_body in rows
        }

    async def versions(self, instance_id: UUID) -> list[int]:
        rows = await self.ask(
            "select version from holdfast.events where instance_id = %s order by version", instance_id
        )
        return [version for (version,) in rows]

    async def make_notes(self) -> None:
        await self.ask("create table notes (number serial, note text)")

    async def notes(self) -> list[str]:
        return [note for (note,) in await self.ask("select note from notes order by number")]
