"""Deliveries: what came from a queue, checked against the message contract as far as its properties go."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.processor.broker.frames import REPLAYED, Properties
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.identifiers import check_name, digest, storable
from holdfast.schemas.message import Envelope

MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message as it came from a queue, to be settled with the consumer that gave it.

    ``partition`` is None where the queue is no partition. ``tag`` counts from 1 on each channel and
    ``generation`` counts the channels, so that a delivery of a lost channel is never taken for another
    one. Either ``envelope`` is there or ``problem``, which says what the message lacks; the body is not
    looked into.
    """

    partition: int | None
    generation: int
    tag: int
    redelivered: bool
    properties: Properties
    body: bytes
    envelope: Envelope | None
    problem: InvalidMessage | None


def read_envelope(properties: Properties, body: bytes, max_body_bytes: int = MAX_BODY_BYTES) -> Envelope:
    """Return the envelope of a message, or raise ``InvalidMessage``.

    Reasons: ``missing_message_id``, ``missing_type``, ``missing_correlation``, ``invalid_message_id``,
    ``invalid_type``, ``invalid_correlation``, ``too_large``, and ``replayed`` for history that is published again.
    """
    refuse_replayed(properties)
    envelope = Envelope(
        message_id=check_name("message_id", properties.message_id or ""),
        type=check_name("type", properties.type or ""),
        key=check_name("correlation", properties.correlation_id or ""),
        body=body,
        traceparent=properties.traceparent,
        reply_to=_queue(properties),
    )
    check_size(body, max_body_bytes)
    return envelope


def refuse_replayed(properties: Properties) -> None:
    """Raise ``InvalidMessage`` (``replayed``) for history that is published again, which no app takes in."""
    if properties.is_replayed:
        name = storable(str(properties.headers.get(REPLAYED, "")))
        raise InvalidMessage("replayed", f"replay {name} published it again: history never goes into an instance")


def check_size(body: bytes, max_body_bytes: int) -> None:
    """Raise ``InvalidMessage`` (``too_large``) for a body that apps do not take in."""
    if len(body) > max_body_bytes:
        raise InvalidMessage("too_large", f"the body has {len(body)} bytes, at most {max_body_bytes} are allowed")


def salvage(properties: Properties, body: bytes) -> Envelope:
    """Return an envelope under which a message that breaks the contract can be kept as a dead letter.

    What is missing becomes empty and what cannot be stored is replaced; a missing id is made from what the
    message says, so that the same message delivered twice gets the same id.
    """
    type_, key = storable(properties.type or ""), storable(properties.correlation_id or "")
    message_id = storable(properties.message_id or "")
    if not message_id:
        message_id = f"unidentified:{digest(type_, key, body).hex()}"
    return Envelope(
        message_id=message_id,
        type=type_,
        key=key,
        body=body,
        traceparent=properties.traceparent,
        reply_to=_queue(properties),
    )


def _queue(properties: Properties) -> str | None:
    """Return where the sender waits for an answer; None for what can be no name of a queue."""
    try:
        return check_name("reply_to", properties.reply_to or "")
    except InvalidMessage:
        return None
