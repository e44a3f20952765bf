"""Keeps to this host's share of the partitions: takes what it owns, and leaves what another host has come to own.

Hosts need nobody to tell them: each computes the owner of every partition from the hosts that live
(``core/sharing.py``) and says in its own row which partitions it consumes. Three rules keep a partition from being
without a consumer:

* The owner consumes it, at once; as long as another host does, the broker lets it wait (single active consumer).
* Who is not the owner goes on until the owner has said that it consumes the partition, and only then hands it over.
* The deputy consumes it once the broker has said twice that nobody does, however long the owner's lease still lives.

So a host whose process or connection ends is stood in for after two looks, and one that hangs after two missed
heartbeats and two looks: two thirds of a lease, a fifth, and a twentieth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, count_consumers
from holdfast.processor.core.sharing import Share, share_of
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.peers import Peer
from holdfast.processor.services.first_of import first_of
from holdfast.processor.services.intake import Intake
from holdfast.processor.services.takeover import Takeovers
from holdfast.schemas.errors import BrokerError, StorageError

log = structlog.get_logger("holdfast.sharing")

SHORTEST = 0.02
"""Seconds between two looks at least, as hints come together."""

LOOK = 1 / 5
"""The part of a lease after which there is another look at the latest."""

SECOND_LOOK = 1 / 20
"""The part of a lease after which a partition without a consumer is looked at again: its owner may just be coming."""

PATIENCE = 5.0
"""Seconds that the broker gets to say how many consumers there are."""


class Sharing:
    """Looks who lives every few seconds, and sooner when somebody hints, and has the intake consume what it should."""

    def __init__(self, engine: Engine, intake: Intake, connection: Connection, topology: Topology) -> None:
        self._runtime = engine.runtime
        self._backlogs = engine.backlogs
        self._intake = intake
        self._connection = connection
        self._topology = topology
        self._hint = asyncio.Event()
        self._takeovers = Takeovers(engine, intake, connection, topology)
        self._handing_over: dict[int, asyncio.Task[None]] = {}
        self._unconsumed: dict[int, float] = {}
        self._hosts: frozenset[UUID] = frozenset()
        self._share = Share({}, frozenset(), frozenset())
        intake.changed = self.hint

    def hint(self) -> None:
        """Look again soon: a host came or went, or one took a partition or left it."""
        self._hint.set()

    async def run(self) -> None:
        """Look for ever; whatever fails is tried again with the next look."""
        settings, environment = self._runtime.settings, self._runtime.environment
        try:
            while True:
                pause = min(settings.runnable_detection, settings.lease * LOOK)
                try:
                    pause = min(pause, await self.look())
                except (StorageError, BrokerError, TimeoutError) as error:
                    log.warning("partitions not looked at", error=str(error) or type(error).__name__)
                except Exception:
                    log.exception("partitions not looked at")
                await first_of(environment.sleep(pause), self._hint.wait())
                await environment.sleep(SHORTEST)
        finally:
            tasks = list(self._handing_over.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._takeovers.close()

    async def look(self) -> float:
        """Do what is to be done now; return the seconds until there may be something else to do."""
        self._hint.clear()
        runtime, intake = self._runtime, self._intake
        seen = await runtime.provider.share(runtime.host_id, intake.consumed, self._backlogs.held_back)
        peers = {peer.host_id: peer for peer in seen}
        if runtime.host_id not in peers:
            # Without a lease there is nothing to share; who keeps the lease is about to see that, too.
            return runtime.settings.lease
        share = self._share_among(frozenset(peers))
        for partition in sorted(share.owned - intake.taken):
            log.info("partition taken", partition=partition)
            await intake.take(partition)
        for partition in sorted(intake.taken - share.owned - self._handing_over.keys()):
            if self._is_relieved(partition, peers[share.owners[partition]]):
                self._handing_over[partition] = asyncio.create_task(self._hand_over(partition))
        elsewhere = {number for peer in peers.values() if peer.host_id != runtime.host_id for number in peer.partitions}
        self._takeovers.watch(intake.consumed.keys() - elsewhere)
        await self._stand_in(share.deputy - intake.taken)
        others = [peer.lease_left for peer in peers.values() if peer.host_id != runtime.host_id]
        pauses = [*others, *([runtime.settings.lease * SECOND_LOOK] if self._unconsumed else [])]
        return min(pauses, default=runtime.settings.lease) + SHORTEST

    def _share_among(self, hosts: frozenset[UUID]) -> Share:
        if hosts != self._hosts:
            self._hosts = hosts
            self._share = share_of(self._runtime.host_id, hosts, self._topology.partitions)
        return self._share

    def _is_relieved(self, partition: int, owner: Peer) -> bool:
        """Whether the owner has said, later than this host began, that it consumes the partition."""
        since = self._intake.consumed.get(partition)
        said_at = owner.shared_at
        return since is not None and said_at is not None and said_at > since and partition in owner.partitions

    async def _hand_over(self, partition: int) -> None:
        try:
            has_ended = await self._intake.leave(partition)
            log.info("partition handed over", partition=partition, has_ended=has_ended)
        finally:
            del self._handing_over[partition]

    async def _stand_in(self, partitions: Collection[int]) -> None:
        """Consume what nobody consumed at the last look either, though another host owns it."""
        consumers: dict[int, int] = {}
        if partitions:
            async with asyncio.timeout(PATIENCE):
                consumers = await count_consumers(self._connection, self._topology, partitions)
        now = self._runtime.environment.monotonic()
        second = now - self._runtime.settings.lease * SECOND_LOOK
        self._unconsumed = {p: self._unconsumed.get(p, now) for p, count in consumers.items() if count == 0}
        for partition in [p for p, first in self._unconsumed.items() if first <= second]:
            log.warning("partition stood in for", partition=partition)
            await self._intake.take(partition)
            del self._unconsumed[partition]
