"""What replays publish, as a user's queue hears it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import aiormq
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.common import Arguments

from holdfast import Client
from holdfast.processor.services.replay import ReplayStep
from tests.support.projections import settle


async def queue(
    amqp_url: str, name: str, *, exchange: str | None = None, key: str = "#", limit: int | None = None
) -> None:
    """Make a queue, bound to a topic exchange that is made too if one is named.

    One with a ``limit`` takes no more messages than that.
    """
    arguments: Arguments = {} if limit is None else {"x-max-length": limit, "x-overflow": "reject-publish"}
    connection = await aiormq.connect(amqp_url)
    try:
        channel = cast("Channel", await connection.channel())
        await channel.queue_declare(name, durable=True, arguments=arguments)
        if exchange is not None:
            await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            await channel.queue_bind(name, exchange, routing_key=key)
    finally:
        await connection.close()


async def remove(amqp_url: str, name: str, *, exchange: str | None = None) -> None:
    """Remove what ``queue`` made."""
    connection = await aiormq.connect(amqp_url)
    try:
        channel = cast("Channel", await connection.channel())
        await channel.queue_delete(name)
        if exchange is not None:
            await channel.exchange_delete(exchange)
    finally:
        await connection.close()


async def replayed(client: Client, url: str, name: str | None = None, *, rate: int = 0, **chosen: Any) -> ReplayStep:
    """Begin a replay and run it to its end; return its last step."""
    await settle(url)
    replay = await client.replays.begin(name, **chosen)
    return [step async for step in client.replays.run(replay.name, rate=rate)][-1]


def ids(messages: list[DeliveredMessage]) -> list[str | None]:
    """Return the message ids."""
    return [message.header.properties.message_id for message in messages]


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call what has an event loop of its own."""
    return await asyncio.to_thread(function, *arguments)
