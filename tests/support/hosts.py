"""A host on Postgres, in the test's own process and without a broker, and what it left in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from holdfast.processor.client import Client
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.engine.provider import Outgoing, PersistenceProvider
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.language.app import App
from holdfast.processor.services.detection import Detection
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings
from tests.support.stores import BehindPostgres


class Host:
    """The engine of one host on a real store, without a broker: what it is to publish stays in the outbox."""

    def __init__(self, app: App, url: str, provider: PersistenceProvider, settings: Settings) -> None:
        self.runtime = Runtime(app, provider, RealEnvironment(), settings, machine="here", process_id=1)
        self.told: list[str] = []
        self.runtime.publish = self._publish
        self.engine = Engine(self.runtime)
        self._client = Client(url, app=app.name)
        self._url = url

    def _publish(self, instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None:
        self.told += [message.type for message in messages]

    async def deliver(self, message: Message) -> UUID:
        """Deliver a message and return the instance it belongs to, at rest and with the message settled."""
        await self.tell(message)
        (row,) = await self.ask(
            "select instance_id from holdfast.instances where correlation_key = %s and parent_id is null",
            message.correlation_key,
        )
        instance_id: UUID = row[0]
        return instance_id

    async def tell(self, message: Message) -> None:
        """Deliver a message, and return when all is at rest and it is settled."""
        await self.hear(message.envelope(f"{message.message_type}/{message.correlation_key}"))

    async def hear(self, envelope: Envelope) -> None:
        """Take in what RabbitMQ delivers, good or bad, and return when all is at rest and it is settled."""
        settled = asyncio.Event()
        self.engine.deliver(Arrival(envelope=envelope, received_at=self.runtime.now(), settle=settled.set))
        await settled.wait()
        await self.rest()

    async def look(self) -> None:
        """Look once for what can run, and let it run."""
        await Detection(self.engine).look()
        await self.rest()

    async def rest(self) -> None:
        """Return once nothing is under way in the engine."""
        while tasks := {*self.engine._tasks, *(h.task for h in self.engine.held.values() if h.task is not None)}:
            await asyncio.wait(tasks)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Return once something holds; the test's own time limit ends it if it never does."""
        while not await holds():
            await self.rest()

    async def resume(self, instance_id: UUID) -> None:
        """Resume an instance as an operator does, and let it run."""
        await self._client.resume(instance_id, by="tester", why=None)
        await self.look()

    async def ask(self, query: str, *parameters: object) -> list[Any]:
        """Return the rows of a query of the test's own."""
        return await BehindPostgres(self._url).ask(query, *parameters)

    async def transactions(self, instance_id: UUID) -> list[tuple[str, list[str]]]:
        """Return the reason and the other events of each transaction of a stream, in order."""
        rows = await self.ask(
            """
            select
                array_agg(data ->> 'reason' order by version) filter (where type = 'Persisted'),
                array_agg(type order by version) filter (where type <> 'Persisted')
            from holdfast.events where instance_id = %s group by xid order by min(version)
            """,
            instance_id,
        )
        # Each transaction holds one persistence point, which is its last event.
        assert all(len(reasons) == 1 for reasons, _ in rows)
        return [(reasons[0], types) for reasons, types in rows]

    async def xids(self, instance_id: UUID) -> list[int]:
        """Return the ids of the transactions of a stream, in order."""
        rows = await self.ask(
            "select xid::text from holdfast.events where instance_id = %s group by xid order by xid", instance_id
        )
        return [int(xid) for (xid,) in rows]

    async def close(self) -> None:
        """Drop everything in memory."""
        await self.engine.abandon_all()
        await self._client.close()


@asynccontextmanager
async def running_host(
    app: App, url: str, settings: Settings, wrap: Callable[[PersistenceProvider], PersistenceProvider] = lambda it: it
) -> AsyncIterator[Host]:
    """Start a host, and end it as a killed one ends: its lock rows stay. It sees the store as ``wrap`` gives it."""
    app.check()
    provider = PostgresProvider(url, app.name)
    host = Host(app, url, wrap(provider), settings)
    try:
        await host.runtime.open()
        yield host
    finally:
        await host.close()
        await provider.close()
