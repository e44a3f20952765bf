"""The hosts of an app: who lives, what each consumes and holds.

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
class HostStatus:
    """A worker process as the store knows it.

    It lives as long as its lease (``is_alive``, by the clock of the database). It consumes ``partitions``, each since
    the moment at the same place in ``consuming_since``, as it said at ``shared_at``; None if it has not said so yet.
    ``locks`` counts the instances that it holds; of one that is dead, those that nobody has taken over yet.
    """

    host_id: UUID
    app: str
    machine: str
    process_id: int
    started_at: datetime
    lease_expiration: datetime
    is_alive: bool
    partitions: list[int]
    consuming_since: list[datetime]
    shared_at: datetime | None
    locks: int


async def host_statuses(connection: AsyncConnection[Any], *, app: str | None = None) -> list[HostStatus]:
    """Return the hosts that live, and those that are dead and still have locks or lapsed within the last hour."""
    async with connection.cursor(row_factory=class_row(HostStatus), binary=True) as cursor:
        await cursor.execute(_SQL["hosts"], {"app": app})
        return await cursor.fetchall()
