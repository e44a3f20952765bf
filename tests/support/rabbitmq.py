"""RabbitMQ as a test's publisher and reader use it: raw messages, and no part of Holdfast."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import aiormq
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

T = TypeVar("T")
MOST_PARTITIONS = 8


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A message as it goes to the broker; what is None is left out."""

    body: bytes
    type: str | None = None
    message_id: str | None = None
    key: str | None = None


def publish(amqp_url: str, app: str, messages: Iterable[Raw]) -> None:
    """Publish messages to an app in order; return when the broker has confirmed each of them."""

    async def work(channel: Channel) -> None:
        confirms: list[asyncio.Task[object]] = []
        for message in messages:
            properties = Basic.Properties(
                delivery_mode=2,
                message_type=message.type,
                message_id=message.message_id,
                correlation_id=message.key,
            )
            exchange = f"holdfast.{app}"
            if message.message_id is None:
                await _publish_without_id(channel, exchange, properties, message.body)
                continue
            publishing = channel.basic_publish(
                message.body, exchange=exchange, properties=properties, mandatory=True, wait=False
            )
            confirms.append(asyncio.ensure_future(publishing))
            if len(confirms) == 400:
                await asyncio.gather(*confirms)
                confirms.clear()
        await asyncio.gather(*confirms)

    _with_channel(amqp_url, work)


async def _publish_without_id(channel: Channel, exchange: str, properties: Basic.Properties, body: bytes) -> None:
    """Publish past the library, which gives every message an id; the closed channel says that the broker read it."""
    plain = cast("Channel", await channel.connection.channel(publisher_confirms=False))
    frames: list[Basic.Publish | ContentHeader | ContentBody] = [
        Basic.Publish(exchange=exchange),
        ContentHeader(properties=properties, body_size=len(body)),
        ContentBody(body),
    ]
    await plain.write_queue.put(ChannelFrame.marshall(channel_number=plain.number, frames=frames))
    await plain.close()


def publish_to(amqp_url: str, queue: str, body: bytes, message_id: str) -> None:
    """Put one message into a queue, by way of the default exchange."""

    async def work(channel: Channel) -> None:
        properties = Basic.Properties(delivery_mode=2, message_id=message_id)
        await channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)

    _with_channel(amqp_url, work)


def waiting(amqp_url: str, app: str) -> int:
    """Count the messages in the partitions of an app that no consumer has."""

    async def work(channel: Channel) -> int:
        count = 0
        try:
            for number in range(MOST_PARTITIONS):
                queue = await channel.queue_declare(f"holdfast.{app}.{number:02}", passive=True)
                count += queue.message_count or 0
        except ChannelNotFoundEntity:
            pass
        return count

    return _with_channel(amqp_url, work)


def bind_out(amqp_url: str, app: str, queue: str, exchange: Literal["out", "events"] = "out") -> None:
    """Make a queue that keeps everything that the workflows of an app send, or its event feed."""

    async def work(channel: Channel) -> None:
        await channel.exchange_declare(f"holdfast.{app}.{exchange}", exchange_type="topic", durable=True)
        await channel.queue_declare(queue, durable=True)
        await channel.queue_bind(queue, f"holdfast.{app}.{exchange}", routing_key="#")

    _with_channel(amqp_url, work)


def take_all(amqp_url: str, queue: str) -> list[DeliveredMessage]:
    """Take every message out of a queue and remove it."""

    async def work(channel: Channel) -> list[DeliveredMessage]:
        taken = []
        while isinstance((message := await channel.basic_get(queue, no_ack=True)).delivery, Basic.GetOk):
            taken.append(message)
        await channel.queue_delete(queue)
        return taken

    return _with_channel(amqp_url, work)


def remove_app(amqp_url: str, app: str, activities: Iterable[str] = ()) -> None:
    """Remove the queues and exchanges of an app, with the queues of its activities."""

    async def work(channel: Channel) -> None:
        for number in range(MOST_PARTITIONS):
            await channel.queue_delete(f"holdfast.{app}.{number:02}")
        for suffix in (".dead", ".control"):
            await channel.queue_delete(f"holdfast.{app}{suffix}")
        for queue in activities:
            await channel.queue_delete(f"holdfast.{app}.activity.{queue}")
        for suffix in ("", ".hash", ".out", ".events", ".activities"):
            await channel.exchange_delete(f"holdfast.{app}{suffix}")

    _with_channel(amqp_url, work)


def _with_channel(amqp_url: str, work: Callable[[Channel], Awaitable[T]]) -> T:
    async def run() -> T:
        connection = await aiormq.connect(amqp_url)
        try:
            return await work(cast("Channel", await connection.channel(publisher_confirms=True, on_return_raises=True)))
        finally:
            await connection.close()

    return asyncio.run(run())
