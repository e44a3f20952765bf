"""Consuming from a real broker: order, acks, hand-over, poison."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack

import pamqp.frame
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from holdfast.processor.broker.channel import Channel
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.dead import Death, read_death
from holdfast.processor.broker.delivery import Delivery
from holdfast.processor.broker.frames import Properties
from holdfast.processor.broker.topology import declare
from holdfast.schemas.message import Envelope
from tests.support.broker import Inbox, connect, dice, eventually, library, message, running_broker


def number(delivery: Delivery) -> int:
    return int((delivery.properties.message_id or "").rpartition("-")[2])


def numbers(inbox: Inbox) -> list[int]:
    return [number(delivery) for delivery in inbox.deliveries]


async def acks_have_arrived(consumer: Consumer) -> None:
    """Wait until the broker has heeded the acks of all that is settled; it answers in the order of the commands."""
    channel = consumer._channel
    assert channel is not None
    await asyncio.sleep(0)
    await eventually(lambda: not channel._tracker.has_waiting)
    await channel.library.basic_qos(prefetch_count=consumer.prefetch)


async def ignore(message: DeliveredMessage) -> None:
    """Stand in for a callback where the messages do not come that way."""


def die(connection: Connection) -> None:
    """Cut a connection as a dying process does."""
    assert connection._writer is not None
    connection._writer.transport.abort()


# Protocol: I10.
async def test_messages_of_a_key_come_in_order_from_one_partition(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name, 4) as broker, AsyncExitStack() as stack:
        inboxes = [Inbox() for _ in range(4)]
        for partition, inbox in enumerate(inboxes):
            await stack.enter_async_context(broker.consume(inbox, partition))
        await broker.publish(message(n, key=f"k-{n % 40}") for n in range(1200))
        by_key: dict[str, list[int]] = defaultdict(list)
        await eventually(lambda: sum(len(inbox.deliveries) for inbox in inboxes) == 1200)
        for partition, inbox in enumerate(inboxes):
            for delivery in inbox.deliveries:
                assert delivery.envelope is not None
                assert delivery.partition == partition
                by_key[delivery.envelope.key].append(number(delivery))
        assert all(inbox.deliveries for inbox in inboxes)
    assert by_key == {f"k-{k}": list(range(k, 1200, 40)) for k in range(40)}


async def test_one_consumer_is_active_and_when_it_dies_the_next_gets_the_rest_in_order(
    amqp_url: str, app_name: str
) -> None:
    first, second = Inbox(settles=False), Inbox()
    async with (
        running_broker(amqp_url, app_name) as broker,
        connect(amqp_url) as dying,
        broker.consume(first, connection=dying) as active,
    ):
        await active.until_consuming()
        async with broker.consume(second) as standby:
            await standby.until_consuming()
            await broker.publish(message(n) for n in range(300))
            for delivery in (await first.until(300))[:100]:
                active.settle(delivery)
            await acks_have_arrived(active)
            assert second.deliveries == []
            die(dying)
            await second.until(200)
            assert numbers(second) == list(range(100, 300))
            assert all(delivery.redelivered for delivery in second.deliveries)


# Protocol: D1, D9, I10.
async def test_what_is_not_settled_comes_again_in_order_and_nothing_else_does(amqp_url: str, app_name: str) -> None:
    inbox, rest = Inbox(settles=False), Inbox()
    async with running_broker(amqp_url, app_name) as broker:
        await broker.publish(message(n) for n in range(60))
        async with broker.consume(inbox, prefetch=60) as consumer:
            settled = random.Random(7).sample(await inbox.until(60), 35)  # noqa: S311 - any order will do
            for place, delivery in enumerate(settled):
                consumer.settle(delivery)
                if place % 5 == 0:
                    await acks_have_arrived(consumer)
            # Of acks that come just before the end of a channel the broker may lose some.
            await acks_have_arrived(consumer)
            assert consumer.unsettled == 25
        async with broker.consume(rest):
            await rest.until(25)
        assert numbers(rest) == sorted({*range(60)} - {number(delivery) for delivery in settled})
        assert await broker.waiting(broker.topology.queue(0)) == 0


async def test_deliveries_behind_an_unsettled_one_are_acked_in_the_end(amqp_url: str, app_name: str) -> None:
    inbox, rest = Inbox(settles=False), Inbox()
    async with (
        running_broker(amqp_url, app_name) as broker,
        connect(amqp_url) as dying,
        broker.consume(inbox, connection=dying) as consumer,
    ):
        await broker.publish(message(n) for n in range(5))
        for delivery in (await inbox.until(5))[1:]:
            consumer.settle(delivery)
        await eventually(lambda: consumer._channel is not None and not consumer._channel._tracker.has_waiting)
        await acks_have_arrived(consumer)
        async with broker.consume(rest) as standby:
            await standby.until_consuming()
            die(dying)
            await rest.until(1)
            assert numbers(rest) == [0]


async def test_prefetch_bounds_what_is_unsettled(amqp_url: str, app_name: str) -> None:
    inbox = Inbox(settles=False)
    async with running_broker(amqp_url, app_name) as broker:
        await broker.publish(message(n) for n in range(50))
        async with broker.consume(inbox, prefetch=20) as consumer:
            await inbox.until(20)
            await acks_have_arrived(consumer)
            assert len(inbox.deliveries) == consumer.unsettled == 20
            for delivery in inbox.deliveries[:20]:
                consumer.settle(delivery)
            assert numbers(inbox) == list(range(20))
            await inbox.until(40)


async def test_a_paused_partition_is_handed_over_in_order(amqp_url: str, app_name: str) -> None:
    inbox, following = Inbox(settles=False), Inbox()
    async with running_broker(amqp_url, app_name) as broker:
        async with broker.consume(inbox) as consumer:
            await broker.publish(message(n) for n in range(10))
            await inbox.until(10)
            consumer.pause()
            await broker.publish(message(n) for n in range(10, 20))
            await eventually(lambda: consumer.unsettled == 20)
            assert len(inbox.deliveries) == 10
            for delivery in inbox.deliveries[:5]:
                consumer.settle(delivery)
        async with broker.consume(following):
            await following.until(15)
        assert numbers(following) == list(range(5, 20))


async def test_a_pause_may_end_and_what_was_held_comes_first(amqp_url: str, app_name: str) -> None:
    inbox = Inbox()
    async with running_broker(amqp_url, app_name) as broker, broker.consume(inbox) as consumer:
        consumer.pause()
        await broker.publish(message(n) for n in range(10))
        await eventually(lambda: consumer.unsettled == 10)
        assert inbox.deliveries == []
        consumer.resume()
        await broker.publish(message(n) for n in range(10, 20))
        await inbox.until(20)
        assert numbers(inbox) == list(range(20))


async def test_a_delivery_of_a_lost_channel_settles_nothing_on_the_next_one(amqp_url: str, app_name: str) -> None:
    inbox, rest = Inbox(settles=False), Inbox()
    async with running_broker(amqp_url, app_name) as broker, connect(amqp_url) as dying:
        async with broker.consume(inbox, connection=dying) as consumer:
            await broker.publish([message(0)])
            (stale,) = await inbox.until(1)
            die(dying)
            _, again = await inbox.until(2)
            assert (again.generation, again.tag) == (stale.generation + 1, stale.tag)
            consumer.settle(stale)
            assert consumer.unsettled == 1
        async with broker.consume(rest):
            await rest.until(1)


async def test_the_loss_of_a_channel_is_told(amqp_url: str, app_name: str) -> None:
    lost: list[int] = []
    inbox = Inbox()
    async with running_broker(amqp_url, app_name) as broker, connect(amqp_url) as dying:
        queue = broker.topology.queue(0)
        async with Consumer(dying, queue, inbox, random=dice(), on_lost=lost.append) as inbox.consumer:
            await inbox.consumer.until_consuming()
            assert lost == []
            die(dying)
            await broker.publish([message(0)])
            await inbox.until(1)
            assert lost == [1]
        assert lost == [1, 2]


async def test_a_consumer_whose_queue_was_deleted_consumes_again_when_there_is_one(
    amqp_url: str, app_name: str
) -> None:
    inbox = Inbox()
    async with running_broker(amqp_url, app_name) as broker, broker.consume(inbox) as consumer:
        await consumer.until_consuming()
        async with library(broker.connection) as channel:
            await channel.queue_delete(broker.topology.queue(0))
        await eventually(lambda: not consumer.is_consuming)
        await declare(broker.connection, broker.topology)
        await consumer.until_consuming()
        await broker.publish([message(0)])
        await inbox.until(1)


async def test_a_handler_that_fails_harms_no_other_message(amqp_url: str, app_name: str) -> None:
    inbox = Inbox(settles=False)

    def handle(delivery: Delivery) -> None:
        if number(delivery) == 1:
            raise ValueError("no")
        inbox(delivery)

    async with (
        running_broker(amqp_url, app_name) as broker,
        Consumer(broker.connection, broker.topology.queue(0), handle, random=dice()),
    ):
        await broker.publish(message(n) for n in range(3))
        await inbox.until(2)
    assert numbers(inbox) == [0, 2]


class Refusing(Channel):
    """Gives every message back to its queue."""

    def delivered(self, tag: int, properties: Properties, body: bytes, *, redelivered: bool) -> None:
        self.write(pamqp.frame.marshal(Basic.Nack(tag, requeue=True), self.number))


async def test_a_poison_message_ends_in_the_dead_letter_queue_with_its_reason(amqp_url: str, app_name: str) -> None:
    dead = Inbox()
    poison = message(0, body=b'{"poison": true}')
    async with running_broker(amqp_url, app_name) as broker:
        channel = await broker.connection.open(Refusing())
        await channel.library.basic_consume(broker.topology.queue(0), ignore)
        await broker.publish([poison])
        async with Consumer(broker.connection, broker.topology.dead, dead, random=dice()) as dead.consumer:
            (delivery,) = await dead.until(1)
        assert (delivery.partition, delivery.envelope) == (None, poison)
        assert read_death(delivery.properties) == Death("delivery_limit", broker.topology.queue(0), 1)


async def test_messages_that_break_the_contract_come_with_their_problem(amqp_url: str, app_name: str) -> None:
    inbox = Inbox()
    damaged = Envelope(message_id="m-2", type="Paid", key="QQQQ", body=b"{}")
    async with running_broker(amqp_url, app_name) as broker, broker.consume(inbox) as consumer:
        consumer.max_body_bytes = 1000
        await consumer.until_consuming()
        await broker.publish([message(0, key=""), message(1, body=b"x" * 2_000_000)])
        lane = broker.publisher._lanes[broker.topology.exchange]
        write = lane.write
        # What a careless publisher does: a correlation id that is no UTF-8.
        lane.write = lambda data: write(data.replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))  # type: ignore[method-assign] # see above
        await broker.publish([damaged])
        await broker.publish([message(3, body=b"{}" + b" " * 998), message(4, body=b"")])
        found = await inbox.until(5)
    assert [delivery.problem and delivery.problem.reason for delivery in found] == [
        "missing_correlation",
        "too_large",
        "invalid_correlation",
        None,
        None,
    ]
    assert [len(delivery.body) for delivery in found] == [2, 2_000_000, 2, 1000, 0]
    assert found[0].envelope is None
