"""Ships: takes the messages that orders send, and prints them until Ctrl-C.

    python -m examples.orders.warehouse

It makes a queue and binds it to the app's exchange; a message that no queue takes becomes a dead letter.
"""

import asyncio
import os
from contextlib import suppress

import aio_pika

from examples.orders.app import OrderShipped


async def main() -> None:
    connection = await aio_pika.connect(os.environ["HOLDFAST_AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        exchange = await channel.declare_exchange("holdfast.orders.out", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue("warehouse", durable=True)
        await queue.bind(exchange, routing_key=OrderShipped.message_type)
        async with queue.iterator() as messages:
            async for message in messages:
                # The broker may deliver a message twice; who minds keeps the ids that it has seen.
                async with message.process():
                    shipped = OrderShipped.model_validate_json(message.body)
                    print(f"shipped {shipped.order_id}, paid by {shipped.payment}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
