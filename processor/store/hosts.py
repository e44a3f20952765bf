"""Hosts and their leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from holdfast.processor.engine.peers import Host, Peer
from holdfast.processor.store.connections import Connection, one
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

CHANNEL = "holdfast_hosts"
"""Where hosts hear, as a hint, that another one came, went, or took or left a partition; the payload is the app."""


async def open_host(connection: Connection, host: Host) -> None:
    """Add a host with a fresh lease, and forget those that ended long ago."""
    await connection.execute(_SQL["forget_hosts"], {"app": host.app})
    await connection.execute(
        _SQL["open_host"],
        {
            "host_id": host.host_id,
            "app": host.app,
            "machine": host.machine,
            "process_id": host.process_id,
            "lease_seconds": host.lease_seconds,
            "programs": list(host.programs),
            "message_types": list(host.message_types),
        },
    )
    await _tell(connection, host.app)


async def renew_host(connection: Connection, host_id: UUID, lease_seconds: float) -> bool:
    """Renew a lease unless it lapsed."""
    cursor = await connection.execute(_SQL["renew_host"], {"host_id": host_id, "lease_seconds": lease_seconds})
    return await cursor.fetchone() is not None


async def close_host(connection: Connection, app: str, host_id: UUID) -> None:
    """Free every lock of the host and forget it."""
    await connection.execute(_SQL["close_host"], {"host_id": host_id})
    await _tell(connection, app)


async def share(
    connection: Connection, app: str, host_id: UUID, consumed: Mapping[int, datetime], held_back: Sequence[int]
) -> list[Peer]:
    """Note which partitions the host consumes, tell the others if that is news, and return who lives."""
    partitions = sorted(consumed)
    cursor = await connection.execute(
        _SQL["share"],
        {
            "host_id": host_id,
            "partitions": partitions,
            "consuming_since": [consumed[partition] for partition in partitions],
            "held_back": list(held_back),
        },
    )
    row = await cursor.fetchone()
    if row is not None and row[0]:
        await _tell(connection, app)
    cursor = await connection.execute(_SQL["living_hosts"], {"app": app})
    return [
        Peer(host_id=each, lease_left=left, partitions=frozenset(taken), shared_at=shared_at)
        for each, left, taken, shared_at in await cursor.fetchall()
    ]


async def _tell(connection: Connection, app: str) -> None:
    await connection.execute(_SQL["notify"], {"channel": CHANNEL, "app": app})


async def known_types(connection: Connection, app: str) -> frozenset[str]:
    """Return the message types that some living host of the app knows."""
    cursor = await connection.execute(_SQL["known_types"], {"app": app})
    return frozenset(name for (name,) in await cursor.fetchall())


async def now(connection: Connection) -> datetime:
    """Return the database's clock, in UTC."""
    cursor = await connection.execute(_SQL["now"])
    (moment,) = await one(cursor)
    found: datetime = moment
    return found.astimezone(UTC)
