"""What is settled in the log: up to where, and by which transactions, nothing can appear in it any more.

The caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from holdfast.events.recorded import Cursor
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def is_settled(connection: AsyncConnection[Any], place: Cursor) -> bool:
    """Tell whether the safe horizon has passed a place, so that nothing can appear before it any more."""
    settled: bool = await _scalar(connection, "is_settled", epoch=place.epoch, xid=str(place.xid))
    return settled


async def newest_transaction(connection: AsyncConnection[Any]) -> int:
    """Return the id of the transaction that began last: this one, which gets an id by that if it has none."""
    xid: int = await _scalar(connection, "newest_transaction")
    return xid


async def is_over(connection: AsyncConnection[Any], xid: int) -> bool:
    """Tell whether every transaction before this one has ended."""
    over: bool = await _scalar(connection, "is_over", xid=str(xid))
    return over


async def _scalar(connection: AsyncConnection[Any], statement: str, **parameters: Any) -> Any:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(_SQL[statement], parameters)
        return await cursor.fetchone()
