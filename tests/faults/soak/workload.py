"""What is published during a soak, and who sees to it that the broker gets all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from holdfast import BrokerError, Client, Message
from tests.faults.soak.app import Paid, Placed, PlacedInMemory, PlacedInParts

AGAIN = 0.5
"""Seconds before a message that RabbitMQ did not take is published again."""

LONGEST = 12.0
"""Seconds that a payment comes after its order at most."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order: how it is placed, and what else comes of it when."""

    key: str
    kind: type[Message]
    pay_after: float | None
    """Seconds from the order to its payment; the payment may come first. None: it is never paid."""
    doubled: bool
    """Whether its messages are published twice, as by somebody who does not trust the broker."""

    @property
    def outcome(self) -> str:
        return "late" if self.pay_after is None else "paid"

    @property
    def has_child(self) -> bool:
        return self.kind is PlacedInParts

    @property
    def messages(self) -> list[tuple[float, Message, str]]:
        """The messages, each with the second at which it is due after the first one, and its id."""
        patience = {"patience": timedelta(seconds=2)} if self.pay_after is None else {}
        placed = self.kind.model_validate({"order_id": self.key} | patience)
        if self.pay_after is None:
            return [(0.0, placed, f"{self.key}/placed")]
        return [
            (max(0.0, -self.pay_after), placed, f"{self.key}/placed"),
            (max(0.0, self.pay_after), Paid(order_id=self.key), f"{self.key}/paid"),
        ]


def orders(random: Random) -> Iterator[Order]:
    """Give orders of all kinds without end."""
    number = 0
    while True:
        number += 1
        yield Order(
            key=f"order-{number:06}",
            kind=random.choice((Placed, PlacedInMemory, PlacedInParts)),
            pay_after=None if random.random() < 0.1 else random.uniform(-1.0, LONGEST),
            doubled=random.random() < 0.05,
        )


class Publisher:
    """Publishes each message until the broker has confirmed it, under the same id each time."""

    def __init__(self, client: Client) -> None:
        self.confirmed = 0
        self.repeated = 0
        self._client = client

    async def publish(self, message: Message, message_id: str) -> None:
        """Return once the broker has the message."""
        while True:
            try:
                await self._client.publish(message, message_id)
            except BrokerError:
                self.repeated += 1
                await asyncio.sleep(AGAIN)
            else:
                self.confirmed += 1
                return


async def publish_orders(publisher: Publisher, random: Random, *, rate: float, seconds: float) -> list[Order]:
    """Begin ``rate`` orders a second for so many seconds; return them once the broker has all their messages."""
    begun: list[Order] = []
    first = time.monotonic()
    async with asyncio.TaskGroup() as publishing:
        for order in orders(random):
            due = first + len(begun) / rate
            if due > first + seconds:
                break
            await asyncio.sleep(due - time.monotonic())
            begun.append(order)
            for after, message, message_id in order.messages:
                for _ in range(2 if order.doubled else 1):
                    publishing.create_task(_publish_later(publisher, after, message, message_id))
    return begun


async def _publish_later(publisher: Publisher, after: float, message: Message, message_id: str) -> None:
    await asyncio.sleep(after)
    await publisher.publish(message, message_id)
