"""Orders to be found by each thing that is known of them, and what each criterion finds among them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, register

DAY = timedelta(days=1)
NOW = datetime.now(UTC)

CASES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [4, 3, 2, 1, 0]),
    ({"ascending": True}, [0, 1, 2, 3, 4]),
    ({"workflow": "order"}, [4, 3, 2, 1, 0]),
    ({"workflow": "order", "ascending": True}, [0, 1, 2, 3, 4]),
    ({"workflow": "refund"}, []),
    ({"program_hash": "p-1"}, [3, 2, 1, 0]),
    ({"program_hash": "p-2"}, [4]),
    ({"execution_status": "executing"}, [0]),
    ({"execution_status": "idle"}, [2, 1]),
    ({"execution_status": "closed"}, [4, 3]),
    ({"outcome": "completed"}, [4, 3]),
    ({"outcome": "faulted"}, []),
    ({"is_suspended": True}, [2]),
    ({"is_suspended": False}, [4, 3, 1, 0]),
    ({"is_initialized": False}, [0]),
    ({"is_initialized": True}, [4, 3, 2, 1]),
    ({"is_completed": True}, [4, 3]),
    ({"is_completed": False}, [2, 1, 0]),
    ({"older_than": 2 * DAY}, [2, 1, 0]),
    ({"younger_than": 2 * DAY}, [4, 3]),
    ({"older_than": DAY, "younger_than": 3 * DAY}, [3, 2]),
    ({"older_than": DAY, "ascending": True}, [0, 1, 2, 3]),
    ({"created_since": NOW - 2 * DAY}, [4, 3]),
    ({"created_before": NOW - 2 * DAY}, [2, 1, 0]),
    ({"is_completed": True, "sort": "updated"}, [3, 4]),
    ({"is_completed": True, "sort": "updated", "ascending": True}, [4, 3]),
    ({"outcome": "completed", "updated_since": NOW - 4.5 * DAY}, [3]),
    ({"outcome": "completed", "updated_before": NOW - 4.5 * DAY}, [4]),
    ({"promoted": {"stage": 1}}, [3, 2, 1]),
    ({"promoted": {"stage": 1}, "ascending": True}, [1, 2, 3]),
    ({"promoted": {"stage": "1"}}, []),
    ({"waits_for": "Paid"}, [2, 1]),
    ({"waits_for": "Paid", "ascending": True}, [1, 2]),
    ({"waits_for": "Other"}, []),
    ({"waits_for": "Paid", "waits_for_key": "no"}, []),
    ({"waits_for_kind": "message"}, [2, 1]),
    ({"waits_for_kind": "timer"}, [2, 1]),
    ({"waits_for_kind": "child"}, []),
    ({"waits_for_kind": "activity"}, []),
    ({"waits_at": "0:late"}, [2, 1]),
    ({"waits_at": "0:late", "waits_for_kind": "timer"}, [2, 1]),
    ({"waits_at": "0:late", "waits_for": "Paid"}, []),
    ({"waits_at": "0:never"}, []),
    # And several of these at once.
    ({"workflow": "order", "outcome": "completed", "promoted": {"stage": 1}}, [3]),
    ({"is_suspended": True, "waits_for": "Paid", "promoted": {"stage": 1}}, [2]),
    ({"execution_status": "idle", "is_suspended": False, "older_than": DAY}, [1]),
    ({"is_completed": False, "outcome": "completed"}, []),
    ({"execution_status": "executing", "workflow": "refund"}, []),
    ({"promoted": {"stage": 1}, "program_hash": "p-2"}, []),
    ({"waits_for": "Paid", "older_than": 3 * DAY}, [1]),
]
"""Criteria, and the places of the orders that fit them, in the order in which they are found."""


async def five_orders(connection: psycopg.AsyncConnection) -> list[UUID]:
    """Add five orders, a day apart: registered, waiting, suspended, paid, and paid on another program."""
    async with connection.transaction():
        host = await add_host(connection)
        ids = [
            await register(connection, host),
            await add_order(connection, host, WAITING),
            await add_order(connection, host, WAITING, SUSPENDED),
            await add_order(connection, host, WAITING, PAID),
            await add_order(connection, host, WAITING, PAID),
        ]
        await connection.execute(
            """update holdfast.instance_rows r
            set creation_time = now() - (5 - n.place) * interval '1 day' - interval '12 hours',
                last_updated_time = now() - n.place * interval '1 day',
                program_hash = case when n.place = 5 then 'p-2' else 'p-1' end
            from unnest(%s::uuid[]) with ordinality n (instance_id, place)
            where r.instance_id = n.instance_id""",
            [ids],
        )
        await connection.execute(
            "update holdfast.instance_states set promoted = %s where instance_id = any(%s)",
            [Jsonb({"stage": 1}), ids[1:4]],
        )
    return ids


async def add_many(connection: psycopg.AsyncConnection, count: int) -> None:
    """Add so many instances, and as many messages."""
    await connection.execute(
        """insert into holdfast.instance_rows
            (instance_id, app, workflow, program_hash, correlation_key, start_message_id)
        select gen_random_uuid(), 'shop', 'order', 'p-1', 'k' || n, 'm' || n from generate_series(1, %s) n""",
        [count],
    )
    await connection.execute(
        """insert into holdfast.inbox (app, message_id, type, correlation_key, digest, verdict)
        select 'shop', 'm' || n, 'Paid', 'k' || n, '', 'applied' from generate_series(1, %s) n""",
        [count],
    )
