"""Holding an instance outside of the workers: nothing moves it meanwhile.

    async with client.hold(instance_id, on_locked="aggressive_retry") as held:
        print(held.version, held.variables)

Who holds an instance is a host of its own for that long, with a lease that is renewed. It brings no programs along,
and so it consumes nothing, shares no partitions, and takes nothing up. What comes for the instance is kept in the
inbox, and a worker looks at it as soon as the instance is given back, or once the lease of a client that is gone has
lapsed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from holdfast.events.types import Json
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.store import hosts, inbox, locks
from holdfast.processor.store.connections import Connection, Connections
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import HoldfastError, InstanceLocked, InstanceLockLost, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load("holdfast.processor.store")

OnLocked = Literal["no_retry", "basic_retry", "aggressive_retry"]
"""What to do about an instance that another host holds: give up at once, or try again for about half a minute, at equal
intervals or at intervals that double."""

PAUSES: dict[OnLocked, tuple[float, ...]] = {
    "no_retry": (),
    "basic_retry": (3.0,) * 10,
    "aggressive_retry": tuple(30.0 * 2**n / 255 for n in range(8)),
}
"""Seconds from one try to the next."""

LEASE = 60.0
"""Seconds that the hold of a client outlives the client."""

RENEWAL = LEASE / 2
AGAIN = 1.0
"""Seconds before a renewal that could not reach the database is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInstance:
    """An instance in the hands of a client, as plain data: to read it takes none of the app's code.

    ``state`` is None for one that was never persisted. A persistence point under this hold is written with
    ``host_id``, ``lock_token`` and ``version``.
    """

    instance_id: UUID
    app: str
    workflow: str
    program_hash: str
    correlation_key: str
    host_id: UUID
    lock_token: int
    is_initialized: bool
    is_suspended: bool
    state: InstanceState | None

    @property
    def version(self) -> int:
        """The version of the last event; 0 before the first persistence point."""
        return 0 if self.state is None else self.state.version

    @property
    def variables(self) -> Mapping[str, Mapping[str, Json]]:
        """The variables of each frame, by the frame's path, in the form in which they are stored."""
        return {} if self.state is None else {path: frame.variables for path, frame in self.state.frames.items()}


@asynccontextmanager
async def hold(
    connections: Connections, environment: Environment, app: str, instance_id: UUID, on_locked: OnLocked
) -> AsyncIterator[HeldInstance]:
    """Lock and load an instance for as long as the block lasts.

    Raises ``InstanceLocked`` if others held it at every try, ``InstanceNotFound``, ``InstanceCompleted``,
    ``InstanceUnreadable``, and at the end ``InstanceLockLost`` if the lease lapsed within the block.
    """
    host = Host(
        host_id=environment.new_id(),
        app=app,
        machine=socket.gethostname(),
        process_id=os.getpid(),
        lease_seconds=LEASE,
    )
    await connections.run(lambda connection: hosts.open_host(connection, host))
    renewing = asyncio.create_task(_renew(connections, environment, host))
    try:
        loaded = await _load(connections, environment, host, instance_id, on_locked)
        yield HeldInstance(
            instance_id=instance_id,
            app=app,
            workflow=loaded.workflow,
            program_hash=loaded.program_hash if loaded.state is None else loaded.state.program_hash,
            correlation_key=loaded.correlation_key,
            host_id=host.host_id,
            lock_token=loaded.lock_token,
            is_initialized=loaded.is_initialized,
            is_suspended=loaded.is_suspended,
            state=loaded.state,
        )
        # Who was stopped in the meantime may not have come to see it.
        if renewing.done() or not await _lives(connections, host):
            raise InstanceLockLost(instance_id)
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        # Where the database cannot be reached, the lease ends the hold.
        with suppress(StorageError):
            await connections.run(lambda connection: _give_back(connection, host, instance_id))


async def _load(
    connections: Connections, environment: Environment, host: Host, instance_id: UUID, on_locked: OnLocked
) -> Loaded:
    pauses = list(PAUSES[on_locked])
    while True:
        (answer,) = await connections.run(lambda c: locks.load(c, host.app, host.host_id, [instance_id]))
        if isinstance(answer, InstanceLocked) and pauses:
            await environment.sleep(pauses.pop(0))
        elif isinstance(answer, InstanceLockLost) and await _lives(connections, host):
            # Somebody gave it back between the try to lock it and the look who holds it.
            continue
        elif isinstance(answer, HoldfastError):
            raise answer
        else:
            if answer.is_taken_over:
                # The lock no longer says that its host fell. This count does, until something is committed.
                await connections.run(lambda c: inbox.attempt(c, host.app, [f"{instance_id}:taken_over"], instance_id))
            return answer


async def _renew(connections: Connections, environment: Environment, host: Host) -> None:
    """Renew the lease until it is lost."""
    pause = RENEWAL
    while True:
        await environment.sleep(pause)
        try:
            if not await _lives(connections, host):
                return
            pause = RENEWAL
        except StorageError:
            pause = AGAIN


async def _lives(connections: Connections, host: Host) -> bool:
    """Renew the lease, unless it is lost."""
    return await connections.run(lambda c: hosts.renew_host(c, host.host_id, host.lease_seconds))


async def _give_back(connection: Connection, host: Host, instance_id: UUID) -> None:
    """Free the lock, and only then look for what came meanwhile: whoever brought it found a lock."""
    await hosts.close_host(connection, host.app, host.host_id)
    await locks.leave_to_be_found(connection, instance_id)
    await connection.execute(_SQL["notify"], {"channel": inbox.CHANNEL, "app": host.app})
