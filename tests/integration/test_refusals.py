"""What a queue gets of an instance when it refuses an event while later ones are on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from holdfast import BrokerError, Client
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.frames import Publishable
from holdfast.processor.broker.publisher import Fate, Publisher, Receipt
from holdfast.processor.broker.topology import Topology
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.services.feed import feed
from holdfast.processor.services.projector import Projector
from holdfast.processor.services.replay import Replayer
from holdfast.processor.store.connections import Connections
from holdfast.schemas.settings import Settings
from tests.support.projections import commit, life, settle
from tests.support.rabbitmq import remove_app, take_all
from tests.support.replays import ids, in_thread, queue


class Full:
    """A queue at the exchange of an app's events that takes one message, until that is taken out of it."""

    def __init__(self, amqp_url: str, app: str) -> None:
        self.versions: list[int] = []
        self._amqp_url = amqp_url
        self._name = f"{app}-full"
        self._exchange = Topology(app).events

    async def make(self, limit: int | None = 1) -> None:
        await queue(self._amqp_url, self._name, exchange=self._exchange, limit=limit)

    async def drain(self, limit: int | None = 1) -> None:
        """Take out what is in it, as a listener does; from now on it has another limit."""
        await self.end()
        await self.make(limit)

    async def end(self) -> None:
        messages = await in_thread(take_all, self._amqp_url, self._name)
        self.versions += [int(str(it).rpartition(":")[2]) for it in ids(messages)]


class Far(Publisher):
    """Hears what became of a page, which ends with version 3, when it has sent all of it.

    A queue that has refused something is drained meanwhile.
    """

    def __init__(self, publisher: Publisher, full: Full) -> None:
        self._publisher = publisher
        self._full = full
        self._on_their_way: list[tuple[asyncio.Future[Receipt], Receipt]] = []
        self._is_near = False

    async def send(self, exchange: str, routing_key: str, message: Publishable, **more: Any) -> asyncio.Future[Receipt]:
        found = await (await self._publisher.send(exchange, routing_key, message, **more))
        if found.fate is not Fate.CONFIRMED:
            await self._full.drain()
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._on_their_way.append((receipt, found))
        self._is_near |= message.message_id.endswith(":3")
        while self._is_near and self._on_their_way:
            waiting, answer = self._on_their_way.pop(0)
            waiting.set_result(answer)
        return receipt


@pytest.fixture
async def full(amqp_url: str, app_name: str) -> AsyncIterator[Full]:
    full = Full(amqp_url, app_name)
    await full.make()
    yield full
    await asyncio.to_thread(remove_app, amqp_url, app_name)


@pytest.fixture
async def far(amqp_url: str, full: Full) -> AsyncIterator[Far]:
    async with Connection(amqp_url, name="far", heartbeat=10, random=Random(1)) as connection:  # noqa: S311 # A test.
        yield Far(Publisher(connection), full)


async def test_the_feed_publishes_the_whole_page_again(database_url: str, app_name: str, full: Full, far: Far) -> None:
    await commit(database_url, life(), app=app_name)
    await settle(database_url)
    projector = Projector([feed(app_name, far)], Settings(database_url=database_url), RealEnvironment())
    with pytest.raises(BrokerError, match=":2 was not published"):
        await projector.catch_up()
    await full.drain(limit=None)
    await projector.catch_up()
    await projector.close()
    await full.end()
    assert full.versions == [1, 3, 1, 2, 3]


async def test_a_replay_publishes_what_was_refused_again_and_nothing_else(
    database_url: str, amqp_url: str, app_name: str, full: Full, far: Far
) -> None:
    await commit(database_url, life(), app=app_name)
    await settle(database_url)
    connections = Connections(database_url, limit=1)
    async with Client(database_url, amqp_url, app_name) as client:
        replay = await client.replays.begin(to_exchange=Topology(app_name).events)
    replayer = Replayer(connections, far, RealEnvironment(), rate=0, patience=30)
    assert [step.replay.published async for step in replayer.run(replay)][-1] == 3
    await connections.close()
    await full.end()
    assert full.versions == [1, 3, 2]
