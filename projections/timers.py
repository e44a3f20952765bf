"""The timers at which instances wait.

The caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """An open timer of an instance; ``bookmark`` is its name.

    ``is_due`` says that its time has come, by the clock of the database. While the instance ``is_suspended`` it does
    not fire.
    """

    instance_id: UUID
    app: str
    workflow: str
    correlation_key: str
    is_suspended: bool
    bookmark: str
    due: datetime
    is_due: bool
    line: int
    opened_at: datetime


async def timers(
    connection: AsyncConnection[Any],
    *,
    app: str | None = None,
    instance_id: UUID | None = None,
    before: datetime | None = None,
    after: Timer | None = None,
    limit: int = 100,
) -> list[Timer]:
    """Return a page of the open timers that fit all that is given, the next one first, from behind ``after``."""
    async with connection.cursor(row_factory=class_row(Timer), binary=True) as cursor:
        await cursor.execute(
            _SQL["timers"],
            {
                "app": app,
                "instance_id": instance_id,
                "before": before,
                "after_due": after and after.due,
                "after_instance": after and after.instance_id,
                "after_bookmark": after and after.bookmark,
                "limit": limit,
            },
        )
        return await cursor.fetchall()
