"""Two hosts on one Postgres that hear of the same instance."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast import App, Message, receive
from holdfast.processor.services.detection import Detection
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres

app = App("two-hosts")


class Gate:
    """Holds up the first call of the activity until the test opens it; the others go through."""

    def __init__(self) -> None:
        self.calls = 0
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def enter(self) -> None:
        self.calls += 1
        self.reached.set()
        if self.calls == 1:
            await self.opened.wait()


gates: dict[str, Gate] = {}


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


@app.activity
async def pass_gate(key: str) -> str:
    await gates[key].enter()
    return key


@app.workflow(start=Asked)
async def ask(asked: Asked) -> str:
    key = await pass_gate(asked.key)
    await receive(Answered, key)
    return key


@pytest.fixture
async def hosts(database_url: str) -> AsyncIterator[tuple[Host, Host]]:
    settings = Settings()
    async with running_host(app, database_url, settings) as here, running_host(app, database_url, settings) as there:
        yield here, there


@pytest.fixture
def gate() -> Gate:
    gates["k"] = Gate()
    return gates["k"]


async def applied_by(host: Host) -> list[str]:
    """Return the hosts that wrote the events, in the order of their first."""
    rows = await host.ask("select metadata ->> 'host' from holdfast.events group by 1 order by min(version)")
    return [writer for (writer,) in rows]


async def is_completed(host: Host) -> bool:
    ((completed,),) = await host.ask("select is_completed from holdfast.instances")
    return bool(completed)


async def test_a_message_that_another_host_stored_before_the_bookmark_opened_is_found(
    hosts: tuple[Host, Host], gate: Gate
) -> None:
    here, there = hosts
    asking = asyncio.create_task(here.deliver(Asked(key="k")))
    await gate.reached.wait()
    await there.deliver(Answered(key="k"))
    assert await here.ask("select verdict from holdfast.inbox") == [("buffered",)]
    gate.opened.set()
    await asking
    assert await is_completed(here)
    assert await applied_by(here) == [str(here.runtime.host_id)]


async def test_a_message_that_another_host_stores_for_an_open_bookmark_is_found_by_its_holder(
    hosts: tuple[Host, Host], gate: Gate
) -> None:
    here, there = hosts
    gate.opened.set()
    await here.deliver(Asked(key="k"))
    await there.deliver(Answered(key="k"))
    assert not await is_completed(here)
    await Detection(there.engine).look()
    await there.rest()
    assert not await is_completed(here)
    await Detection(here.engine).look()
    await here.rest()
    assert await is_completed(here)
    assert await applied_by(here) == [str(here.runtime.host_id)]


# Protocol: D2, I2.
async def test_a_host_that_slept_through_its_lease_commits_nothing_of_what_another_has_done_meanwhile(
    hosts: tuple[Host, Host], gate: Gate, database_url: str
) -> None:
    here, there = hosts
    asking = asyncio.create_task(here.deliver(Asked(key="k")))
    await gate.reached.wait()
    await BehindPostgres(database_url).lapse(here.runtime.host_id)
    instance_id = await there.deliver(Asked(key="k"))
    begun = [("idle", ["InstanceStarted", "ActivityCompleted", "BookmarkOpened"])]
    assert await there.transactions(instance_id) == begun
    gate.opened.set()
    await asking
    assert not await here.runtime.provider.renew_host(here.runtime.host_id)
    assert here.engine.held == {}
    await there.deliver(Answered(key="k"))
    assert await there.transactions(instance_id) == [*begun, ("completed", ["MessageReceived", "InstanceCompleted"])]
    assert await applied_by(there) == [str(there.runtime.host_id)]
    assert gate.calls == 2
