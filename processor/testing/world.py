"""A simulated world: one store, one clock, and the hosts of an app.

Nothing here waits for anything outside the event loop, so a few rounds of the loop bring every host to rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import Persisted
from holdfast.processor.engine.provider import Outgoing, PersistenceProvider
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.language.app import App
from holdfast.processor.store.memory import MemoryProvider, UserSql
from holdfast.processor.store.memory_tables import InstanceRow
from holdfast.processor.testing.clock import Clock
from holdfast.processor.testing.door import Door
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.rows import Rows
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import AppError
from holdfast.schemas.settings import Settings

ROUNDS = 300
"""Rounds of the event loop in which everything that can happen without the clock has happened."""


class World(Clock):
    """One store and the hosts of an app, and the clock that they live by.

    ``settings`` are those of ``Settings``. ``sql`` has the user SQL that was run, ``published`` what hosts handed
    to their relay, oldest first.
    """

    def __init__(self, app: App, **settings: Any) -> None:
        super().__init__()
        app.check()
        self.app = app
        # A lease that a test does not mean to let lapse outlives every test.
        self.settings = Settings(**{"lease": 1e6, "host_lock_renewal": 1e5, **settings})
        self.store = MemoryProvider(app.name, self.now, sql=self._sql)
        self.sql: list[tuple[str, Any]] = []
        self.answer: UserSql = lambda _query, _params: Rows()
        self.published: list[Outgoing] = []

    def _sql(self, query: Any, params: Any) -> Any:
        self.sql.append((str(query), params))
        return self.answer(query, params)

    # What a test does to it.

    async def host(self, door: Door | None = None) -> SimulatedHost:
        """Start a host, which sees the store as it is or through a door."""
        store = self.store if door is None else cast("PersistenceProvider", door)
        runtime = Runtime(self.app, store, self, self.settings, machine="simulated", process_id=1)
        runtime.publish = self._publish
        await runtime.open()
        return SimulatedHost(self, runtime, door)

    async def rest(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass; who sleeps wakes in order."""
        end = self.time + timedelta(seconds=seconds)
        await self.rest()
        while self.wake_next(end):
            await self.rest()
        self.time = end
        await self.rest()

    def _publish(self, instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None:  # noqa: ARG002  Nobody asks.
        if not all(message.message_id.startswith(str(instance_id)) for message in messages):
            raise AppError(f"messages of another instance were published for {instance_id}")
        self.published += messages

    # What a test sees of it.

    @property
    def instance_id(self) -> UUID:
        """The only instance there is."""
        (instance_id,) = self.store.tables.instances
        return instance_id

    @property
    def row(self) -> InstanceRow:
        """The row of the only instance."""
        return self.store.tables.instances[self.instance_id]

    @property
    def state(self) -> InstanceState:
        """The stored state of the only instance; ``AppError`` before its first persistence point."""
        state = self.row.read()
        if state is None:
            raise AppError(f"instance {self.instance_id} has had no persistence point yet")
        return state

    async def events(self, instance_id: UUID | None = None) -> list[RecordedEvent]:
        """Return the stream of an instance, or of the only one."""
        async with self.store.log.transaction() as transaction:
            return [e async for e in self.store.log.read_stream(transaction, instance_id or self.instance_id)]

    async def types(self) -> list[str]:
        """Return the types of the events of the only instance, in order."""
        return [type(event.event).__name__ for event in await self.events()]

    async def commits(self) -> list[str]:
        """Return the reasons of the persistence points of the only instance; each must be a transaction of its own."""
        recorded = await self.events()
        reasons: list[str] = [each.event.reason for each in recorded if isinstance(each.event, Persisted)]
        if len({event.cursor.xid for event in recorded}) != len(reasons):
            raise AppError("some persistence point is no transaction of its own")
        return reasons

    def verdict(self, message_id: str) -> tuple[str, str | None] | None:
        """Return the verdict of a message and its reason; None if the store does not know the message."""
        row = self.store.tables.inbox.get(message_id)
        return None if row is None else (row.verdict, row.reason)
