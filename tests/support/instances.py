"""Instances in a database, put there as a worker would, but without one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from uuid import UUID, uuid4

import psycopg

from holdfast.events.postgres import append
from holdfast.events.types import (
    BookmarkOpened,
    Event,
    FrameChange,
    InstanceCompleted,
    InstanceStarted,
    InstanceSuspended,
    MessageReceived,
    Persisted,
    Where,
)
from holdfast.projections.history import state_at
from holdfast.projections.instance import InstanceState, fold
from holdfast.projections.store import advance
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.identifiers import uuid7

_numbers = count(1)

WAITING: tuple[Event, ...] = (
    InstanceStarted(
        workflow="order",
        program_hash="p-1",
        correlation_key="k",
        message_id="m",
        message_type="OrderPlaced",
        body={"amount": 5},
    ),
    BookmarkOpened(where=Where("0", 2, 11), bookmark="0:late", kind="timer", due="2026-03-04T05:06:07.080000+00:00"),
    BookmarkOpened(
        where=Where("0", 2, 11), bookmark="0:paid", kind="message", message_type="Paid", correlation_key="k"
    ),
    Persisted(reason="idle", frames={"0": FrameChange(step=2, line=11, visits=1, program="p-1", set={"amount": 5})}),
)
"""An order that waits for its payment."""

PAID: tuple[Event, ...] = (
    MessageReceived(
        where=Where("0", 2, 11),
        bookmark="0:paid",
        closes=("0:paid", "0:late"),
        message_id="m2",
        message_type="Paid",
        correlation_key="k",
        body={},
    ),
    InstanceCompleted(result="shipped"),
    Persisted(reason="completed", ended=("0",)),
)

SUSPENDED: tuple[Event, ...] = (
    InstanceSuspended(reason="unhandled_exception", exception_name="ValueError", detail="no", where=Where("0", 2, 12)),
    Persisted(reason="suspended"),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """An advance of the instance store."""

    instance_id: UUID
    host_id: UUID
    lock_token: int
    expected_version: int
    state: InstanceState
    opened: tuple[str, ...]
    closed: tuple[str, ...]
    release: bool
    state_encoding: StateEncoding = "none"


async def add_host(connection: psycopg.AsyncConnection, machine: str = "m-1", *, lease: float = 60) -> UUID:
    """Add a worker of the app `shop`, which has another program than instances here; a negative lease has lapsed."""
    host_id = uuid4()
    await connection.execute(
        """insert into holdfast.hosts (host_id, app, machine, process_id, lease_expiration, programs)
        values (%s, 'shop', %s, 1, clock_timestamp() + make_interval(secs => %s), '{p-0}')""",
        [host_id, machine, lease],
    )
    return host_id


async def register(
    connection: psycopg.AsyncConnection, host_id: UUID | None = None, *, app: str = "shop", key: str | None = None
) -> UUID:
    """Register an instance of the workflow `order`, younger than all before it."""
    number = next(_numbers)
    instance_id = uuid7(1_700_000_000_000 + number, bytes(10))
    await connection.execute(
        """insert into holdfast.instance_rows
            (instance_id, app, workflow, program_hash, correlation_key, start_message_id, lock_owner, lock_token)
        values (%s, %s, 'order', 'p-1', %s, %s, %s, 1)""",
        [instance_id, app, key or f"k-{number}", f"m-{number}", host_id],
    )
    return instance_id


async def persist(
    connection: psycopg.AsyncConnection,
    host_id: UUID,
    instance_id: UUID,
    events: Sequence[Event],
    *,
    release: bool = True,
) -> InstanceState:
    """Commit a batch of events of an instance that the host holds, with its row, and return the state."""
    before = await state_at(connection, instance_id)
    after = fold(events, before)
    await append(connection, instance_id, before.version, events)
    step = Step(
        instance_id=instance_id,
        host_id=host_id,
        lock_token=1,
        expected_version=before.version,
        state=after,
        opened=tuple(after.bookmarks.keys() - before.bookmarks.keys()),
        closed=tuple(before.bookmarks.keys() - after.bookmarks.keys()),
        release=release,
    )
    written = await advance(connection, [step])
    assert instance_id in written
    return after


async def add_order(
    connection: psycopg.AsyncConnection, host_id: UUID, *batches: Sequence[Event], app: str = "shop"
) -> UUID:
    """Add an order with a correlation key of its own that has lived through these batches."""
    key = f"k-{uuid4().hex}"
    instance_id = await register(connection, host_id, app=app, key=key)
    for number, batch in enumerate(batches, 1):
        events = [_with_key(event, key) for event in batch]
        await persist(connection, host_id, instance_id, events, release=number == len(batches))
    return instance_id


def _with_key(event: Event, key: str) -> Event:
    if isinstance(event, InstanceStarted | BookmarkOpened | MessageReceived) and event.correlation_key is not None:
        return replace(event, correlation_key=key)
    return event
