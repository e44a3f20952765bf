"""Activities, waits and routines side by side, on Postgres, across hosts."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from holdfast import App, Message, Transaction, gather, receive, routine
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("gathering")
ran: list[str] = []


class Begun(Message, correlation="key"):
    key: str


class Came(Begun): ...


class Went(Begun): ...


@app.activity
async def think(note: str) -> str:
    ran.append(note)
    return note


@app.activity
async def book(tx: Transaction, note: str) -> str:
    await tx.execute("insert into bookings values (%s)", (note,))
    return note


@routine
async def follow(key: str) -> str:
    await think("before")
    went = await receive(Went, key)
    await book(f"{went.key} went")
    return await think("after")


@app.workflow(start=Begun)
async def gatherer(begun: Begun) -> list[str]:
    thought, booked, came, followed = await gather(
        think("beside"), book("beside"), receive(Came, begun.key), follow(begun.key)
    )
    return [thought, booked, came.key, followed]


Hosts = Callable[[], AbstractAsyncContextManager[Host]]


@pytest.fixture
def hosts(database_url: str) -> Hosts:
    ran.clear()
    return partial(running_host, app, database_url, Settings())


async def test_what_runs_side_by_side_is_done_once_and_goes_on_where_another_host_left_it(hosts: Hosts) -> None:
    async with hosts() as host:
        await host.ask("create table bookings (note text primary key)")
        instance_id = await host.deliver(Begun(key="k"))
        find = "select execution_status, cardinality(active_bookmarks) from holdfast.instances"
        assert await host.ask(find) == [("idle", 2)]
        await host.deliver(Came(key="k"))
        assert await host.ask(find) == [("idle", 1)]
        await host.engine.release([instance_id])
    async with hosts() as host:
        await host.deliver(Went(key="k"))
        state = "select outcome, state -> 'result' from holdfast.instances"
        assert await host.ask(state) == [("completed", ["beside", "beside", "k", "after"])]
        assert await host.ask("select note from bookings order by note") == [("beside",), ("k went",)]
    assert sorted(ran) == ["after", "before", "beside"]
