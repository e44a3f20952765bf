"""History that is published again never goes into an instance, whichever way it comes to an app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from holdfast import App, Client, DeadLetterNotFound, Message
from holdfast.processor.broker.frames import REPLAYED, REPLAYED_AT
from holdfast.processor.broker.publisher import Fate
from holdfast.processor.services.control_intake import ControlIntake
from holdfast.processor.services.intake import Intake
from holdfast.schemas.activity_messages import ActivityRequest
from holdfast.schemas.message import Envelope
from holdfast.schemas.settings import Settings
from tests.support import mailing
from tests.support.broker import Broker, dice, eventually, library, running_broker
from tests.support.hosts import Host, running_host
from tests.support.replays import replayed

HEADERS = {REPLAYED: "july", REPLAYED_AT: "2026-08-01T00:00:00+00:00"}
DETAIL = "replay july published it again: history never goes into an instance"


class Placed(Message, correlation="key"):
    key: str


class Started(Message, correlation="instance_id", type="InstanceStarted"):
    """Called like an event, and correlated as the messages of events are."""

    instance_id: str


async def order(placed: Placed) -> None: ...


async def listener(started: Started) -> None: ...


@pytest.fixture
async def host(database_url: str, app_name: str) -> AsyncIterator[Host]:
    app = App(app_name)
    app.workflow(start=Placed)(order)
    app.workflow(start=Started)(listener)
    async with running_host(app, database_url, Settings(database_url=database_url)) as host:
        yield host


@pytest.fixture
async def broker(amqp_url: str, app_name: str) -> AsyncIterator[Broker]:
    async with running_broker(amqp_url, app_name) as broker:
        yield broker


def placed(message_id: str) -> Envelope:
    return Envelope(message_id=message_id, type="Placed", key=message_id, body=b'{"key":"%s"}' % message_id.encode())


async def verdicts(host: Host) -> list[tuple[object, ...]]:
    return await host.ask("select message_id, kind, verdict, reason from holdfast.inbox order by message_id")


# Protocol: I23.
async def test_what_is_replayed_into_an_exchange_in_front_of_an_app_is_a_dead_letter(
    host: Host, broker: Broker, app_name: str
) -> None:
    users = f"{app_name}-users"
    async with library(broker.connection) as channel:
        await channel.exchange_declare(users, exchange_type="topic", auto_delete=True)
        await channel.exchange_bind(broker.topology.exchange, users, routing_key="#")
    replayed = await broker.publisher.send(users, "order.Placed", placed("old"), headers=HEADERS)
    assert (await replayed).fate is Fate.CONFIRMED
    assert (await (await broker.publisher.send(users, "order.Placed", placed("new")))).fate is Fate.CONFIRMED
    async with taking_in(host, broker):
        await host.until(lambda: has_verdicts(host, 2))
    assert await verdicts(host) == [
        ("new", "message", "applied", None),
        ("old", "message", "dead_lettered", "replayed"),
    ]
    assert await host.ask("select correlation_key from holdfast.instances") == [("new",)]
    assert await host.ask("select detail from holdfast.inbox where message_id = 'old'") == [(DETAIL,)]


async def test_a_replay_to_an_exchange_in_front_of_an_app_reaches_no_instance(
    host: Host, broker: Broker, database_url: str, amqp_url: str, app_name: str
) -> None:
    users = f"{app_name}-users"
    async with library(broker.connection) as channel:
        await channel.exchange_declare(users, exchange_type="topic", auto_delete=True)
        await channel.exchange_bind(broker.topology.exchange, users, routing_key="#")
    # The app would start a workflow with it, if it came as what happens now.
    instance = await host.deliver(Placed(key="kay"))
    async with Client(database_url, amqp_url, app_name) as client:
        last = await replayed(client, database_url, "july", to_exchange=users)
    async with taking_in(host, broker):
        await host.until(lambda: has_verdicts(host, 1 + last.replay.published))
    found = (await verdicts(host))[:-1]
    assert found == [
        (f"{instance}:{version}", "message", "dead_lettered", "replayed")
        for version in range(1, last.replay.published + 1)
    ]
    assert await host.ask("select count(*) from holdfast.instances") == [(1,)]


async def test_it_cannot_be_requeued(host: Host, broker: Broker, database_url: str, app_name: str) -> None:
    await (await broker.publisher.send(broker.topology.exchange, "", placed("old"), headers=HEADERS))
    async with taking_in(host, broker), Client(database_url, app=app_name) as client:
        await host.until(lambda: has_verdicts(host, 1))
        with pytest.raises(DeadLetterNotFound):
            await client.requeue("old")
        await client.drop("old")
    assert await verdicts(host) == [("old", "message", "rejected", "dropped")]


async def test_what_the_broker_gave_up_on_is_no_less_history(host: Host, broker: Broker) -> None:
    await (await broker.publisher.send(broker.topology.dead, "", placed("old"), headers=HEADERS))
    await (await broker.publisher.send(broker.topology.dead, "", placed("strange")))
    async with taking_in(host, broker):
        await host.until(lambda: has_verdicts(host, 2))
    assert await verdicts(host) == [
        ("old", "message", "dead_lettered", "replayed"),
        ("strange", "message", "dead_lettered", "unknown"),
    ]


async def test_a_request_that_is_history_tells_no_instance_that_its_activity_is_lost(
    database_url: str, amqp_url: str
) -> None:
    app = mailing.app
    async with running_host(app, database_url, Settings()) as host, running_broker(amqp_url, app.name) as broker:
        await host.deliver(mailing.Wanted(key="kay"))
        ((message_id, key, body),) = await host.ask("select message_id, correlation_key, body from holdfast.outbox")
        request = Envelope(message_id=message_id, type=ActivityRequest.message_type, key=key, body=bytes(body))
        await (await broker.publisher.send(broker.topology.dead, "", request, headers=HEADERS))
        async with taking_in(host, broker):
            await host.until(lambda: has_verdicts(host, 2))
        assert (message_id, "message", "dead_lettered", "replayed") in await verdicts(host)
        assert await host.ask("select execution_status from holdfast.instances") == [("idle",)]
        # The request itself, given up, tells it.
        await (await broker.publisher.send(broker.topology.dead, "", replace(request, message_id="given up")))
        async with taking_in(host, broker):
            await host.until(lambda: has_failed(host))


async def test_it_commands_nobody(host: Host, broker: Broker) -> None:
    instance = await host.deliver(Placed(key="kay"))
    body = f'{{"command": "terminate", "by": "history", "instance_id": "{instance}"}}'.encode()
    command = Envelope(message_id="old", type="holdfast.Control", key="", body=body)
    await (await broker.publisher.send("", broker.topology.control, command, headers=HEADERS))
    async with ControlIntake(host.runtime, broker.connection, broker.topology, random=dice()):
        await host.until(lambda: has_verdicts(host, 2))
    assert (await verdicts(host))[1] == ("old", "control", "dead_lettered", "replayed")


@asynccontextmanager
async def taking_in(host: Host, broker: Broker) -> AsyncIterator[None]:
    """Have the host consume its partition and the dead letters, and ack all that came before the end."""
    async with Intake(host.engine, broker.connection, broker.topology, random=dice()) as intake:
        await intake.take(0)
        yield
        await eventually(lambda: not intake.unsettled)


async def has_failed(host: Host) -> bool:
    found = await host.ask("select suspension_exception_name from holdfast.instances")
    return found == [("holdfast.schemas.errors.ActivityLost",)]


async def has_verdicts(host: Host, count: int) -> bool:
    return len(await verdicts(host)) == count
