"""The epoch is raised while workers write and readers read, as after a promotion that they have outlived."""

import asyncio
from pathlib import Path

import psycopg

from holdfast.events.postgres import read_all
from holdfast.events.recorded import Cursor
from holdfast.schemas.postgres.migrate import migrate
from tests.faults.test_lost_servers import APP, closed, orders, rows
from tests.support.rabbitmq import bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, await_hosts, environment

ORDERS = 500
OUT = "test-raised-epoch-out"


async def read_and_raise(database_url: str) -> list[Cursor]:
    """Read the log while it is written, and raise the epoch twice, each time once events of the last one were seen.

    Returns the places of all that was seen.
    """
    seen: list[Cursor] = []
    place: Cursor | None = None
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        raised = 0
        while (
            closed(database_url) < ORDERS
            or len(seen) < rows(database_url, "select count(*) from holdfast.events")[0][0]
        ):
            events, place = await read_all(connection, place)
            seen += [event.cursor for event in events]
            if raised < 2 and seen and seen[-1].epoch == 1 + raised:
                raised += 1
                await connection.execute("update holdfast.cluster set timeline = 'another'")
                assert (await migrate(database_url)).epoch == 1 + raised
    return seen


def test_workers_and_readers_go_on_over_a_raised_epoch(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    remove_app(amqp_url, APP)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (order_id text not null, step text not null)")
    with Workers("tests.faults.orders:app", environment(database_url, amqp_url), tmp_path) as workers:
        worker = workers.start()
        await_hosts(database_url, 1)
        bind_out(amqp_url, APP, OUT)
        publish(amqp_url, APP, orders(range(ORDERS)))
        seen = asyncio.run(asyncio.wait_for(read_and_raise(database_url), 120))
        assert worker.stop() == 0
    places = rows(database_url, "select epoch, xid::text::bigint, position from holdfast.events order by 1, 2, 3")
    assert seen == [Cursor(*place) for place in places]
    assert {place.epoch for place in seen} == {1, 2, 3}
    assert len({message.header.properties.message_id for message in take_all(amqp_url, OUT)}) == ORDERS
    remove_app(amqp_url, APP)
