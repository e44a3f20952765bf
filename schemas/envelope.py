"""The envelope in which a message travels on RabbitMQ and lies in the inbox."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message as it travels: its properties and its undecoded body.

    ``reply_to`` is the queue in which the sender waits for an answer.
    """

    message_id: str
    type: str
    key: str
    body: bytes
    traceparent: str | None = None
    reply_to: str | None = None
