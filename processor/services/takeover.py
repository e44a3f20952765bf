"""Finds out when the messages are settled that this host found in a partition when it took it over.

How many there are is known once no other host consumes the partition any more, as what that one had not acked is back
in the queue by then: all that was delivered here so far, and all that the broker says is ready. As the queue keeps its
order these are the next deliveries, so no message has to be told apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, count_messages
from holdfast.processor.engine.engine import Engine
from holdfast.processor.services.intake import Intake
from holdfast.schemas.errors import BrokerError

log = structlog.get_logger("holdfast.sharing")

BEAT = 0.05
"""Seconds between two looks whether everything is settled."""

TRIES = 10
"""How often the broker is asked until no delivery comes meanwhile."""

RECOUNT = 20
"""Looks after which the broker is asked again."""


class Takeovers:
    """Watches over the backlogs of the partitions that this host has just come to consume."""

    def __init__(self, engine: Engine, intake: Intake, connection: Connection, topology: Topology) -> None:
        self._engine = engine
        self._intake = intake
        self._connection = connection
        self._topology = topology
        self._watched: dict[int, asyncio.Task[None]] = {}

    def watch(self, partitions: Collection[int]) -> None:
        """See to it that the timers of these partitions, which nobody else consumes, fire when they may."""
        for partition in partitions:
            if partition not in self._watched and self._engine.backlogs.is_open(partition):
                self._watched[partition] = asyncio.create_task(self._watch(partition))

    async def close(self) -> None:
        """Watch no longer."""
        tasks = list(self._watched.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, partition: int) -> None:
        try:
            since = self._intake.consumed.get(partition)
            last = await self._count(partition)
            looks = 0
            while self._intake.consumed.get(partition) == since and since is not None:
                if self._intake.settled_up_to(partition) >= last:
                    self._engine.backlogs.close(partition)
                    self._engine.runtime.hint()
                    log.info("backlog consumed", partition=partition, messages=last)
                    return
                await self._engine.runtime.environment.sleep(BEAT)
                looks += 1
                if looks % RECOUNT == 0:
                    # What was delivered while the broker counted may have been counted twice, if no try was a good one.
                    last = min(last, await self._count(partition))
        except BrokerError as error:
            log.warning("backlog not counted", partition=partition, error=str(error))
        finally:
            del self._watched[partition]

    async def _count(self, partition: int) -> int:
        """Return how many deliveries there will have been once all that is there now has been delivered."""
        ready = 0
        for _ in range(TRIES):
            before = self._intake.delivered(partition)
            ready = await count_messages(self._connection, self._topology, partition)
            if self._intake.delivered(partition) == before:
                break
        return self._intake.delivered(partition) + ready
