"""What the broker gave up on ends in the inbox, as a dead letter with the broker's reason."""

import pamqp.frame
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from holdfast.processor.broker.channel import Channel
from holdfast.processor.broker.frames import Properties
from holdfast.processor.language.app import App
from holdfast.processor.services.intake import Intake
from holdfast.processor.testing.world import World
from tests.support.broker import dice, eventually, message, running_broker


class Rejecting(Channel):
    """Has the broker give up every message."""

    def delivered(self, tag: int, properties: Properties, body: bytes, *, redelivered: bool) -> None:
        self.write(pamqp.frame.marshal(Basic.Reject(tag, requeue=False), self.number))


async def ignore(taken: DeliveredMessage) -> None:
    """Stand in for a callback: the messages do not come that way."""


async def test_the_brokers_dead_letters_are_taken_into_the_inbox(amqp_url: str, app_name: str) -> None:
    world = World(App(app_name))
    host = await world.host()
    poison = message(1, body=b'{"poison": true}')
    async with running_broker(amqp_url, app_name) as broker:
        channel = await broker.connection.open(Rejecting())
        await channel.library.basic_consume(broker.topology.queue(0), ignore)
        await broker.publish([poison])
        async with Intake(host.engine, broker.connection, broker.topology, random=dice()) as intake:
            await eventually(lambda: world.verdict("m-1") is not None and not intake.unsettled)
        (row,) = world.store.tables.inbox.values()
        assert (row.verdict, row.reason) == ("dead_lettered", "rejected")
        assert row.detail == f"the broker gave the message up in {broker.topology.queue(0)}"
        assert row.message.envelope == poison
        assert await broker.waiting(broker.topology.dead) == 0
