"""Publishes messages to an app as any program may, in any language: the contract is plain AMQP and JSON."""

import asyncio
import os
from collections.abc import Iterable

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError

from holdfast import Message

IN_FLIGHT = 200


async def publish(app: str, messages: Iterable[tuple[str, Message]]) -> int:
    """Publish (message id, message) pairs in order and return how many; each one is confirmed by the broker."""
    connection = await aio_pika.connect(os.environ["HOLDFAST_AMQP_URL"])
    count = 0
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        try:
            exchange = await channel.get_exchange(f"holdfast.{app}")
        except ChannelNotFoundEntity:
            raise SystemExit(f"there is no exchange holdfast.{app} yet: start a worker of the app first") from None
        confirms: set[asyncio.Task[object]] = set()
        for message_id, message in messages:
            amqp_message = aio_pika.Message(
                message.model_dump_json().encode(),
                type=message.message_type,
                message_id=message_id,
                correlation_id=message.correlation_key,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            confirms.add(asyncio.create_task(exchange.publish(amqp_message, routing_key="")))
            count += 1
            if len(confirms) == IN_FLIGHT:
                await _confirmed(confirms)
                confirms.clear()
        await _confirmed(confirms)
    return count


async def _confirmed(confirms: set[asyncio.Task[object]]) -> None:
    try:
        await asyncio.gather(*confirms)
    except DeliveryError as error:
        raise SystemExit(f"the broker took no responsibility for a message: {error}") from None
