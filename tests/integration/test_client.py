"""The client as a program uses it; what the command line does with it is tested there."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from decimal import Decimal
from random import SystemRandom
from uuid import UUID

import aio_pika
import pytest

from holdfast import Client, Message
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, declare
from holdfast.schemas.errors import (
    BrokerError,
    DeadLetterNotFound,
    InstanceNotFound,
    InvalidMessage,
    NotMigrated,
    SettingsError,
    StorageError,
)
from tests.support.rabbitmq import remove_app

NOBODY = UUID("0199c1a2-0000-7000-8000-000000000000")


class Placed(Message, correlation="order_id"):
    order_id: str
    amount: Decimal


@pytest.fixture
async def app(amqp_url: str, app_name: str) -> AsyncIterator[str]:
    """An app of which a worker has run once."""
    async with Connection(amqp_url, name="test", heartbeat=60, random=SystemRandom()) as connection:
        await declare(connection, Topology(app_name))
    yield app_name
    await asyncio.to_thread(remove_app, amqp_url, app_name)


async def test_messages_published_at_once_by_many_tasks_arrive_as_the_contract_says(amqp_url: str, app: str) -> None:
    messages = [Placed(order_id=str(number), amount=Decimal(number)) for number in range(300)]
    async with await aio_pika.connect(amqp_url) as connection, Client(amqp_url=amqp_url, app=app) as client:
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        await queue.bind(Topology(app).exchange)
        published = await asyncio.gather(*map(client.publish, messages))
        assert await client.publish(messages[0], "an id of mine", reply_to="answers") == "an id of mine"
        async with queue.iterator(no_ack=True) as arriving:
            arrived = [await anext(arriving) for _ in range(301)]
    taken = {message.message_id: message for message in arrived}
    assert set(taken) == {*published, "an id of mine"}
    for message, message_id in zip(messages, published, strict=True):
        found = taken[message_id]
        assert (found.type, found.correlation_id) == ("Placed", message.order_id)
        assert found.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
        assert Placed.model_validate_json(found.body) == message
    assert {message.message_id for message in arrived if message.reply_to == "answers"} == {"an id of mine"}
    assert all(UUID(message_id).version == 7 for message_id in published)


async def test_a_message_without_a_key_or_with_a_bad_id_is_refused(amqp_url: str, app: str) -> None:
    async with Client(amqp_url=amqp_url, app=app) as client:
        with pytest.raises(InvalidMessage, match="missing_correlation"):
            await client.publish(Placed(order_id="", amount=Decimal(1)))
        with pytest.raises(InvalidMessage, match="invalid_message_id"):
            await client.publish(Placed(order_id="1", amount=Decimal(1)), "x" * 256)


async def test_a_message_for_an_app_that_never_ran_is_refused(amqp_url: str, app_name: str) -> None:
    async with Client(amqp_url=amqp_url, app=app_name) as client:
        with pytest.raises(BrokerError, match=f"there is no exchange 'holdfast.{app_name}'"):
            await client.publish(Placed(order_id="1", amount=Decimal(1)))


async def test_one_client_serves_many_tasks(database_url: str) -> None:
    async with Client(database_url) as client:
        pages = await asyncio.gather(*(client.instances() for _ in range(20)), client.tally())
        assert pages == [[]] * 21
        with pytest.raises(InstanceNotFound):
            await client.state(NOBODY)
        with pytest.raises(InstanceNotFound):
            await client.resume(NOBODY, by="ann")
        with pytest.raises(InstanceNotFound):
            await anext(aiter(client.history(NOBODY)))
        with pytest.raises(DeadLetterNotFound):
            await client.requeue("nothing")


async def test_a_client_says_what_it_lacks() -> None:
    async with Client() as client:
        with pytest.raises(SettingsError, match="database URL"):
            await client.instances()
        with pytest.raises(SettingsError, match="RabbitMQ"):
            await client.publish(Placed(order_id="1", amount=Decimal(1)))


async def test_a_database_without_the_schema_is_told_apart_from_one_that_is_gone(empty_database_url: str) -> None:
    async with Client(empty_database_url) as client:
        with pytest.raises(NotMigrated):
            await client.instances()
        with pytest.raises(NotMigrated):
            await anext(aiter(client.verify()))
    async with Client(f"{empty_database_url}_gone") as client:
        with pytest.raises(StorageError) as caught:
            await client.instances()
        assert not isinstance(caught.value, NotMigrated)


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    password = secrets.token_hex(8)
    with pytest.raises(SettingsError) as caught:
        Client(f"nonsense {password}")
    assert password not in str(caught.value)
