"""The order workload as ``README.md`` fixes it: names, sizes, and how its messages are published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import cast

import aiormq
import orjson
from aiormq import Channel
from pamqp.commands import Basic

PLACED = "OrderPlaced"
PAID = "OrderPaid"
SHIPPED = "OrderShipped"

BODY_BYTES = 300
"""Size of every message body, in and out."""

RESULT = "r" * 200
"""What each activity returns."""

IN_FLIGHT = 500
"""How many publishes await their confirm together."""


def order_ids(orders: int) -> Iterator[str]:
    """Give the ids of the orders, which are also their correlation keys."""
    return (f"order-{number:08}" for number in range(orders))


def padding(order_id: str) -> str:
    """Return the text that fills a body about ``order_id`` up to ``BODY_BYTES``."""
    return "x" * (BODY_BYTES - len(orjson.dumps({"order_id": order_id, "padding": ""})))


def body(order_id: str) -> bytes:
    """Return the body of a message about ``order_id``: JSON of ``BODY_BYTES`` bytes."""
    return orjson.dumps({"order_id": order_id, "padding": padding(order_id)})


async def publish(amqp_url: str, exchange: str, orders: int) -> None:
    """Publish all starts and then all second messages; return when the broker has confirmed them all."""
    for message_type in (PLACED, PAID):
        await publish_all(amqp_url, exchange, message_type, order_ids(orders))


async def publish_all(amqp_url: str, exchange: str, message_type: str, ids: Iterable[str]) -> None:
    """Publish a message of one type about each of these orders; return when the broker has confirmed them all."""
    connection = await aiormq.connect(amqp_url)
    try:
        await _publish_all(
            cast("Channel", await connection.channel(publisher_confirms=True)), exchange, message_type, ids
        )
    finally:
        await connection.close()


async def _publish_all(channel: Channel, exchange: str, message_type: str, ids: Iterable[str]) -> None:
    confirms: list[asyncio.Task[object]] = []
    for order_id in ids:
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            message_type=message_type,
            message_id=f"{message_type}/{order_id}",
            correlation_id=order_id,
        )
        publishing = channel.basic_publish(body(order_id), exchange=exchange, properties=properties, wait=False)
        confirms.append(asyncio.ensure_future(publishing))
        if len(confirms) == IN_FLIGHT:
            await asyncio.gather(*confirms)
            confirms.clear()
    await asyncio.gather(*confirms)
