"""The event feed: what was committed, published to the app's events exchange.

It follows the log like a projection, and what it does with a page is to publish it: in the order of the log, so in
order for each instance, and the checkpoint moves once the broker has confirmed all of it. A process that dies in
between leaves the page to the next one, so an event may be published twice, under one id. Events that no queue is
bound for are dropped by the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from holdfast.events.codec import encode
from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import InstanceStarted
from holdfast.processor.broker.publisher import MAX_BODY_BYTES, Fate, Publisher
from holdfast.processor.broker.topology import Topology
from holdfast.processor.engine.provider import Outgoing
from holdfast.projections.definition import Subscription
from holdfast.schemas.errors import BrokerError
from holdfast.schemas.identifiers import MAX_NAME_BYTES
from holdfast.schemas.postgres.statements import load

_SQL = load("holdfast.processor")

NAME = "holdfast.feed"
"""The subscription's name, which no projection can have."""

PAGE = 500
"""Events that are on their way to the broker at a time; the outbox shares the publisher, and has room beside them."""

UNKNOWN = "unknown"
"""Stands for a workflow whose name is no longer in the log."""


def feed(app: str, publisher: Publisher) -> Subscription:
    """Return the event feed of an app."""
    return Subscription(app=app, name=NAME, handle=_Feed(app, publisher).publish, page=PAGE)


class _Feed:
    def __init__(self, app: str, publisher: Publisher) -> None:
        self._app = app
        self._exchange = Topology(app).events
        self._publisher = publisher

    async def publish(self, tx: Any, recorded: Sequence[RecordedEvent]) -> None:
        """Publish events and wait until the broker has confirmed them; ``BrokerError`` if it has not."""
        workflows = await _workflows(tx, recorded)
        await tx.execute(_SQL["let_go_of_the_snapshot"])
        messages = [self._message(it, workflows.get(it.instance_id, UNKNOWN)) for it in recorded]
        sent = [
            await self._publisher.send(message.exchange, message.routing_key, message, mandatory=False)
            for message in messages
        ]
        for message, receipt in zip(messages, [await it for it in sent], strict=True):
            if receipt.fate is not Fate.CONFIRMED:
                raise BrokerError(f"event {message.message_id} was not published: {receipt.reason}")

    def _message(self, recorded: RecordedEvent, workflow: str) -> Outgoing:
        kind, data = encode(recorded.event)
        body = orjson.dumps(
            {
                "instance_id": recorded.instance_id,
                "version": recorded.version,
                "type": kind,
                "app": self._app,
                "workflow": workflow,
                "cursor": str(recorded.cursor),
                "recorded_at": recorded.recorded_at,
                "data": orjson.Fragment(data),
                "metadata": recorded.metadata,
            }
        )
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the event is larger than the {MAX_BODY_BYTES} bytes that the broker takes")
        traceparent = recorded.metadata.get("traceparent")
        return Outgoing(
            message_id=f"{recorded.instance_id}:{recorded.version}",
            exchange=self._exchange,
            routing_key=_routing_key(workflow, kind),
            type=kind,
            key=str(recorded.instance_id),
            body=body,
            traceparent=traceparent if isinstance(traceparent, str) else None,
        )


async def _workflows(tx: Any, recorded: Sequence[RecordedEvent]) -> dict[UUID, str]:
    """Return the workflow of each instance, as its first event says."""
    found = {it.instance_id: it.event.workflow for it in recorded if isinstance(it.event, InstanceStarted)}
    missing = list({it.instance_id for it in recorded} - found.keys())
    if missing:
        cursor = await tx.execute(_SQL["workflows_of"], {"instance_ids": missing})
        found |= dict(await cursor.fetchall())
    return found


def _routing_key(workflow: str, kind: str) -> str:
    room = MAX_NAME_BYTES - len(kind) - 1
    return f"{workflow.encode()[:room].decode(errors='ignore')}.{kind}"
