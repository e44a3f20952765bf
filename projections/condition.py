"""How the store stands, in numbers: what an operator watches.

The caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from holdfast.projections.lag import Lag, lags
from holdfast.projections.queries import Class
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The store of one app at one moment; ages and lags are in seconds, and 0 where there is nothing.

    ``locks`` are those of one host, everything else is the app's. ``buffered`` are the messages that wait in the
    inbox, ``dead_inbox`` and ``dead_outbox`` the dead letters. ``timer_lag`` is how long the oldest timer is due that
    has not fired, of an instance that is not suspended. ``horizon_lag`` is the age of the oldest event that readers of
    the whole log may not read yet, ``horizon_transactions`` how many transaction ids lie beyond the safe horizon.
    ``projections`` are the builds of subscriptions.
    """

    hosts: int
    locks: int
    buffered: int
    oldest_buffered: float
    dead_inbox: int
    outbox: int
    oldest_outbox: float
    dead_outbox: int
    timer_lag: float
    horizon_lag: float
    horizon_transactions: int
    non_persisted: Mapping[Class, int]
    projections: Sequence[Lag]


async def condition(connection: AsyncConnection[Any], app: str, host_id: UUID) -> Condition:
    """Return how the store of an app stands, and the locks of one of its hosts."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["condition"], {"app": app, "host_id": host_id})
        row = await cursor.fetchone() or {}
    counts = await connection.execute(_SQL["non_persisted_by_class"], {"app": app})
    return Condition(**row, non_persisted=dict(await counts.fetchall()), projections=await lags(connection, app))


async def lease_lives(connection: AsyncConnection[Any], host_id: UUID) -> bool:
    """Tell whether a host has a lease that has not lapsed."""
    cursor = await connection.execute(_SQL["lease_lives"], {"host_id": host_id})
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
