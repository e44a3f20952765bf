"""Two transactions that meet on purpose: one is held open, all written, while the other runs into it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psycopg

GATE = """
create function pg_temp.gate() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(4711);
    return null;
end
$$
"""


@asynccontextmanager
async def held_open(database_url: str, table: str, work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Start work that writes to a table and hold its transaction open, all written, until the block ends.

    Then the work comes to its end, too.
    """
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(GATE.replace("pg_temp.", "holdfast."))
        await connection.execute("select pg_advisory_lock(4711)")
        await connection.execute(
            psycopg.sql.SQL(
                "create constraint trigger gate after insert on holdfast.{} deferrable initially deferred"
                " for each row execute function holdfast.gate()"
            ).format(psycopg.sql.Identifier(table))
        )
        task = asyncio.create_task(work)
        try:
            await until(connection, "select count(*) > 0 from pg_locks where locktype = 'advisory' and not granted")
            yield task
        finally:
            await connection.execute("select pg_advisory_unlock(4711)")
            await asyncio.wait([task])


async def until(connection: psycopg.AsyncConnection[Any], question: Any) -> None:
    """Return once the answer to a question is yes."""
    async with asyncio.timeout(30):
        while await (await connection.execute(question)).fetchone() == (False,):
            pass
