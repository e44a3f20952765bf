"""How many instances there are is kept with every commit: never counted, and never other than a count would say."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from holdfast import App, Message, delay, receive, suspend
from holdfast.processor.store import tally
from holdfast.projections import queries
from holdfast.schemas.settings import Settings
from tests.support.hosts import running_host
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, register

KEPT = "select * from holdfast.tally"
COUNTED = """
select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, count(*)
from holdfast.instance_rows
group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
"""


class Placed(Message, correlation="key"):
    key: str
    fate: str


class Paid(Message, correlation="key"):
    key: str


shop = App("shop")


@shop.workflow(start=Placed)
async def order(placed: Placed) -> str:
    if placed.fate == "fail":
        raise ValueError(placed.key)
    if placed.fate == "rest":
        await suspend("resting")
    if placed.fate == "late":
        await delay(timedelta(days=1))
    await receive(Paid, placed.key)
    return placed.key


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


async def agree(connection: psycopg.AsyncConnection) -> set[Any]:
    """Return the counts, which are those that a count gives."""
    kept = await (await connection.execute(KEPT)).fetchall()
    counted = await (await connection.execute(COUNTED)).fetchall()
    assert {*kept} == {*counted}
    assert len(kept) == len(counted)
    return {*kept}


async def test_what_is_kept_is_what_a_count_gives_after_a_workload(
    database_url: str, connection: psycopg.AsyncConnection
) -> None:
    async with running_host(shop, database_url, Settings()) as host:
        for number in range(40):
            await host.tell(Placed(key=str(number), fate=("fail", "rest", "late", "wait")[number % 4]))
        for number in range(3, 40, 8):
            await host.tell(Paid(key=str(number)))
        await host.runtime.provider.expire(86400, 10)
        for number in range(7, 40, 8):
            await host.tell(Paid(key=str(number)))
    counts = {(row[3], row[4], row[5], row[6]): row[7] for row in await agree(connection)}
    assert sum(counts.values()) == 40
    assert counts["closed", "completed", True, False] == 10
    assert len(counts) >= 3


async def test_every_change_of_an_instance_is_counted(connection: psycopg.AsyncConnection) -> None:
    host = await add_host(connection)
    waiting = await add_order(connection, host, WAITING)
    await agree(connection)
    await add_order(connection, host, WAITING, SUSPENDED)
    paid = await add_order(connection, host, WAITING, PAID)
    registered = await register(connection, app="other")
    assert len(await agree(connection)) == 4
    await connection.execute("update holdfast.instance_rows set program_hash = 'p-2' where instance_id = %s", [waiting])
    await connection.execute("update holdfast.instance_rows set lock_owner = null")
    await agree(connection)
    await connection.execute("update holdfast.settings set removal_age = '0'")
    await connection.execute("delete from holdfast.instances where instance_id = %s", [registered])
    await connection.execute("select holdfast.remove_instances('shop', '-1 hour', 0, 1000, true)")
    left = await agree(connection)
    assert {row[7] for row in left} == {1}
    assert [it.instance_id for it in await queries.instances(connection, outcome="completed")] != [paid]
    await connection.execute("truncate holdfast.instance_rows")
    assert await agree(connection) == set()


async def test_merging_keeps_what_the_rows_add_up_to(database_url: str, connection: psycopg.AsyncConnection) -> None:
    host = await add_host(connection)
    for batches in ([WAITING], [WAITING, PAID], [WAITING, PAID], [WAITING, SUSPENDED]):
        await add_order(connection, host, *batches)
    await connection.commit()
    before = await agree(connection)
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await register(other)  # Is not committed when the others are merged.
        await tally.merge(connection)
        await connection.commit()
        rows = await (await connection.execute("select count(*) from holdfast.tally_rows")).fetchone()
        assert rows == (len(before),)
        assert await agree(connection) == before
        await tally.merge(connection)  # Holds what it merges, and another one passes over that.
        await tally.merge(other)
        await other.commit()
    await connection.commit()
    after = await agree(connection)
    assert sum(row[7] for row in after) == sum(row[7] for row in before) + 1


async def test_counts_can_be_asked_for_by_workflow_and_program(connection: psycopg.AsyncConnection) -> None:
    host = await add_host(connection)
    for _ in range(3):
        await add_order(connection, host, WAITING)
    await register(connection, app="other")

    async def count(app: str | None = None, **criteria: Any) -> int:
        return sum(it.instances for it in await queries.tally(connection, app, **criteria))

    assert await count() == 4
    assert await count("shop") == 3
    assert await count(workflow="order") == await count(program_hash="p-1") == 4
    assert await count("other", workflow="order", program_hash="p-1") == 1
    assert await count(workflow="refund") == await count(program_hash="p-2") == 0


async def test_two_that_change_instances_at_once_do_not_wait_for_each_other(
    database_url: str, connection: psycopg.AsyncConnection
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("set lock_timeout = '1ms'")
        await register(connection)
        await register(other)
        await other.commit()
    await connection.commit()
    assert sum(row[7] for row in await agree(connection)) == 2
