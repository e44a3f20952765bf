"""An app's exchanges and queues on a real broker."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from compose.local.rabbitmq import RabbitMQ, find_server
from compose.local.services import Services
from holdfast.processor.broker import topology
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, declare, declare_at_last
from holdfast.schemas.errors import BrokerError
from tests.support.broker import PATIENCE, connect, library, message, remove, running_broker
from tests.support.wire import wire_to_rabbitmq


async def test_declaring_again_changes_nothing(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name, 4) as broker:
        await broker.publish(message(n, key=f"k-{n}") for n in range(100))
        before = [await broker.waiting(queue) for queue in broker.topology.queues]
        await declare(broker.connection, broker.topology)
        await broker.publish(message(n, key=f"k-{n}", prefix="again") for n in range(100))
        after = [await broker.waiting(queue) for queue in broker.topology.queues]
    assert after == [2 * count for count in before]
    assert sum(before) == 100


async def test_keys_spread_evenly_over_partitions(amqp_url: str, app_name: str) -> None:
    async with running_broker(amqp_url, app_name, 8) as broker:
        await broker.publish(message(n, key=f"order-{n}") for n in range(4000))
        counts = [await broker.waiting(queue) for queue in broker.topology.queues]
    assert sum(counts) == 4000
    assert all(400 < count < 600 for count in counts)


async def test_every_key_keeps_its_partition_when_the_broker_restarts(own_services: Services, app_name: str) -> None:
    node = own_services.rabbitmq
    assert node is not None
    # A node that recovers bindings side by side mixes up about one of twelve.
    async with AsyncExitStack() as closing:
        apps = [
            await closing.enter_async_context(running_broker(own_services.amqp_url, f"{app_name}-{number}", 4))
            for number in range(15)
        ]
        counts = []
        for time in ("before", "after"):
            for app in apps:
                await app.publish(message(n, key=f"k-{n}", prefix=time) for n in range(20))
            counts.append([[await app.waiting(queue) for queue in app.topology.queues] for app in apps])
            if time == "before":
                await asyncio.to_thread(node.stop, "orderly")
                await asyncio.to_thread(node.start)
    before, after = counts
    assert after == [[2 * count for count in queues] for queues in before]


async def test_what_a_broken_connection_interrupts_is_declared_in_the_end(
    amqp_url: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Topology(app_name, 2)
    async with wire_to_rabbitmq(amqp_url) as (wire, url), connect(url) as connection, connect(amqp_url) as other:
        bind, cuts = topology._bind, 3

        async def cut_and_bind(connection: Connection, topology: Topology) -> None:
            nonlocal cuts
            if cuts:
                cuts -= 1
                wire.cut()
            await bind(connection, topology)

        monkeypatch.setattr(topology, "_bind", cut_and_bind)
        try:
            await asyncio.wait_for(declare_at_last(connection, wanted), PATIENCE)
            assert not cuts
            await declare(other, wanted)
        finally:
            await remove(other, wanted)


async def test_workers_may_declare_at_the_same_time(amqp_url: str, app_name: str) -> None:
    topology = Topology(app_name, 4)
    async with connect(amqp_url) as one, connect(amqp_url) as two:
        try:
            await asyncio.gather(*(declare(connection, topology) for connection in (one, two) * 3))
        finally:
            await remove(one, topology)


async def test_of_workers_that_disagree_only_one_kind_gets_its_way(amqp_url: str, app_name: str) -> None:
    wishes = [Topology(app_name, count) for count in (2, 3, 2, 3)]
    async with connect(amqp_url) as connection:
        try:
            outcomes = await asyncio.gather(*(declare(connection, wish) for wish in wishes), return_exceptions=True)
        finally:
            await remove(connection, Topology(app_name, 3))
    refused = [isinstance(outcome, BrokerError) for outcome in outcomes]
    assert refused in ([True, False, True, False], [False, True, False, True])


@pytest.mark.parametrize(("existing", "wanted"), [(1, 3), (3, 1), (2, 3), (3, 2)])
async def test_another_number_of_partitions_is_refused_and_nothing_changes(
    amqp_url: str, app_name: str, existing: int, wanted: int
) -> None:
    async with running_broker(amqp_url, app_name, existing) as broker:
        with pytest.raises(BrokerError, match=f"has {existing} partitions .* but {wanted} are asked for"):
            await declare(broker.connection, Topology(app_name, wanted))
        await broker.publish(message(n, key=f"k-{n}") for n in range(30))
        assert sum([await broker.waiting(queue) for queue in broker.topology.queues]) == 30


async def test_a_queue_of_the_same_name_that_differs_is_refused(amqp_url: str, app_name: str) -> None:
    topology = Topology(app_name)
    async with connect(amqp_url) as connection:
        async with library(connection) as channel:
            await channel.queue_declare(topology.queue(0), durable=True)
        try:
            with pytest.raises(BrokerError, match="inequivalent arg"):
                await declare(connection, topology)
        finally:
            await remove(connection, topology)


async def test_a_broker_without_the_plugin_serves_one_partition_and_says_what_more_take(app_name: str) -> None:
    server = find_server()
    if server is None:
        pytest.skip("no rabbitmq-server is installed, whose plugins could be chosen")
    node = RabbitMQ(server)
    try:
        (node._node.folder / "enabled_plugins").write_text("[].\n")
        await asyncio.to_thread(node.start)
        async with connect(node.url) as connection:
            with pytest.raises(BrokerError, match="rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"):
                await declare(connection, Topology(app_name, 2))
            await declare(connection, Topology(app_name, 1))
    finally:
        await asyncio.to_thread(node.close)
