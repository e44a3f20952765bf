"""Keeping the counts of instances and messages short: each commit adds rows to them, and workers merge those."""

from __future__ import annotations

from holdfast.processor.store.connections import Connection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def merge(connection: Connection) -> None:
    """Have one row for each thing that is counted in place of many; what they add up to stays the same."""
    await connection.execute(_SQL["merge_tally"])
    await connection.execute(_SQL["merge_message_tally"])
