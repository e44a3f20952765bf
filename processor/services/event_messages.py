"""Committed events as messages: what the event feed publishes, and what a replay publishes again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from holdfast.events.codec import encode
from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import InstanceForked, InstanceStarted
from holdfast.processor.engine.provider import Outgoing
from holdfast.schemas.identifiers import MAX_NAME_BYTES
from holdfast.schemas.postgres.statements import load

_SQL = load("holdfast.processor")

UNKNOWN = "unknown"
"""Stands for a workflow whose name is no longer in the log."""


async def event_messages(tx: Any, app: str, exchange: str, recorded: Sequence[RecordedEvent]) -> list[Outgoing]:
    """Return the message of each event, the same whenever it is made."""
    workflows = await _workflows(tx, recorded)
    return [event_message(app, exchange, it, workflows.get(it.instance_id, UNKNOWN)) for it in recorded]


def event_message(app: str, exchange: str, recorded: RecordedEvent, workflow: str) -> Outgoing:
    """Return the message of one event."""
    kind, data = encode(recorded.event)
    body = orjson.dumps(
        {
            "instance_id": recorded.instance_id,
            "version": recorded.version,
            "type": kind,
            "app": app,
            "workflow": workflow,
            "cursor": str(recorded.cursor),
            "recorded_at": recorded.recorded_at,
            "data": orjson.Fragment(data),
            "metadata": recorded.metadata,
        }
    )
    traceparent = recorded.metadata.get("traceparent")
    return Outgoing(
        message_id=f"{recorded.instance_id}:{recorded.version}",
        exchange=exchange,
        routing_key=_routing_key(workflow, kind),
        type=kind,
        key=str(recorded.instance_id),
        body=body,
        traceparent=traceparent if isinstance(traceparent, str) else None,
    )


async def _workflows(tx: Any, recorded: Sequence[RecordedEvent]) -> dict[UUID, str]:
    """Return the workflow of each instance, as its first event says."""
    begun = InstanceStarted | InstanceForked
    found = {it.instance_id: it.event.workflow for it in recorded if isinstance(it.event, begun)}
    missing = list({it.instance_id for it in recorded} - found.keys())
    if missing:
        cursor = await tx.execute(_SQL["workflows_of"], {"instance_ids": missing})
        found |= dict(await cursor.fetchall())
    return found


def _routing_key(workflow: str, kind: str) -> str:
    room = MAX_NAME_BYTES - len(kind) - 1
    return f"{workflow.encode()[:room].decode(errors='ignore')}.{kind}"
