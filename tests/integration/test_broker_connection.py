"""A connection to a broker that is away, comes back, refuses or is short of memory."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from contextlib import suppress
from urllib.parse import urlsplit

import aiormq
import pytest

from compose.local.rabbitmq import RabbitMQ, find_server
from compose.local.services import Services
from holdfast.processor.broker.connection import Connection, State, _closing
from holdfast.processor.broker.publisher import CONFIRMED, IN_FLIGHT, Fate, Publisher
from holdfast.schemas.errors import BrokerError
from tests.support.broker import PATIENCE, Inbox, connect, eventually, message, running_broker


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def test_a_refused_connection_is_an_error_after_as_long_as_the_caller_waits() -> None:
    port = free_port()
    connection = connect(f"amqp://guest:secret@127.0.0.1:{port}/", patience=0.2)
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{port} could not be reached within 0.2 s: .*111") as caught:
        await connection.__aenter__()
    assert connection.state is State.CLOSED
    assert "secret" not in str(caught.value)


async def test_a_wrong_password_is_an_error_at_once(amqp_url: str) -> None:
    parts = urlsplit(amqp_url)
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(BrokerError, match="refuses the connection: ACCESS_REFUSED"):
        await connect(wrong, patience=None).__aenter__()


async def test_a_wrong_virtual_host_is_an_error_at_once(amqp_url: str) -> None:
    wrong = urlsplit(amqp_url)._replace(path="/elsewhere").geturl()
    with pytest.raises(BrokerError, match=r"refuses the connection: .*elsewhere"):
        await connect(wrong, patience=None).__aenter__()


async def test_what_speaks_another_protocol_is_no_broker() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerError, match="could not be reached"):
            await connect(f"amqp://127.0.0.1:{port}/", patience=0.5).__aenter__()


async def test_whoever_waits_for_ever_connects_when_the_broker_is_there(own_services: Services) -> None:
    node = own_services.rabbitmq
    assert node is not None
    await asyncio.to_thread(node.stop, "kill")
    connection = connect(own_services.amqp_url, patience=None)
    entering = asyncio.create_task(connection.__aenter__())
    await connection.until(State.CONNECTING)
    await asyncio.to_thread(node.start)
    await asyncio.wait_for(entering, PATIENCE)
    assert connection.state is State.OPEN
    await connection.close()


async def test_consumers_and_publishers_go_on_after_the_broker_restarted(own_services: Services, app_name: str) -> None:
    node = own_services.rabbitmq
    assert node is not None
    inbox = Inbox(settles=False)
    async with running_broker(own_services.amqp_url, app_name, 2) as broker, broker.consume(inbox) as consumer:
        keys = [f"k-{n}" for n in range(20)]
        await broker.publish(message(n, key=key) for n, key in enumerate(keys))
        await consumer.until_consuming()
        in_first = 20 - await broker.waiting(broker.topology.queue(1))
        before = [delivery.envelope for delivery in await inbox.until(in_first)]
        await asyncio.to_thread(node.stop, "orderly")
        await broker.connection.until(State.CONNECTING)
        await asyncio.to_thread(node.start)
        await broker.publish(message(n, key=key, prefix="later") for n, key in enumerate(keys))
        found = (await inbox.until(3 * in_first))[in_first:]
        assert [delivery.envelope for delivery in found[:in_first]] == before
        # Every key is where it was before the restart.
        assert [d.envelope and d.envelope.key for d in found[in_first:]] == [e and e.key for e in before]
        assert {delivery.generation for delivery in found} == {2}


async def test_messages_in_flight_when_the_broker_stops_are_confirmed_or_can_be_published_again(
    own_services: Services, app_name: str
) -> None:
    node = own_services.rabbitmq
    assert node is not None
    async with running_broker(own_services.amqp_url, app_name) as broker:
        messages = [message(n) for n in range(20_000)]
        publishing = asyncio.gather(
            *[broker.publisher.publish(broker.topology.exchange, "", each) for each in messages]
        )
        await asyncio.to_thread(node.stop, "kill")
        await broker.connection.until(State.CONNECTING)
        await asyncio.to_thread(node.start)
        receipts = await asyncio.wait_for(publishing, PATIENCE)
        assert {receipt.fate for receipt in receipts} == {Fate.CONFIRMED, Fate.FAILED}
        failed = [each for each, receipt in zip(messages, receipts, strict=True) if receipt.fate is Fate.FAILED]
        assert len(failed) <= IN_FLIGHT
        await broker.publish(failed)
        inbox = Inbox()
        async with broker.consume(inbox):
            await eventually(lambda: len(set(inbox.ids)) == 20_000)


async def test_while_the_broker_is_short_of_memory_publishing_waits_and_consuming_goes_on(app_name: str) -> None:
    server = find_server()
    if server is None:
        pytest.skip("no rabbitmq-server is installed, whose limits could be set")
    node = RabbitMQ(server)

    def limit_memory(fraction: str) -> None:
        control = server.with_name("rabbitmqctl")
        environment = node._node._environment or {}
        command = [f"{control}", "--node", environment["RABBITMQ_NODENAME"], "set_vm_memory_high_watermark", fraction]
        subprocess.run(command, env=dict(environment), check=True, capture_output=True)

    try:
        await asyncio.to_thread(node.start)
        inbox = Inbox()
        async with running_broker(node.url, app_name) as broker, connect(node.url) as publishing:
            await broker.publish(message(n) for n in range(10))
            publisher = Publisher(publishing)
            await asyncio.to_thread(limit_memory, "0.0001")
            # The broker tells a connection of its distress as soon as it publishes.
            first = await publisher.send(broker.topology.exchange, "", message(10))
            await asyncio.wait_for(publishing.until(State.BLOCKED), PATIENCE)
            second = asyncio.create_task(publisher.publish(broker.topology.exchange, "", message(11)))
            async with broker.consume(inbox):
                await inbox.until(10)
            assert not first.done()
            assert not second.done()
            await asyncio.to_thread(limit_memory, "0.6")
            await asyncio.wait_for(publishing.until(State.OPEN), PATIENCE)
            assert await asyncio.wait_for(second, PATIENCE) == await first == CONFIRMED
    finally:
        await asyncio.to_thread(node.close)


class Misbehaving:
    """The library's own way to connect, as it is when a broker breaks off at a bad moment, and as it should be."""

    def __init__(self, how: str, times: int) -> None:
        self.how, self.times = how, times
        self.let_go = asyncio.Event()
        self.really = aiormq.Connection.connect

    async def connect(self, library: aiormq.Connection) -> bool:
        if not self.times:
            return bool(await self.really(library))
        self.times -= 1
        if self.how == "cancels itself":
            raise asyncio.CancelledError
        if self.how == "fails in a way of its own":
            raise KeyError("channel")
        if self.how == "breaks off":
            raise StopAsyncIteration
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()
        return bool(await self.really(library))


@pytest.mark.parametrize("how", ["cancels itself", "breaks off", "fails in a way of its own", "never ends"])
async def test_an_attempt_to_connect_that_goes_wrong_in_whatever_way_is_followed_by_another(
    how: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.processor.broker.connection.DIAL_TIMEOUT", 0.5)
    async with connect(amqp_url) as connection:
        first = connection._library
        assert first is not None
        library = Misbehaving(how, 2)

        async def connect_somehow(it: aiormq.Connection) -> bool:
            return await library.connect(it)

        monkeypatch.setattr(aiormq.Connection, "connect", connect_somehow)
        await first.close()
        await asyncio.wait_for(connection.until(State.CONNECTING), PATIENCE)
        await asyncio.wait_for(connection.until(State.OPEN), PATIENCE)
        assert not library.times
        used = connection._library
        library.let_go.set()
        await eventually(lambda: not _closing)
        assert connection._library is used
        assert connection.state is State.OPEN


async def test_closing_wakes_whoever_waits(amqp_url: str) -> None:
    connection: Connection
    async with connect(amqp_url) as connection:
        waiting = asyncio.create_task(connection.until(State.CLOSED, State.BLOCKED))
        assert connection.state is State.OPEN
    assert await waiting is State.CLOSED
