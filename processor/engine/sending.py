"""From a message that a workflow sends to the row of the outbox."""

from __future__ import annotations

from holdfast.processor.engine.provider import Outgoing
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.message import Message


def outgoing(message: Message, message_id: str, exchange: str) -> Outgoing:
    """Return what is to be published; raises what the message cannot say of itself.

    ``exchange`` is where messages go whose type names no exchange of its own.
    """
    return Outgoing(
        message_id=message_id,
        exchange=message.exchange or exchange,
        routing_key=message.message_type,
        type=message.message_type,
        key=check_name("correlation", message.correlation_key) if message.correlation_field else "",
        body=message.model_dump_json().encode(),
    )
