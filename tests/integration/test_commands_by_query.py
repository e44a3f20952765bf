"""A command for all that a query finds reaches those and no others."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast import App, Client, Message, receive
from holdfast.schemas.control import Command
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("query")


class Opened(Message, correlation="key"):
    key: str
    region: str
    amount: int


class Broken(Message, correlation="key"):
    key: str


class Done(Message, correlation="key"):
    key: str


@app.workflow(start=Opened, promote=("region", "amount"))
async def claim(opened: Opened) -> None:
    region, amount = opened.region, opened.amount  # noqa: F841  They are for queries.
    await receive(Done, opened.key)


@app.workflow(start=Broken)
async def broken(opened: Broken) -> None:
    raise ValueError(opened.key)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host


@pytest.fixture
async def claims(host: Host, database_url: str) -> dict[str, UUID]:
    """Four instances by key; `old` was registered two hours ago, `never` was not persisted."""
    opened = [("north", "north", 1), ("old", "north", 2), ("south", "south", 1)]
    found = {key: await host.deliver(Opened(key=key, region=region, amount=amount)) for key, region, amount in opened}
    found["never"] = await host.deliver(Broken(key="never"))
    await host.ask(
        "update holdfast.instance_rows set creation_time = creation_time - interval '2 hours' where instance_id = %s"
        " returning 1",
        found["old"],
    )
    return found


@pytest.mark.parametrize(
    ("criteria", "meant"),
    [
        ({"promoted": {"region": "north"}}, {"north", "old"}),
        ({"promoted": {"region": "north", "amount": 2}}, {"old"}),
        ({"promoted": {"amount": "1"}}, set()),
        ({"older_than": timedelta(hours=1)}, {"old"}),
        ({"workflow": "claim", "older_than": timedelta(0)}, {"north", "old", "south"}),
        ({"correlation_key": "south"}, {"south"}),
        ({"is_initialized": False}, {"never"}),
        ({"is_suspended": True}, {"never"}),
    ],
)
async def test_a_command_reaches_those_that_a_query_finds(
    host: Host, claims: dict[str, UUID], database_url: str, criteria: dict[str, Any], meant: set[str]
) -> None:
    command = Command(command="terminate", by="tester", why="all of these")
    async with Client(database_url, app=app.name) as client:
        given = [each async for each in client.command_all(command, "once", **criteria)]
        assert {each.instance_id for each in given} == {claims[key] for key in meant}
        assert all(each.refusal is None for each in given)
        # Given again under the same id, it is given to nobody twice.
        assert [each.command async for each in client.command_all(command, "once", **criteria)] == [
            each.command for each in given
        ]
    await host.look()
    closed = await host.ask("select instance_id from holdfast.instances where outcome = 'terminated'")
    assert {instance_id for (instance_id,) in closed} == {claims[key] for key in meant}
    commands = await host.ask("select count(*) from holdfast.inbox where kind = 'control' and verdict = 'applied'")
    assert commands == [(len(meant),)]
