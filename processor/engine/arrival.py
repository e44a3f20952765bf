"""A message in the engine's hands, from RabbitMQ or from the inbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.processor.engine.provider import Consumed, InboxVerdict, Intake, StoredMessage
from holdfast.schemas.control import Command
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.message import Envelope, Message


def nothing() -> None:
    """Do nothing: what settling a message from the inbox amounts to."""


@dataclass(slots=True, kw_only=True, eq=False)
class Arrival:
    """One message on its way through the engine.

    One that ``is_given_back`` comes again, with its partition.
    ``is_counted`` says that this delivery was counted as an attempt, ``is_double`` that a commit found its
    id to be known already, so only the store can tell what it is. ``not_before`` is when it is to be tried
    again, on the host's monotonic clock. ``waits`` says that it is in memory behind something else. ``settle``
    acknowledges it to the broker and is called once its fate is durable. ``partition`` is None for what came by no
    partition; one ``from_backlog`` may have waited there before this host came, and ``received_at`` is then when it
    arrived there, ``delivered_at`` when it came to this host. ``problem`` is what the consumer found wrong with it;
    ``message`` is its validated form, once it is known.
    """

    envelope: Envelope
    received_at: datetime
    delivered_at: datetime | None = None
    partition: int | None = None
    from_backlog: bool = False
    is_given_back: bool = False
    redelivered: bool = False
    is_counted: bool = False
    is_double: bool = False
    not_before: float = 0.0
    waits: bool = False
    stored: StoredMessage | None = None
    settle: Callable[[], None] = nothing
    problem: InvalidMessage | None = None
    message: Message | None = None

    @classmethod
    def of(cls, stored: StoredMessage) -> Arrival:
        """Return the arrival of a message that waits in the inbox."""
        return cls(envelope=stored.envelope, received_at=stored.received_at, partition=stored.partition, stored=stored)

    @property
    def command(self) -> Command | None:
        """The control command that this is; None for a message."""
        if self.stored is None or self.stored.kind != "control":
            return None
        return Command.of(self.envelope)

    def consumed(self) -> Consumed:
        """Return what a batch says of this message."""
        kind = "message" if self.stored is None else self.stored.kind
        return Consumed(envelope=self.envelope, stored=self.stored is not None, kind=kind)

    def intake(self, verdict: InboxVerdict, **about: Any) -> Intake:
        """Return what the inbox is to have of this message; ``about`` is as in ``Intake``.

        What waited in its queue counts from then on beside timers, but lives in the inbox from now on.
        """
        return Intake(
            envelope=self.envelope,
            verdict=verdict,
            received_at=None if self.from_backlog else self.received_at,
            arrived_at=self.received_at if self.from_backlog else None,
            partition=self.partition,
            **about,
        )
