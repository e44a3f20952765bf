"""The rows in which the tables of two builds of a projection differ.

Rows are compared where they are, by the database, and only those that differ leave it, a few at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from holdfast.events.types import Json
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """A row that differs, as JSON: ``before`` is None where it was added, ``after`` where it was removed.

    ``key`` are its primary key's columns. In a table that has no primary key rows are only added or removed: ``key``
    is None, and ``copies`` says how many alike.
    """

    table: str
    kind: Literal["added", "removed", "changed"]
    key: dict[str, Json] | None
    before: dict[str, Json] | None
    after: dict[str, Json] | None
    copies: int


async def changes(connection: AsyncConnection[Any], before: str, after: str) -> AsyncGenerator[RowChange, None]:
    """Yield the rows in which two schemas differ, table by table, in the order of their keys.

    The caller's transaction is to see one moment, by its isolation level, lest a table moves on before the next one.
    """
    if before == after:
        return
    found = await connection.execute(_SQL["tables"], {"before": before, "after": after})
    for (table,) in await found.fetchall():
        async with connection.cursor("holdfast_rows", row_factory=tuple_row) as cursor:
            cursor.itersize = _AT_A_TIME
            await cursor.execute(_SQL["compare_tables"], {"before": before, "after": after, "table": table})
            async for key, old, new, copies in cursor:
                kind: Any = "added" if old is None else "removed" if new is None else "changed"
                yield RowChange(table=table, kind=kind, key=key, before=old, after=new, copies=copies)
