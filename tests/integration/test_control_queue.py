"""The control queue: commands that come as messages, on RabbitMQ and Postgres."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiormq
import pytest
from pamqp.commands import Basic

from holdfast import App, Message, receive
from holdfast.processor.services.control_intake import ControlIntake
from holdfast.schemas.settings import Settings
from tests.support.broker import PATIENCE, Broker, dice, running_broker
from tests.support.hosts import Host, running_host

ABSENT = "0199c1a2-0000-7000-8000-000000000000"


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Passed(Begun): ...


async def begun(start: Begun) -> None:
    await receive(Came, start.key)


async def passed(start: Passed) -> None:
    await receive(Came, start.key)


@dataclass
class World:
    """A host, its broker, and the control queue between them."""

    host: Host
    broker: Broker
    amqp_url: str

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[ControlIntake]:
        """Have the control queue taken in."""
        intake = ControlIntake(self.host.runtime, self.broker.connection, self.broker.topology, random=dice())
        async with intake:
            yield intake

    async def ask(self, body: object, message_id: str = "c-1") -> None:
        """Put a message into the control queue."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = Basic.Properties(delivery_mode=2, message_id=message_id)
        connection = await aiormq.connect(self.amqp_url)
        try:
            channel = await connection.channel()
            await channel.basic_publish(data, routing_key=self.broker.topology.control, properties=properties)
        finally:
            await connection.close()

    async def row(self, message_id: str = "c-1") -> dict[str, Any]:
        """Return the row of the inbox that a message led to, once it is there and the message is acked."""
        async with asyncio.timeout(PATIENCE):
            while True:
                rows = await self.host.ask(
                    "select to_jsonb(m) - 'body' - 'digest' from holdfast.inbox m where message_id = %s", message_id
                )
                if rows and not await self.broker.waiting(self.broker.topology.control):
                    row: dict[str, Any] = rows[0][0]
                    return row

    async def commands(self, instance_id: UUID) -> int:
        """Return how many commands an instance was given."""
        ((count,),) = await self.host.ask(
            "select count(*) from holdfast.inbox where kind = 'control' and instance_id = %s", instance_id
        )
        return int(count)


@pytest.fixture
async def world(database_url: str, amqp_url: str, app_name: str) -> AsyncIterator[World]:
    app = App(app_name)
    app.workflow(start=Begun)(begun)
    app.workflow(start=Passed, on_completion="delete")(passed)
    async with (
        running_broker(amqp_url, app_name) as broker,
        running_host(app, database_url, Settings(database_url=database_url)) as host,
    ):
        yield World(host, broker, amqp_url)


async def test_a_message_becomes_a_command(world: World) -> None:
    instance_id = await world.host.deliver(Begun(key="kay"))
    async with world.intake():
        await world.ask({"command": "suspend", "instance_id": str(instance_id), "by": "ops desk", "why": "audit"})
        row = await world.row()
    assert (row["verdict"], row["kind"], row["instance_id"]) == ("buffered", "control", str(instance_id))
    await world.host.look()
    assert (await world.row())["verdict"] == "applied"
    ((said,),) = await world.host.ask("select data from holdfast.events where type = 'InstanceSuspended'")
    assert (said["by"], said["detail"]) == ("ops desk", "audit")


async def test_a_message_that_comes_twice_gives_one_command(world: World) -> None:
    instance_id = await world.host.deliver(Begun(key="kay"))
    body = {"command": "persist", "instance_id": str(instance_id), "by": "ops desk"}
    async with world.intake():
        for _ in range(2):
            await world.ask(body)
            await world.row()
            await world.host.look()
        await world.ask(body, "c-2")
        assert (await world.row("c-2"))["verdict"] == "buffered"
    assert await world.commands(instance_id) == 2


async def test_a_query_gives_each_instance_a_command_of_its_own(world: World) -> None:
    instances = [await world.host.deliver(Begun(key=key)) for key in ("a", "b", "c")]
    body = {"command": "suspend", "where": {"workflow": "begun"}, "by": "ops desk"}
    async with world.intake():
        await world.ask(body)
        assert (await world.row())["detail"] == "3 instances asked, 0 refused"
        await world.host.look()
        later = await world.host.deliver(Begun(key="d"))
        await world.ask(body)
        await world.ask({"command": "suspend", "where": {"workflow": "begun"}, "by": "another"}, "c-2")
        assert (await world.row("c-2"))["detail"] == "1 instances asked, 3 refused"
    assert [await world.commands(instance_id) for instance_id in (*instances, later)] == [1, 1, 1, 1]
    states = await world.host.ask("select is_suspended from holdfast.instances order by creation_time")
    assert states == [(True,), (True,), (True,), (False,)]


async def test_what_makes_no_sense_is_rejected(world: World) -> None:
    instance_id = await world.host.deliver(Begun(key="kay"))
    async with world.intake():
        await world.ask({"command": "resume", "instance_id": str(instance_id), "by": "ops desk"})
        row = await world.row()
        assert (row["verdict"], row["reason"]) == ("rejected", "not_applicable")
        assert row["detail"] == f"instance {instance_id} is not suspended"
        await world.ask({"command": "terminate", "instance_id": str(instance_id), "by": "ops desk"}, "c-2")
        await world.row("c-2")
        await world.host.look()
        await world.ask({"command": "cancel", "instance_id": str(instance_id), "by": "ops desk"}, "c-3")
        row = await world.row("c-3")
    assert (row["verdict"], row["reason"]) == ("rejected", "completed")


async def test_a_command_for_an_instance_that_was_deleted_as_it_closed_comes_too_late(world: World) -> None:
    instance_id = await world.host.deliver(Passed(key="kay"))
    await world.host.tell(Came(key="kay"))
    assert await world.host.ask("select 1 from holdfast.instances") == []
    async with world.intake():
        await world.ask({"command": "cancel", "instance_id": str(instance_id), "by": "ops desk"})
        row = await world.row()
    assert (row["verdict"], row["reason"], row["kind"]) == ("rejected", "completed", "control")


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (b"suspend!", "not_json", ""),
        ({"command": "dance", "instance_id": ABSENT, "by": "me"}, "invalid_body", "command: "),
        ({"command": "suspend", "instance_id": ABSENT}, "invalid_body", "by: Field required"),
        ({"command": "suspend", "instance_id": ABSENT, "by": "me", "when": "now"}, "invalid_body", "when: "),
        ({"command": "suspend", "by": "me"}, "invalid_body", "either instance_id or where"),
        ({"command": "suspend", "by": "me", "where": {}}, "invalid_body", "say what is meant"),
        ({"command": "suspend", "by": "me", "where": {"promoted": {}}}, "invalid_body", "where.promoted: "),
        ({"command": "suspend", "by": "me", "where": {"colour": "red"}}, "invalid_body", "where.colour: "),
        ({"command": "resolve", "instance_id": ABSENT, "by": "me"}, "invalid_body", "takes a decision"),
        ({"command": "suspend", "instance_id": ABSENT, "by": "me"}, "unknown_instance", "has no instance"),
    ],
)
async def test_what_cannot_be_understood_is_a_dead_letter(world: World, body: object, reason: str, detail: str) -> None:
    async with world.intake():
        await world.ask(body)
        row = await world.row()
    assert (row["verdict"], row["reason"], row["kind"]) == ("dead_lettered", reason, "control")
    assert detail in row["detail"]


async def test_a_message_with_the_id_of_another_is_a_dead_letter(world: World) -> None:
    instance_id = await world.host.deliver(Begun(key="kay"))
    async with world.intake():
        for message_id in ("Begun/kay", "c-1"):
            await world.ask({"command": "suspend", "instance_id": str(instance_id), "by": "me"}, message_id)
        await world.row()
    assert await world.host.ask("select reason from holdfast.inbox where verdict = 'dead_lettered'") == [
        ("message_id_reused",)
    ]
    assert await world.commands(instance_id) == 1


async def test_another_host_takes_over_from_the_one_that_took_the_queue_in(world: World) -> None:
    instance_id = await world.host.deliver(Begun(key="kay"))
    async with world.intake() as second:
        async with world.intake():
            await world.ask({"command": "persist", "instance_id": str(instance_id), "by": "me"})
            await world.row()
        await world.host.look()
        await world.ask({"command": "unload", "instance_id": str(instance_id), "by": "me"}, "c-2")
        assert (await world.row("c-2"))["verdict"] == "buffered"
        assert second is not None
