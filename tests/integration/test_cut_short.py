"""Bursts that are cut short where they are hard to stop: in a thread, in the database, beside others, in a subflow."""

import asyncio
import threading
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from holdfast import App, Client, Message, Transaction, gather, receive, run
from holdfast.processor.services.detection import Detection
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("cut-short")
begun: list[str] = []
released = threading.Event()
stopped: list[str] = []


class Threaded(Message, correlation="key"):
    key: str


class Queried(Threaded): ...


class Gathered(Threaded): ...


class Outer(Threaded): ...


class Inner(Threaded): ...


class Gone(Threaded): ...


@app.activity
def in_a_thread() -> None:
    begun.append("thread")
    released.wait()


@app.activity
async def in_the_database(transaction: Transaction) -> None:
    begun.append("database")
    await transaction.execute("insert into notes values ('lost')")
    await transaction.execute("select pg_sleep(600)")


@app.activity
async def for_ever(name: str) -> None:
    begun.append(name)
    try:
        await asyncio.Event().wait()
    finally:
        stopped.append(name)


@app.workflow(start=Threaded)
async def threaded(start: Threaded) -> None:
    await in_a_thread()
    await receive(Gone, start.key)


@app.workflow(start=Queried)
async def queried(start: Queried) -> None:
    await in_the_database()
    await receive(Gone, start.key)


@app.workflow(start=Gathered)
async def gathered(start: Gathered) -> None:
    await gather(for_ever("one"), for_ever("two"))


@app.workflow(start=Inner, persistence="in_memory")
async def inner(start: Inner) -> None:
    await for_ever("inner")


@app.workflow(start=Outer, persistence="in_memory")
async def outer(start: Outer) -> None:
    await run(inner, Inner(key=f"{start.key}/inner"))


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    begun.clear()
    stopped.clear()
    released.clear()
    async with running_host(app, database_url, Settings()) as host:
        yield host
        released.set()


async def busy(host: Host, message: Message, *names: str) -> UUID:
    """Have an instance begun that does not come to an end of its own, and return it once these activities run."""
    told = asyncio.create_task(host.tell(message))
    while not {*names} <= {*begun}:  # noqa: ASYNC110 - what it looks at sets no event
        await asyncio.sleep(0.01)
    del told
    ((instance_id,),) = await host.ask("select instance_id from holdfast.instances where subflow is null")
    found: UUID = instance_id
    return found


async def ended(host: Host, client: Client, instance_id: UUID) -> None:
    """Terminate an instance, and return once it has ended."""
    command = await client.terminate(instance_id, by="ann")
    await Detection(host.engine).look()
    ask = "select verdict from holdfast.inbox where message_id = %s"
    async with asyncio.timeout(30):
        while await host.ask(ask, command) != [("applied",)]:  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (Threaded(key="k"), ("thread",)),
        (Gathered(key="k"), ("one", "two")),
        (Outer(key="k"), ("inner",)),
    ],
)
async def test_an_instance_ends_at_once_whatever_it_is_in(
    host: Host, database_url: str, message: Message, names: tuple[str, ...]
) -> None:
    async with Client(database_url, app=app.name) as client:
        instance_id = await busy(host, message, *names)
        await ended(host, client, instance_id)
        instance, _ = await client.instance(instance_id)
    assert instance.outcome == "terminated"
    assert sorted(stopped) == ([] if names == ("thread",) else sorted(names))


async def test_a_statement_in_the_database_is_cancelled_and_rolled_back(host: Host, database_url: str) -> None:
    await host.ask("create table notes (note text)")
    async with Client(database_url, app=app.name) as client:
        instance_id = await busy(host, Queried(key="k"), "database")
        await ended(host, client, instance_id)
    assert await host.ask("select note from notes") == []
    running = "select pid from pg_stat_activity where state = 'active' and query = 'select pg_sleep(600)'"
    assert await host.ask(running) == []
