"""Participants on Postgres: values that outlive their host, SQL in the same transaction, values to ask for with SQL."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.errors import RaiseException

from holdfast import App, Client, InstanceView, Message, Participant, Transaction, Values, activity_context, receive
from holdfast.projections.verify import verify
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres
from tests.support.workers import environment

app = App("participants")
loaded: list[tuple[str, ...]] = []

Start = Callable[[], AbstractAsyncContextManager[Host]]


class Opened(Message, correlation="key"):
    key: str


class Added(Opened):
    price: Decimal


class Closed(Opened): ...


@app.participant
class Basket(Participant):
    """Keeps prices, writes the total into a table of its own, and reads a name from another one."""

    def __init__(self) -> None:
        self.prices: list[Decimal] = []
        self.owner = ""

    def collect(self) -> Values:
        total = sum(self.prices, Decimal(0))
        return Values(
            read_write={"prices": self.prices},
            write_only={"total": float(total), "prices as text": self.prices, "owner": self.owner},
        )

    def publish(self, values: Mapping[str, Any]) -> None:
        loaded.append(("publish", self.owner))
        self.prices = values["prices"]

    async def on_save(self, tx: Transaction, instance: InstanceView) -> None:
        await tx.execute(
            "insert into totals values (%s, %s, pg_current_xact_id())", (instance.version, sum(self.prices))
        )

    async def on_load(self, tx: Transaction, instance: InstanceView) -> None:
        cursor = await tx.execute("select owner from owners where key = %s", (instance.correlation_key,))
        row = await cursor.fetchone()
        self.owner = row[0] if row else "nobody"
        await tx.execute("insert into visits values (%s)", (instance.version,))


@app.activity
async def put(price: Decimal) -> int:
    prices = activity_context().participant(Basket).prices
    prices.append(price)
    return len(prices)


@app.activity
async def book(tx: Transaction, key: str, count: int) -> None:
    await tx.execute("insert into bookings values (%s, %s, pg_current_xact_id())", (key, count))


@app.workflow(start=Opened)
async def basket(opened: Opened) -> int:
    await put(Decimal(1))
    added = await receive(Added, opened.key)
    count = await put(added.price)
    await book(opened.key, count)
    await receive(Closed, opened.key)
    return await put(Decimal(0))


@pytest.fixture
async def start(database_url: str) -> Start:
    loaded.clear()
    behind = BehindPostgres(database_url)
    await behind.ask("create table totals (version int, total numeric, xid xid8)")
    await behind.ask("create table bookings (key text, count int, xid xid8)")
    await behind.ask("create table owners (key text, owner text)")
    await behind.ask("create table visits (version int)")
    return lambda: running_host(app, database_url, Settings(max_attempts=2))


@pytest.fixture
async def host(start: Start) -> AsyncIterator[Host]:
    async with start() as host:
        yield host


async def lapse(host: Host, url: str) -> None:
    """Let a host die for all others."""
    await BehindPostgres(url).lapse(host.runtime.host_id)


async def test_values_outlive_the_host_that_kept_them(start: Start, database_url: str) -> None:
    async with start() as first:
        await first.deliver(Opened(key="k"))
        await lapse(first, database_url)
    async with start() as second:
        await second.deliver(Added(key="k", price=Decimal("2.50")))
        await second.engine.unload_idle(0)
        instance_id = await second.deliver(Closed(key="k"))
        result = "select data -> 'result' from holdfast.events where type = 'InstanceCompleted' and instance_id = %s"
        assert await second.ask(result, instance_id) == [(3,)]
        assert await second.ask("select key, count from bookings") == [("k", 2)]


async def test_what_a_participant_writes_commits_with_the_events(host: Host) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.deliver(Added(key="k", price=Decimal(2)))
    xids = await host.xids(instance_id)
    written = await host.ask("select xid::text, total from totals order by version")
    assert written == [(str(xid), total) for xid, total in zip(xids, (1, 3, 3), strict=True)]
    assert await host.ask("select xid::text from bookings") == [(str(xids[2]),)]


async def test_each_version_that_participants_saved_is_one_that_was_persisted(host: Host) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.deliver(Added(key="k", price=Decimal(2)))
    points = "select version from holdfast.events where instance_id = %s and type = 'Persisted' order by version"
    assert await host.ask("select version from totals order by version") == await host.ask(points, instance_id)


async def test_transactions_name_the_values_that_changed(host: Host, database_url: str) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.deliver(Added(key="k", price=Decimal(2)))
    async with Client(database_url) as client:
        kept = [(commit.values, {*commit.promoted}) async for commit in client.transactions(instance_id)]
    changed = (("prices",), {"total", "prices as text", "owner"})
    assert kept == [changed, changed, ((), set())]
    shown = await asyncio.to_thread(holdfast, "transactions", str(instance_id), env=environment(database_url, ""))
    assert re.findall(r"^  values kept +prices$", shown.stdout, re.MULTILINE) == ["  values kept    prices"] * 2


async def test_values_for_queries_can_be_asked_for_with_sql(host: Host) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.deliver(Opened(key="other"))
    await host.deliver(Added(key="k", price=Decimal("2.50")))
    find = "select instance_id from holdfast.instances where (promoted ->> 'total')::numeric > 3"
    assert await host.ask(find) == [(instance_id,)]
    find = "select promoted -> 'prices as text' from holdfast.instances where promoted @> '{\"total\": 3.5}'"
    assert await host.ask(find) == [(["1", "2.50"],)]


async def test_state_shows_values_as_they_were(host: Host, database_url: str) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.deliver(Added(key="k", price=Decimal(2)))
    env = environment(database_url, "")
    shown = await asyncio.to_thread(holdfast, "state", str(instance_id), "--at", "4", env=env)
    assert re.search(r"^values of participants\n  prices +\[Decimal\('1'\)\]$", shown.stdout, re.MULTILINE)
    assert re.search(r"^promoted\n  total +1\.0$", shown.stdout, re.MULTILINE)


async def test_the_store_agrees_with_the_log_about_values(host: Host, database_url: str) -> None:
    await host.deliver(Opened(key="k"))
    await host.deliver(Added(key="k", price=Decimal("1e22")))
    await host.deliver(Opened(key="other"))
    await host.deliver(Added(key="other", price=Decimal(0)))
    await host.deliver(Closed(key="other"))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        checked = [each async for each in verify(connection)]
    assert len(checked) == 2
    assert [each.differences for each in checked] == [(), ()]


async def test_a_participant_reads_and_writes_before_its_values_come_back(start: Start, database_url: str) -> None:
    async with start() as first:
        await first.deliver(Opened(key="k"))
        await first.ask("insert into owners values ('k', 'Ann')")
        await lapse(first, database_url)
        ((version,),) = await first.ask("select version from holdfast.instances")
    async with start() as second:
        await second.deliver(Added(key="k", price=Decimal(2)))
        assert loaded == [("publish", "Ann")]
        assert await second.ask("select version from visits") == [(version,)]
        assert await second.ask("select promoted ->> 'owner' from holdfast.instances") == [("Ann",)]


# Protocol: I16.
async def test_what_a_participant_cannot_write_is_refused_with_all_that_was_to_commit_with_it(host: Host) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    before = await host.transactions(instance_id)
    await host.ask("alter table totals add constraint refused check (total < 3)")
    await host.deliver(Added(key="k", price=Decimal(2)))
    assert await host.transactions(instance_id) == [*before, ("suspended", ["InstanceSuspended"])]
    assert await host.ask("select total from totals") == [(1,)]
    assert await host.ask("select * from bookings") == []
    find = "select suspension_exception_name, promoted -> 'total' from holdfast.instances"
    assert await host.ask(find) == [("psycopg.errors.CheckViolation", 1)]
    await host.ask("alter table totals drop constraint refused")
    await host.resume(instance_id)
    # The participant had the values of the last persistence point again, not those that were refused.
    assert await host.ask("select max(total) from totals") == [(3,)]
    assert await host.ask("select count from bookings") == [(2,)]


async def test_what_a_participant_cannot_read_rolls_back_and_suspends(start: Start, database_url: str) -> None:
    async with start() as first:
        instance_id = await first.deliver(Opened(key="k"))
        await lapse(first, database_url)
        await first.ask(
            """
            create function refuse() returns trigger language plpgsql as 'begin raise exception ''no''; end';
            """
        )
        await first.ask("create trigger refuse after insert on visits execute function refuse()")
    async with start() as second:
        await second.deliver(Added(key="k", price=Decimal(2)))
        find = "select suspension_exception_name from holdfast.instances"
        assert await second.ask(find) == [(f"{RaiseException.__module__}.{RaiseException.__qualname__}",)]
        assert await second.ask("select * from visits") == []
        await second.ask("drop trigger refuse on visits")
        await second.resume(instance_id)
        assert await second.ask("select max(total) from totals") == [(3,)]
