"""An activity worker that knows nothing of Holdfast but docs/activities.md: it prints letters.

python foreign_worker.py AMQP_URL QUEUE
"""

import asyncio
import json
import sys
from uuid import uuid4

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic


async def main(url: str, queue: str) -> None:
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_qos(prefetch_count=10)

    async def say(request: dict[str, object], kind: str, **about: object) -> None:
        body = {"request": request["request"], **about}
        properties = Basic.Properties(
            message_type=f"holdfast.{kind}",
            message_id=str(uuid4()),
            correlation_id=str(request["request"]),
            delivery_mode=2,
        )
        exchange = str(request["reply_to"])
        await channel.basic_publish(json.dumps(body).encode(), exchange=exchange, properties=properties)

    async def serve(message: DeliveredMessage) -> None:
        request = json.loads(message.body)
        if request["heartbeat"] is not None:
            await say(request, "ActivityHeartbeat", seconds=request["heartbeat"])
        if request["activity"] != "print_out":
            why = {"$exception": "LookupError", "args": [f"what is {request['activity']}?"]}
            await say(request, "ActivityResult", outcome="failed", error=why)
        elif request["attempt"] == 1:
            why = {"$exception": "printers.OutOfPaper", "args": ["load paper"]}
            await say(request, "ActivityResult", outcome="failed", error=why)
        else:
            (letter,) = request["args"]
            await say(request, "ActivityResult", outcome="completed", result=f"{letter} on parchment")
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag)

    await channel.basic_consume(queue, serve)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
