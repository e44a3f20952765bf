"""Keeping the counts of instances short: the database adds rows to them with every commit, and workers merge those."""

from __future__ import annotations

from holdfast.processor.store.connections import Connection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def merge(connection: Connection) -> None:
    """Have one row for each condition in place of many; what they add up to stays the same."""
    await connection.execute(_SQL["merge_tally"])
