"""Hosts in a simulated world: the real engine on the store in memory, with a clock that only moves when told.

Nothing here waits for anything outside the event loop, so a few rounds of the loop bring every host to rest.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from holdfast.events.recorded import RecordedEvent
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.provider import Intake, Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.language.app import App
from holdfast.processor.services.detection import Detection
from holdfast.processor.store.memory import MemoryProvider
from holdfast.processor.store.memory_tables import InstanceRow
from holdfast.projections.instance import InstanceState
from holdfast.projections.snapshot import loads
from holdfast.schemas.errors import AppError
from holdfast.schemas.identifiers import uuid7
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings

ROUNDS = 300
"""Rounds of the event loop in which everything that can happen without the clock has happened."""


class World:
    """One store, one clock, and the hosts of an app."""

    def __init__(self, app: App, **settings: Any) -> None:
        app.check()
        self.app = app
        # A lease that a test does not mean to let lapse outlives every test.
        self.settings = Settings(**{"lease": 1e6, "host_lock_renewal": 1e5, **settings})
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = MemoryProvider(app.name, lambda: self.time, sql=self._sql)
        self.sql: list[tuple[str, Any]] = []
        self.published: list[Outgoing] = []
        self._sleepers: list[tuple[datetime, int, asyncio.Event]] = []
        self._numbers = count(1)
        self.random = Random(0)  # noqa: S311  Ids that are the same in every run.

    # What the hosts see of the world.

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        until = self.time + timedelta(seconds=seconds)
        heapq.heappush(self._sleepers, (until, next(self._numbers), event))
        await event.wait()

    def new_id(self) -> UUID:
        return uuid7(int(self.time.timestamp() * 1000), self.random.randbytes(10))

    def _sql(self, query: Any, params: Any) -> None:
        self.sql.append((str(query), params))

    # What a test does to it.

    async def host(self) -> SimulatedHost:
        """Start a host."""
        runtime = Runtime(self.app, self.store, self, self.settings, machine="simulated", process_id=1)
        runtime.publish = self._publish
        await runtime.open()
        return SimulatedHost(self, runtime)

    async def rest(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass; who sleeps wakes in order."""
        end = self.time + timedelta(seconds=seconds)
        await self.rest()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.time, _, event = heapq.heappop(self._sleepers)
            event.set()
            await self.rest()
        self.time = end
        await self.rest()

    def _publish(self, instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None:
        assert isinstance(fresh, bool)
        assert all(message.message_id.startswith(str(instance_id)) for message in messages)
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
        """The stored state of the only instance."""
        stored = self.row.state
        assert stored is not None
        return loads(stored)

    async def events(self, instance_id: UUID | None = None) -> list[RecordedEvent]:
        """The stream of an instance."""
        async with self.store.log.transaction() as transaction:
            return [e async for e in self.store.log.read_stream(transaction, instance_id or self.instance_id)]

    async def types(self) -> list[str]:
        """The types of the events of the only instance, in order."""
        return [type(event.event).__name__ for event in await self.events()]

    async def commits(self) -> list[str]:
        """The reasons of the persistence points of the only instance; each must be a transaction of its own."""
        recorded = await self.events()
        reasons = [event.event.reason for event in recorded if type(event.event).__name__ == "Persisted"]  # type: ignore[union-attr] # told by name
        assert len({event.cursor.xid for event in recorded}) == len(reasons)
        return reasons

    def verdict(self, message_id: str) -> tuple[str, str | None] | None:
        """The verdict of a message and its reason; None if the store does not know the message."""
        row = self.store.tables.inbox.get(message_id)
        return None if row is None else (row.verdict, row.reason)


class SimulatedHost:
    """One host of a simulated world."""

    def __init__(self, world: World, runtime: Runtime) -> None:
        self.world = world
        self.runtime = runtime
        self.engine = Engine(runtime)
        self.detection = Detection(self.engine)

    async def deliver(self, message: Message, message_id: str, *, redelivered: bool = False) -> Delivered:
        """Hand a message over as RabbitMQ would, and let happen what follows."""
        delivered = self.put(message.envelope(message_id), redelivered=redelivered)
        await self.world.rest()
        return delivered

    def put(self, envelope: Envelope, *, redelivered: bool = False) -> Delivered:
        """Hand a message over and return at once."""
        delivered = Delivered()
        self.engine.deliver(
            Arrival(
                envelope=envelope,
                received_at=self.runtime.now(),
                redelivered=redelivered,
                settle=delivered.settle,
            )
        )
        return delivered

    async def detect(self) -> None:
        """Look for what can run, once."""
        await self.detection.look()
        await self.world.rest()

    async def command(self, instance_id: UUID, command: str) -> None:
        """Address a control command to an instance and look for it."""
        body = b'{"command": "%s", "by": "tester", "why": "because"}' % command.encode()
        envelope = Envelope(message_id=f"{command}-{self.world.new_id()}", type="control", key="", body=body)
        await self.runtime.provider.take_in(
            [Intake(envelope=envelope, verdict="buffered", kind="control", instance_id=instance_id)]
        )
        await self.detect()

    async def die(self) -> None:
        """End at once, as by SIGKILL: nothing more is written, locks stay until the lease lapses."""
        await self.engine.abandon_all()

    async def renew(self) -> bool:
        """Renew the lease."""
        return await self.runtime.provider.renew_host(self.runtime.host_id)


class Delivered:
    """Whether a delivery was acked."""

    def __init__(self) -> None:
        self.count = 0

    def settle(self) -> None:
        """Count an ack; a second one of one delivery would end a real channel."""
        self.count += 1
        if self.count > 1:
            raise AppError("a delivery was settled twice")

    @property
    def acked(self) -> bool:
        """Whether the broker may forget the message."""
        return self.count == 1
