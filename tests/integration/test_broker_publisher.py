"""Publishing to a real broker: the fate of each message."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aio_pika
import pytest

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import CONFIRMED, Fate, InOrder, Publisher, Receipt
from holdfast.processor.engine.provider import Outgoing
from holdfast.schemas.errors import BrokerError
from holdfast.schemas.message import Envelope
from tests.support.broker import Broker, Inbox, connect, library, message, running_broker


def outgoing(number: int, exchange: str, routing_key: str) -> Outgoing:
    return Outgoing(
        message_id=f"m-{number}", exchange=exchange, routing_key=routing_key, type="Paid", key="k", body=b"{}"
    )


async def bind(broker: Broker, queue: str, routing_key: str) -> None:
    async with library(broker.connection) as channel:
        await channel.queue_declare(queue, auto_delete=True)
        await channel.queue_bind(queue, broker.topology.out, routing_key=routing_key)


async def count(broker: Broker, queue: str) -> int:
    async with library(broker.connection) as channel:
        return (await channel.queue_declare(queue, passive=True)).message_count or 0


async def test_each_message_gets_its_own_receipt(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        await bind(broker, f"{app_name}-paid", "Paid")
        messages = [outgoing(n, broker.topology.out, "Lost" if n % 3 == 0 else "Paid") for n in range(3000)]
        receipts = await broker.publisher.publish_all(messages)
        assert await count(broker, f"{app_name}-paid") == 2000
    assert [receipt.fate for receipt in receipts] == [
        Fate.UNROUTABLE if n % 3 == 0 else Fate.CONFIRMED for n in range(3000)
    ]
    assert {receipt.reason for receipt in receipts} == {"", "NO_ROUTE"}


async def test_published_in_order_they_arrive_in_order(amqp_url: str, app_name: str) -> None:
    inbox = Inbox()
    async with running_broker(amqp_url, app_name) as broker, broker.consume(inbox):
        messages = [outgoing(n, broker.topology.exchange, "") for n in range(3000)]
        assert set(await broker.publisher.publish_all(messages)) == {CONFIRMED}
        await inbox.until(3000)
    assert inbox.ids == [f"m-{n}" for n in range(3000)]


async def test_a_message_arrives_with_all_of_its_properties(amqp_url: str, app_name: str) -> None:
    inbox = Inbox()
    sent = Envelope(
        message_id="ä" * 127,
        type="Bezahlt",
        key="Auftrag 7",
        body=b'"' + b"x" * 300_000 + b'"',
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        reply_to="Antworten für Auftrag 7",
    )
    async with running_broker(amqp_url, app_name) as broker, broker.consume(inbox):
        assert await broker.publisher.publish(f"holdfast.{app_name}", "", sent) == CONFIRMED
        (delivery,) = await inbox.until(1)
    assert delivery.envelope == sent


async def test_an_answer_reaches_the_queue_that_its_asker_named(amqp_url: str, app_name: str) -> None:
    answer = Outgoing(
        message_id="i:2:0", exchange="", routing_key="", type="Answered", key="order 7", body=b'{"text":"yes"}'
    )
    async with await aio_pika.connect(amqp_url) as connection, running_broker(amqp_url, app_name) as broker:
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        assert await broker.publisher.publish_all([replace(answer, routing_key=queue.name)]) == [CONFIRMED]
        async with queue.iterator(no_ack=True) as arriving:
            arrived = await anext(arriving)
    assert (arrived.type, arrived.correlation_id, arrived.body) == ("Answered", "order 7", answer.body)


async def test_a_missing_exchange_costs_only_the_messages_to_it(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        messages = [outgoing(n, "nowhere" if n % 10 == 0 else broker.topology.exchange, "") for n in range(200)]
        for _ in range(2):
            receipts = await broker.publisher.publish_all(messages)
            assert [receipt.fate for receipt in receipts] == [
                Fate.UNROUTABLE if n % 10 == 0 else Fate.CONFIRMED for n in range(200)
            ]
            assert receipts[0].reason == "there is no exchange 'nowhere'"


async def test_an_exchange_that_refuses_costs_only_the_messages_to_it(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        async with library(broker.connection) as channel:
            await channel.exchange_declare(f"{app_name}-internal", internal=True, auto_delete=True)
        receipts = await broker.publisher.publish_all(
            [outgoing(1, f"{app_name}-internal", ""), outgoing(2, broker.topology.exchange, "")]
        )
        async with library(broker.connection) as channel:
            await channel.exchange_delete(f"{app_name}-internal")
    assert [receipt.fate for receipt in receipts] == [Fate.UNROUTABLE, Fate.CONFIRMED]
    assert "ACCESS_REFUSED" in receipts[0].reason


async def test_one_id_published_twice_at_once_gets_two_right_receipts(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        await bind(broker, f"{app_name}-paid", "Paid")
        for keys in (["Lost", "Paid", "Lost"], ["Paid", "Lost", "Paid"]):
            receipts = await broker.publisher.publish_all([outgoing(7, broker.topology.out, key) for key in keys])
            assert [receipt.fate for receipt in receipts] == [
                Fate.CONFIRMED if key == "Paid" else Fate.UNROUTABLE for key in keys
            ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"routing_key": "x" * 256}, "256 bytes"),
        ({"key": "\ud800"}, "surrogates"),
        ({"body": b"x" * (17 << 20)}, "larger"),
    ],
)
async def test_a_message_that_has_no_form_on_the_wire_blocks_no_other(
    amqp_url: str, app_name: str, change: dict[str, str | bytes], reason: str
) -> None:
    given = {"message_id": "m", "routing_key": "", "type": "Paid", "key": "k", "body": b"{}"} | change
    async with running_broker(amqp_url, app_name) as broker:
        bad = Outgoing(exchange=broker.topology.exchange, **given)  # type: ignore[arg-type] # one of them is bad
        receipts = await broker.publisher.publish_all([bad, outgoing(2, broker.topology.exchange, "")])
    assert [receipt.fate for receipt in receipts] == [Fate.UNROUTABLE, Fate.CONFIRMED]
    assert reason in receipts[0].reason


async def test_no_more_messages_are_in_flight_than_allowed(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        publisher = Publisher(broker.connection, in_flight=10)
        receipts = []
        for n in range(100):
            receipts.append(await publisher.send(broker.topology.exchange, "", message(n)))
            assert sum(not receipt.done() for receipt in receipts) <= 10
        assert {await receipt for receipt in receipts} == {CONFIRMED}


async def test_a_caller_that_gives_up_leaves_its_place(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker:
        publisher = Publisher(broker.connection, in_flight=1)
        for n in range(5):
            (await publisher.send(broker.topology.exchange, "", message(n))).cancel()
        assert await publisher.publish(broker.topology.exchange, "", message(5)) == CONFIRMED
        assert await broker.waiting(broker.topology.queue(0)) == 6


async def test_what_is_in_flight_when_the_connection_breaks_has_failed(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name) as broker, connect(amqp_url) as breaking:
        publisher = Publisher(breaking)
        receipts = [await publisher.send(broker.topology.exchange, "", message(n)) for n in range(10)]
        assert breaking._writer is not None
        breaking._writer.transport.abort()
        assert {(await receipt).fate for receipt in receipts} == {Fate.FAILED}
        assert await publisher.publish(broker.topology.exchange, "", message(11)) == CONFIRMED


async def test_on_a_closed_connection_publishing_is_an_error(amqp_url: str) -> None:
    connection: Connection
    async with connect(amqp_url) as connection:
        pass
    with pytest.raises(BrokerError, match="closed"):
        await asyncio.wait_for(Publisher(connection).publish("", "x", message(1)), 5)


async def test_once_a_message_has_failed_none_behind_it_is_sent(amqp_url: str, app_name: str) -> None:
    full = f"{app_name}-full"
    async with running_broker(amqp_url, app_name) as broker:
        async with library(broker.connection) as channel:
            await channel.queue_declare(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        row = InOrder(broker.publisher)
        fates = [(await (await row.send("", full, outgoing(number, "", full)))).fate for number in (1, 2)]
        assert fates == [Fate.CONFIRMED, Fate.FAILED]
        async with library(broker.connection) as channel:
            await channel.queue_purge(full)
        assert await (await row.send("", full, outgoing(3, "", full))) == Receipt(
            Fate.FAILED, "a message before it failed"
        )
        assert await broker.waiting(full) == 0
        async with library(broker.connection) as channel:
            await channel.queue_delete(full)
