"""Publishes orders of several fates.

    python -m examples.orders.publish [--orders 300]

Of every ten orders, seven are paid at once and one a while later; one is never paid and has two seconds to be; one asks
for something that is out of stock. One more is published in a form that the app does not understand.
"""

import argparse
import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

from examples.orders.app import OrderPlaced, PaymentReceived
from examples.publishing import publish
from holdfast import Message

A_WHILE = 3
"""Seconds between an order and a payment that does not come at once."""
SHORT = timedelta(seconds=2)


class OutdatedOrder(Message, correlation="order_id", type="OrderPlaced"):
    """What a shop sends that has not heard of the other fields."""

    order_id: str


def orders(batch: str, count: int) -> Iterator[tuple[str, Message]]:
    """Give the orders themselves, and one in an outdated form."""
    for number in range(count):
        order_id = f"{batch}-{number}"
        yield (
            f"{order_id}/placed",
            OrderPlaced(
                order_id=order_id,
                item="unicorn" if number % 10 == 9 else "chair",
                amount=Decimal(number) + Decimal("0.99"),
                pay_within=SHORT if number % 10 == 8 else timedelta(days=3),
            ),
        )
    yield f"{batch}-outdated/placed", OutdatedOrder(order_id=f"{batch}-outdated")


def payments(batch: str, count: int, *, last_digits: range) -> Iterator[tuple[str, Message]]:
    """Give the payments of the orders whose number ends in one of these digits."""
    for number in range(count):
        if number % 10 in last_digits:
            order_id = f"{batch}-{number}"
            yield f"{order_id}/paid", PaymentReceived(order_id=order_id, reference=f"transfer-{number}")


async def main(count: int) -> None:
    batch = f"order-{uuid4().hex[:6]}"
    await publish("orders", orders(batch, count))
    await publish("orders", payments(batch, count, last_digits=range(7)))
    print(f"published {count} orders, {batch}-0 to {batch}-{count - 1}, and the payments of most")
    await asyncio.sleep(A_WHILE)
    await publish("orders", payments(batch, count, last_digits=range(7, 8)))
    print("published the payments that came a while later")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish orders of several fates.")
    parser.add_argument("--orders", type=int, default=300, help="how many (default: 300)")
    asyncio.run(main(parser.parse_args().orders))
