"""Control commands of a client, on Postgres: the events and verdicts that they lead to."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from holdfast import App, Cancelled, Client, CommandRefused, InstanceCompleted, Message, NotSuspended, receive
from holdfast.processor.services.detection import Detection
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("commands")
ran: list[str] = []
failing: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    failing.clear()


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Counted(Begun): ...


class Number(Begun):
    number: int


@app.activity
async def work(what: str) -> None:
    ran.append(what)
    if what in failing:
        raise ValueError(what)


@app.workflow(start=Begun)
async def begun(start: Begun) -> None:
    await work("first")
    try:
        await receive(Came, start.key)
    except Cancelled:
        await work("unwinding")
        raise
    await work("last")


@app.workflow(start=Counted)
async def counted(start: Counted) -> None:
    for _ in range(3):
        came = await receive(Number, start.key)
        await work(f"{came.number}")


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def verdict(host: Host, command: str) -> tuple[str, str | None]:
    """Let a worker take a command up, and return what became of it."""
    await Detection(host.engine).look()
    await host.rest()
    (row,) = await host.ask("select verdict, reason from holdfast.inbox where message_id = %s", command)
    return row[0], row[1]


async def said(host: Host, instance_id: UUID, event: str) -> dict[str, object]:
    """Return what an event of the instance says."""
    ((data,),) = await host.ask(
        "select data from holdfast.events where instance_id = %s and type = %s", instance_id, event
    )
    return {name: data.get(name) for name in ("by", "why", "detail") if name in data}


async def test_suspend_and_resume_leave_who_and_why(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Begun(key="kay"))
    assert await verdict(host, await client.suspend(instance_id, by="ann", why="a mistake")) == ("applied", None)
    assert await said(host, instance_id, "InstanceSuspended") == {"by": "ann", "detail": "a mistake"}
    with pytest.raises(CommandRefused, match="is suspended already"):
        await client.suspend(instance_id, by="ann")
    await host.deliver(Came(key="kay"))
    assert ran == ["first"]
    assert await verdict(host, await client.resume(instance_id, by="bob", why="mended")) == ("applied", None)
    assert await said(host, instance_id, "InstanceResumed") == {"by": "bob", "why": "mended"}
    assert ran == ["first", "last"]


async def test_messages_that_come_for_a_suspended_instance_are_handled_in_order_once_it_is_resumed(
    host: Host, client: Client
) -> None:
    instance_id = await host.deliver(Counted(key="kay"))
    await verdict(host, await client.suspend(instance_id, by="ann"))
    for number, message_id in enumerate(("c", "a", "b")):
        await host.hear(Number(key="kay", number=number).envelope(message_id))
    await Detection(host.engine).look()
    await host.rest()
    assert ran == []
    assert await verdict(host, await client.resume(instance_id, by="ann")) == ("applied", None)
    assert ran == ["0", "1", "2"]


async def test_cancel_unwinds_and_terminate_does_not(host: Host, client: Client) -> None:
    cancelled = await host.deliver(Begun(key="kay"))
    assert await verdict(host, await client.cancel(cancelled, by="ann", why="withdrawn")) == ("applied", None)
    assert ran == ["first", "unwinding"]
    assert await said(host, cancelled, "CancelRequested") == {"by": "ann", "why": "withdrawn"}
    terminated = await host.deliver(Begun(key="kim"))
    assert await verdict(host, await client.terminate(terminated, by="ann")) == ("applied", None)
    assert ran == ["first", "unwinding", "first"]
    assert (await said(host, terminated, "InstanceTerminated"))["by"] == "ann"
    for command in (client.suspend, client.resume, client.cancel, client.terminate):
        with pytest.raises(InstanceCompleted):
            await command(cancelled, by="ann")


@pytest.mark.parametrize("name", ["cancel", "terminate"])
async def test_one_that_was_never_persisted_is_ended_with_its_first_events(
    host: Host, client: Client, name: str
) -> None:
    failing.add("first")
    instance_id = await host.deliver(Begun(key="kay"))
    command = await getattr(client, name)(instance_id, by="ann")
    assert await verdict(host, command) == ("applied", None)
    ((reason, types),) = await host.transactions(instance_id)
    assert reason in ("cancelled", "terminated")
    assert types[0] == "InstanceStarted"
    assert ran == ["first"]


async def test_a_command_is_given_once_until_a_worker_takes_it_up(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Begun(key="kay"))
    command = await client.suspend(instance_id, by="ann")
    with pytest.raises(CommandRefused, match="was asked to suspend before"):
        await client.suspend(instance_id, by="bob")
    with pytest.raises(NotSuspended):
        await client.resume(instance_id, by="ann")
    assert await verdict(host, command) == ("applied", None)


async def test_two_commands_are_obeyed_in_their_order(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Begun(key="kay"))
    suspend = await client.suspend(instance_id, by="ann")
    cancel = await client.cancel(instance_id, by="ann")
    assert await verdict(host, suspend) == ("applied", None)
    assert await verdict(host, cancel) == ("applied", None)
    reasons = [reason for reason, _ in await host.transactions(instance_id)]
    assert reasons[-3:] == ["idle", "suspended", "cancelled"]
