"""Hosts share the partitions of a real broker: who comes gets its share, who goes leaves it, without a gap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from holdfast.processor.broker.topology import count_consumers
from holdfast.processor.core.sharing import share_of
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.backlogs import LONG_AGO
from holdfast.processor.language.app import App
from holdfast.processor.services.intake import Intake
from holdfast.processor.services.sharing import Sharing
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from tests.support.broker import PATIENCE, Broker, connect, dice, eventually, message, running_broker

PARTITIONS = 4


class SharingHost:
    """A host of a simulated world that consumes from a real broker, on a connection of its own."""

    def __init__(self, host: SimulatedHost, intake: Intake, sharing: Sharing) -> None:
        self.host = host
        self.host_id = host.runtime.host_id
        self.engine = host.engine
        self.intake = intake
        self.sharing = sharing

    async def look(self) -> None:
        """Look once, and wait until what it takes is consumed."""
        await self.sharing.look()
        await eventually(lambda: self.intake.consumed.keys() == self.intake.taken)


@asynccontextmanager
async def sharing_host(
    world: World, broker: Broker, url: str, again: SimulatedHost | None = None
) -> AsyncIterator[SharingHost]:
    async with connect(url) as connection:
        host = again or await world.host()
        intake = Intake(host.engine, connection, broker.topology, random=dice())
        async with intake:
            yield SharingHost(host, intake, Sharing(host.engine, intake, connection, broker.topology))


async def settle(world: World, *hosts: SharingHost) -> None:
    """Have the hosts look until each consumes what it owns, and no more."""
    everybody = [host.host_id for host in hosts]

    def is_settled() -> bool:
        return all(h.intake.taken == share_of(h.host_id, everybody, PARTITIONS).owned for h in hosts)

    while not is_settled() or any(h.sharing._handing_over for h in hosts):
        await world.advance(1)
        for host in hosts:
            await host.look()


async def test_a_host_that_comes_gets_its_share_and_one_that_goes_leaves_it(amqp_url: str, app_name: str) -> None:
    world = World(App(app_name))
    async with running_broker(amqp_url, app_name, PARTITIONS) as broker, AsyncExitStack() as others:
        first = await others.enter_async_context(sharing_host(world, broker, amqp_url))
        await first.look()
        assert sorted(first.intake.consumed) == [0, 1, 2, 3]
        async with sharing_host(world, broker, amqp_url) as second:
            await settle(world, first, second)
            assert sorted(map(len, (first.intake.consumed, second.intake.consumed))) == [2, 2]
            assert sorted({**first.intake.consumed, **second.intake.consumed}) == [0, 1, 2, 3]
        await world.store.close_host(second.host_id)
        await settle(world, first)
        assert sorted(first.intake.consumed) == [0, 1, 2, 3]


async def test_who_was_relieved_goes_only_once_the_owner_consumes(amqp_url: str, app_name: str) -> None:
    world = World(App(app_name))
    async with (
        running_broker(amqp_url, app_name, PARTITIONS) as broker,
        sharing_host(world, broker, amqp_url) as first,
    ):
        await first.look()
        async with sharing_host(world, broker, amqp_url) as second:
            await world.advance(1)
            await first.look()
            assert sorted(first.intake.taken) == [0, 1, 2, 3]
            await second.look()
            assert sorted(first.intake.taken) == [0, 1, 2, 3]
            await settle(world, first, second)
        left = {number: int(number in first.intake.taken) for number in range(PARTITIONS)}
        # The broker may say that a channel is closed before it counts its consumer no more.
        async with asyncio.timeout(PATIENCE):
            while await count_consumers(broker.connection, broker.topology, range(PARTITIONS)) != left:
                pass


async def test_the_deputy_stands_in_for_an_owner_whose_connection_is_gone_though_its_lease_lives(
    amqp_url: str, app_name: str
) -> None:
    world = World(App(app_name))
    async with running_broker(amqp_url, app_name, PARTITIONS) as broker, sharing_host(world, broker, amqp_url) as first:
        await first.look()
        async with sharing_host(world, broker, amqp_url) as second:
            await settle(world, first, second)
            lost = second.intake.taken
        # The broker may say that a channel is closed before it counts its consumer no more.
        while any((await count_consumers(broker.connection, broker.topology, lost)).values()):
            pass
        await first.look()
        assert not first.intake.taken & lost
        await world.advance(world.settings.lease / 20)
        await first.look()
        assert first.intake.taken >= lost
        # The owner has last spoken before that, so nobody relieves the deputy.
        await first.look()
        assert sorted(first.intake.consumed) == [0, 1, 2, 3]
        async with sharing_host(world, broker, amqp_url, second.host) as second:
            await settle(world, first, second)
            assert second.intake.taken == lost


async def test_messages_of_a_partition_that_is_handed_over_come_to_its_new_owner_in_order(
    amqp_url: str, app_name: str
) -> None:
    world = World(App(app_name))
    async with running_broker(amqp_url, app_name) as broker, AsyncExitStack() as stack:
        seen: dict[str, list[str]] = {}

        async def host(name: str) -> SharingHost:
            each = await stack.enter_async_context(sharing_host(world, broker, amqp_url))
            seen[name] = []
            each.engine.deliver = lambda arrival: seen[name].append(arrival.envelope.message_id)  # type: ignore[method-assign] # nothing is settled
            return each

        old = await host("old")
        await old.look()
        await broker.publish(message(number) for number in range(50))
        await eventually(lambda: len(seen["old"]) == 50)
        new = await host("new")
        await new.intake.take(0)
        await eventually(lambda: 0 in new.intake.consumed)
        assert seen["new"] == []
        assert await old.intake.leave(0)
        await eventually(lambda: len(seen["new"]) == 50)
        assert seen["new"] == [f"m-{number}" for number in range(50)]


async def test_timers_wait_until_all_that_a_host_found_in_its_partition_is_settled(
    amqp_url: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(App(app_name))
    async with running_broker(amqp_url, app_name) as broker, AsyncExitStack() as stack:
        await broker.publish(message(number) for number in range(30))
        host = await stack.enter_async_context(sharing_host(world, broker, amqp_url))
        found: list[Arrival] = []
        monkeypatch.setattr(host.engine, "deliver", found.append)
        await host.look()
        await host.look()
        await eventually(lambda: len(found) == 30)
        assert {arrival.received_at for arrival in found} == {LONG_AGO}
        for arrival in found[1:]:
            arrival.settle()
        await world.advance(1)
        assert host.engine.backlogs.held_back == [0]
        found[0].settle()
        while host.engine.backlogs.held_back:
            await world.advance(1)
        await broker.publish([message(30)])
        await eventually(lambda: len(found) == 31)
        assert found[-1].received_at == host.engine.runtime.now()


async def test_timers_wait_as_long_as_another_host_may_have_messages_of_the_partition(
    amqp_url: str, app_name: str
) -> None:
    world = World(App(app_name))
    async with running_broker(amqp_url, app_name, PARTITIONS) as broker, AsyncExitStack() as stack:
        old = await stack.enter_async_context(sharing_host(world, broker, amqp_url))
        await old.look()
        await old.look()
        new = await stack.enter_async_context(sharing_host(world, broker, amqp_url))
        await new.look()
        await new.look()
        await world.advance(1)
        assert new.engine.backlogs.held_back == [0, 1, 2, 3]
        await settle(world, old, new)
        while new.engine.backlogs.held_back == [0, 1, 2, 3]:
            await new.look()
            await world.advance(1)
        assert not set(new.engine.backlogs.held_back) & new.intake.taken
