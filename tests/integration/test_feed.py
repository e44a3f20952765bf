"""The event feed: what was committed is published, in order for each instance, under ids to deduplicate by."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from psycopg import AsyncConnection

from holdfast import BrokerError, Client, ProjectionStopped
from holdfast.events.types import InstanceCompleted
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Fate, Publisher, Receipt
from holdfast.processor.broker.topology import Topology, declare_events
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.services.feed import NAME, feed
from holdfast.processor.services.projector import Projector
from holdfast.processor.store.unit_of_work import Handle
from holdfast.projections import builds, subscription
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Build
from holdfast.schemas.settings import Settings
from tests.support.projections import commit, life, settle, start, write
from tests.support.rabbitmq import bind_out, remove_app, take_all
from tests.support.replays import queue


@pytest.fixture
async def publisher(amqp_url: str, app_name: str) -> AsyncIterator[Publisher]:
    async with Connection(amqp_url, name="feed", heartbeat=10, random=Random(1)) as connection:  # noqa: S311 # A test.
        await declare_events(connection, Topology(app_name))
        yield Publisher(connection)
    await asyncio.to_thread(remove_app, amqp_url, app_name)


async def catch_up(url: str, it: Subscription) -> None:
    await settle(url)
    projector = Projector([it], Settings(database_url=url), RealEnvironment())
    try:
        with suppress(ProjectionStopped):
            await projector.catch_up()
    finally:
        await projector.close()


async def bind(amqp_url: str, app_name: str) -> str:
    name = f"{app_name}-heard"
    await asyncio.to_thread(bind_out, amqp_url, app_name, name, "events")
    return name


async def heard(amqp_url: str, name: str) -> list[DeliveredMessage]:
    return await asyncio.to_thread(take_all, amqp_url, name)


def ids(messages: list[DeliveredMessage]) -> list[str | None]:
    return [message.header.properties.message_id for message in messages]


async def test_events_are_published_as_documented(
    database_url: str, amqp_url: str, app_name: str, publisher: Publisher
) -> None:
    name = await bind(amqp_url, app_name)
    (instance,) = await commit(database_url, life("order", "done"), app=app_name)
    await commit(database_url, life("elsewhere"), app="another")
    await catch_up(database_url, feed(app_name, publisher))
    messages = await heard(amqp_url, name)
    assert ids(messages) == [f"{instance}:1", f"{instance}:2", f"{instance}:3"]
    assert [getattr(message.delivery, "routing_key", None) for message in messages] == [
        "order.InstanceStarted",
        "order.Persisted",
        "order.InstanceCompleted",
    ]
    last = messages[-1]
    assert last.header.properties.message_type == "InstanceCompleted"
    assert last.header.properties.correlation_id == str(instance)
    assert last.header.properties.delivery_mode == 2
    async with Client(database_url, app=app_name) as client:
        (lag,) = await client.projections.lag()
    body = json.loads(last.body)
    assert body.pop("recorded_at")
    assert body.pop("cursor") < lag.cursor
    assert body == {
        "instance_id": str(instance),
        "version": 3,
        "type": "InstanceCompleted",
        "app": app_name,
        "workflow": "order",
        "data": {"result": "done"},
        "metadata": {"app": app_name},
    }
    assert (lag.name, lag.events_behind, lag.schema_name) == (NAME, 0, None)


async def test_a_process_that_dies_after_publishing_leaves_the_page_to_the_next_one(
    database_url: str, amqp_url: str, app_name: str, publisher: Publisher
) -> None:
    name = await bind(amqp_url, app_name)
    it = feed(app_name, publisher)
    instances = await commit(database_url, life(), life(), life(), app=app_name)
    await settle(database_url)
    async with await AsyncConnection.connect(database_url) as dying:
        await builds.register(dying, it)
        await dying.commit()
        page = await subscription.advance(dying, Build(it, "live"), Handle(dying))
        assert page is not None
        assert len(page.events) == 9
        await dying.close()  # Everything is confirmed, and nothing committed.
    await commit(database_url, [start()], app=app_name)
    await catch_up(database_url, it)
    messages = ids(await heard(amqp_url, name))
    assert messages[:9] == messages[9:18]
    assert len(messages) == 19
    once = list(dict.fromkeys(messages))
    for instance in instances:
        assert [it for it in once if str(it).startswith(str(instance))] == [f"{instance}:{v}" for v in (1, 2, 3)]


class Looking(Publisher):
    """Takes everything, and looks at what the server's processes hold back meanwhile."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: set[tuple[Any, ...]] = set()

    async def send(self, *given: Any, **more: Any) -> asyncio.Future[Receipt]:
        async with await AsyncConnection.connect(self.url, autocommit=True) as observer:
            cursor = await observer.execute(
                "select state, backend_xid, backend_xmin from pg_stat_activity where application_name = 'holdfast feed'"
            )
            self.seen |= {*await cursor.fetchall()}
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        receipt.set_result(Receipt(Fate.CONFIRMED))
        return receipt


async def test_while_a_page_is_published_the_feed_holds_nobodys_horizon_back(database_url: str, app_name: str) -> None:
    looking = Looking(database_url)
    await commit(database_url, life(), life(), app=app_name)
    await catch_up(database_url, feed(app_name, looking))
    assert looking.seen == {("idle in transaction", None, None)}


async def test_events_that_nobody_wants_are_passed(database_url: str, app_name: str, publisher: Publisher) -> None:
    await commit(database_url, life(), app=app_name)
    await catch_up(database_url, feed(app_name, publisher))
    async with Client(database_url, app=app_name) as client:
        (lag,) = await client.projections.lag()
    assert (lag.status, lag.events_behind, lag.handled) == ("running", 0, 3)


class Refusing(Publisher):
    """Publishes what it is given to a broker that takes only so many more."""

    def __init__(self, takes: int) -> None:
        self.takes = takes

    async def send(self, *given: Any, **more: Any) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.takes -= 1
        receipt.set_result(Receipt(Fate.CONFIRMED) if self.takes >= 0 else Receipt(Fate.FAILED, "it is full"))
        return receipt


async def test_what_the_broker_does_not_confirm_is_published_again(database_url: str, app_name: str) -> None:
    await commit(database_url, life(), app=app_name)
    refusing = Refusing(takes=2)
    it = feed(app_name, refusing)
    with pytest.raises(BrokerError, match=r":3 was not published: it is full"):
        await catch_up(database_url, it)
    async with Client(database_url, app=app_name) as client:
        (lag,) = await client.projections.lag()
        assert (lag.status, lag.events_behind) == ("running", 3)
        assert lag.error is not None
        assert "it is full" in lag.error
        refusing.takes = 3
        await catch_up(database_url, it)
        (lag,) = await client.projections.lag()
        assert (lag.events_behind, lag.error) == (0, None)


async def test_after_a_refusal_all_of_the_page_is_heard_in_order(
    database_url: str, amqp_url: str, app_name: str, publisher: Publisher
) -> None:
    name, exchange = f"{app_name}-heard", Topology(app_name).events
    await queue(amqp_url, name, exchange=exchange, limit=3)
    async with await AsyncConnection.connect(database_url) as connection:
        both = await write(connection, [[start()], [start()]], app_name)
        for event in life()[1:]:
            for instance in both:
                await write(connection, [[event]], app_name, instance)
    it = feed(app_name, publisher)
    with pytest.raises(BrokerError, match=r":2 was not published"):
        await catch_up(database_url, it)
    everything = [f"{instance}:{version}" for version in (1, 2, 3) for instance in both]
    assert ids(await heard(amqp_url, name)) == everything[:3]
    await queue(amqp_url, name, exchange=exchange)
    await catch_up(database_url, it)
    assert ids(await heard(amqp_url, name)) == everything


async def test_an_event_that_the_broker_can_never_take_stops_the_feed(
    database_url: str, app_name: str, publisher: Publisher
) -> None:
    await commit(database_url, life("order", "x" * (17 << 20)), [InstanceCompleted(result=1)], app=app_name)
    await catch_up(database_url, feed(app_name, publisher))
    async with Client(database_url, app=app_name) as client:
        (lag,) = await client.projections.lag()
        assert (lag.status, lag.handled, lag.failed_version) == ("stopped", 2, 3)
        await client.projections.skip(NAME)
        await catch_up(database_url, feed(app_name, publisher))
        (lag,) = await client.projections.lag()
        assert (lag.status, lag.handled, lag.skipped, lag.events_behind) == ("running", 3, 1, 0)
