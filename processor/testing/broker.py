"""The broker of a simulation: messages on their way to an app, and those that its workflows published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.testing.host import SimulatedHost
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Envelope

LIMIT = 500
"""How many messages of the outbox are published at once."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that was published to the app, under ``envelope.message_id``; it counts from ``published_at``.

    ``is_acked`` says that the broker has forgotten it; ``times`` counts how often a host was given it.
    """

    envelope: Envelope
    published_at: datetime
    is_acked: bool = False
    times: int = 0
    holder: SimulatedHost | None = None


def _no_worker(message: Outgoing) -> None:
    """Leave a request in its queue."""


class SimulatedBroker:
    """One queue, from which one host at a time is given messages, and a list of what was published.

    ``published`` has each message once, by id, however often it went out; ``request`` takes those for activity workers.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.request: Callable[[Outgoing], None] = _no_worker
        self.deliveries: list[Delivery] = []
        self.published: dict[str, Outgoing] = {}

    def take(self, envelope: Envelope) -> Delivery:
        """Put a message into the queue."""
        delivery = Delivery(envelope, self._now())
        self.deliveries.append(delivery)
        return delivery

    def hand_out(self, host: SimulatedHost) -> bool:
        """Give a host what nobody has, in the order in which it was published; False if that is nothing."""
        ready = [delivery for delivery in self.deliveries if not delivery.is_acked and delivery.holder is None]
        for delivery in ready:
            self._hand_over(delivery, host)
        return bool(ready)

    def _hand_over(self, delivery: Delivery, host: SimulatedHost) -> None:
        def settle() -> None:
            # What a host acks that lost its channel meanwhile, the broker does not hear.
            if delivery.holder is host and not host.is_dead:
                delivery.is_acked = True

        delivery.holder = host
        delivery.times += 1
        host.engine.deliver(
            Arrival(
                envelope=delivery.envelope,
                received_at=delivery.published_at,
                redelivered=delivery.times > 1,
                settle=settle,
            )
        )

    def take_back(self, host: SimulatedHost) -> None:
        """Have what a dead host had not acked in the queue again."""
        for delivery in self.deliveries:
            if delivery.holder is host and not delivery.is_acked:
                delivery.holder = None

    async def relay(self, host: SimulatedHost) -> None:
        """Publish what the outbox holds for a host; ``AppError`` if an id goes out with two contents.

        Requests to activity workers go to ``request``.
        """
        store: Any = host.runtime.provider
        messages: list[Outgoing] = await store.outbox(host.runtime.host_id, LIMIT)
        for message in messages:
            before = self.published.setdefault(message.message_id, message)
            if before != message:
                raise AppError(f"{message.message_id} was published twice, as {before} and as {message}")
            if message.exchange == host.runtime.activity_exchange:
                self.request(message)
        if messages:
            await store.published([message.message_id for message in messages])
