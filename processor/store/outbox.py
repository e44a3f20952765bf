"""The outbox: what was committed and is still to be published."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.store.connections import Connection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def unpublished(connection: Connection, app: str, host_id: UUID, limit: int) -> list[Outgoing]:
    """Return the oldest messages that this host is to publish, in order."""
    cursor = await connection.execute(
        _SQL["unpublished"], {"app": app, "host_id": host_id, "limit": limit}, binary=True
    )
    return [
        Outgoing(
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
            type=message_type,
            key=key,
            body=bytes(body),
            traceparent=traceparent,
        )
        for message_id, exchange, routing_key, message_type, key, body, traceparent in await cursor.fetchall()
    ]


async def published(connection: Connection, message_ids: Sequence[str]) -> None:
    """Remove confirmed messages."""
    await connection.execute(_SQL["published"], {"message_ids": list(message_ids)})


async def unroutable(connection: Connection, message_id: str, reason: str) -> None:
    """Mark a message that the broker could not route; it no longer holds up the others."""
    await connection.execute(_SQL["unroutable"], {"message_id": message_id, "reason": reason})
