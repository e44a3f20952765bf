"""The event feed: what was committed, published to the app's events exchange.

It follows the log like a projection, and what it does with a page is to publish it: in the order of the log, so in
order for each instance, and the checkpoint moves once the broker has confirmed all of it. A process that dies in
between leaves the page to the next one, so an event may be published twice, under one id. Events that no queue is
bound for are dropped by the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.events.recorded import RecordedEvent
from holdfast.processor.broker.publisher import MAX_BODY_BYTES, Fate, InOrder, Publisher
from holdfast.processor.broker.topology import Topology
from holdfast.processor.services.event_messages import event_messages
from holdfast.projections.definition import Subscription
from holdfast.schemas.errors import BrokerError
from holdfast.schemas.postgres.statements import load

_SQL = load("holdfast.processor")

NAME = "holdfast.feed"
"""The subscription's name, which no projection can have."""

PAGE = 500
"""Events that are on their way to the broker at a time; the outbox shares the publisher, and has room beside them."""


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
        messages = await event_messages(tx, self._app, self._exchange, recorded)
        await tx.execute(_SQL["let_go_of_the_snapshot"])
        if any(len(message.body) > MAX_BODY_BYTES for message in messages):
            raise ValueError(f"the event is larger than the {MAX_BODY_BYTES} bytes that the broker takes")
        in_order = InOrder(self._publisher)
        sent = [
            await in_order.send(message.exchange, message.routing_key, message, mandatory=False) for message in messages
        ]
        for message, receipt in zip(messages, [await it for it in sent], strict=True):
            if receipt.fate is not Fate.CONFIRMED:
                raise BrokerError(f"event {message.message_id} was not published: {receipt.reason}")
