"""Orders to be exported, and what was written of them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from tests.support.events import FIRST_RELEASE
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order
from tests.support.projections import commit, settle

QUERY: LiteralString = """
    select
        epoch || '-' || xid || '-' || position, instance_id::text, version, type, xid::text::bigint, position,
        recorded_at
    from holdfast.events order by epoch, xid, position
"""
"""The log in its order: cursor, instance, version, type, transaction, position, time."""


async def add_orders(database_url: str) -> list[UUID]:
    """Three orders of the app shop: waiting, completed, suspended; then one of the app other, without a row."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        found = []
        for batches in ([WAITING], [WAITING, PAID], [WAITING, SUSPENDED]):
            found.append(await add_order(connection, host, *batches))
            await connection.commit()
    (other,) = await commit(database_url, list(FIRST_RELEASE), app="other")
    await settle(database_url)
    return [*found, other]


def lines(file: BytesIO | Path) -> list[dict[str, Any]]:
    data = file.getvalue() if isinstance(file, BytesIO) else file.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())
