"""All that persistence points write, in the transaction of the caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from holdfast.events.log import Append
from holdfast.events.postgres import append_many
from holdfast.events.recorded import Cursor
from holdfast.processor.engine.provider import AlreadyConsumed, Batch, Committed
from holdfast.processor.store import inbox, subflows
from holdfast.processor.store.connections import Connection
from holdfast.projections.store import advance, move_timers
from holdfast.schemas.errors import (
    HoldfastError,
    InstanceLockLost,
    KeyInUse,
    StaleTransaction,
    WrongExpectedVersion,
)
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


@dataclass(slots=True)
class Written:
    """What became of each batch in the open transaction.

    ``refused`` left nothing behind. ``spoilt`` did: if there are any, the transaction has to be rolled
    back and run again without them. ``late`` may pass in a new transaction.
    """

    xid: int = 0
    written: dict[UUID, Committed] = field(default_factory=dict)
    refused: dict[UUID, HoldfastError] = field(default_factory=dict)
    spoilt: dict[UUID, HoldfastError] = field(default_factory=dict)
    late: set[UUID] = field(default_factory=set)
    must_roll_back: bool = False


async def write(connection: Connection, app: str, batches: Sequence[Batch]) -> Written:
    """Write batches, at most one an instance, in four statements or fewer; what concerns others takes a few more.

    Rows are touched in the order of their keys, instances before messages, by every host alike.
    """
    outcome = Written()
    members = sorted(batches, key=lambda batch: batch.instance_id.int)
    opened = await advance(connection, members)
    if len(opened) < len(members):
        await _explain(connection, [b for b in members if b.instance_id not in opened], outcome)
        members = [b for b in members if b.instance_id in opened]
    in_want = [b for b in members if opened[b.instance_id] < len(b.opened)]
    if in_want:
        await _find_takers(connection, in_want, outcome)
        return outcome
    if not members:
        return outcome
    moved = [b for b in members if b.moved]
    if moved:
        await move_timers(connection, {(b.instance_id, name): b.state for b in moved for name in b.moved})
    await _append(connection, members, outcome)
    if outcome.must_roll_back:
        return outcome
    related = [b for b in members if b.children or b.inner or b.deposits]
    if related:
        outcome.spoilt |= await subflows.write(connection, app, related)
        outcome.must_roll_back = bool(outcome.spoilt)
    applied = await inbox.settle(connection, app, members)
    for batch in members:
        missing = next((c for c in batch.consumed if c.envelope.message_id not in applied), None)
        if missing is not None:
            outcome.spoilt[batch.instance_id] = AlreadyConsumed(missing.envelope.message_id)
            outcome.must_roll_back = True
    closed = [b.instance_id for b in members if b.state.execution_status == "closed"]
    if closed and not outcome.must_roll_back:
        await inbox.reject_left_over(connection, closed)
    discarded = [i for b in members if b.inner or b.state.execution_status == "closed" for i in b.discarded]
    if discarded and not outcome.must_roll_back:
        await connection.execute(_SQL["discard"], {"instance_ids": discarded})
    return outcome


async def _append(connection: Connection, members: Sequence[Batch], outcome: Written) -> None:
    streams = [(batch, stream) for batch in members for stream in batch.streams]
    appends = [
        Append(instance_id=s.instance_id, expected=s.expected_version, events=s.events, metadata=s.metadata)
        for _, s in streams
    ]
    for (batch, _), answer in zip(streams, await append_many(connection, appends), strict=True):
        if isinstance(answer, Cursor):
            outcome.xid = answer.xid
            outcome.written[batch.instance_id] = Committed(str(answer))
        elif isinstance(answer, WrongExpectedVersion):
            outcome.spoilt[batch.instance_id] = answer
            outcome.must_roll_back = True
        elif isinstance(answer, StaleTransaction):
            outcome.late.add(batch.instance_id)
            outcome.must_roll_back = True


async def _explain(connection: Connection, dropped: Sequence[Batch], outcome: Written) -> None:
    """Say why batches did not pass the fence."""
    cursor = await connection.execute(
        _SQL["why_not_advanced"],
        {
            "instance_ids": [b.instance_id for b in dropped],
            "hosts": [b.host_id for b in dropped],
            "lock_tokens": [b.lock_token for b in dropped],
        },
        binary=True,
    )
    held: dict[UUID, int] = dict(await cursor.fetchall())
    for batch in dropped:
        actual = held.get(batch.instance_id)
        if actual is None:
            outcome.refused[batch.instance_id] = InstanceLockLost(batch.instance_id)
        elif actual != batch.expected_version:
            outcome.refused[batch.instance_id] = WrongExpectedVersion(
                batch.instance_id, expected=batch.expected_version, actual=actual
            )
        else:
            outcome.late.add(batch.instance_id)


async def _find_takers(connection: Connection, in_want: Sequence[Batch], outcome: Written) -> None:
    """Say which message each batch waits for in vain."""
    outcome.must_roll_back = True
    wanted = [
        (b.instance_id, bookmark.message_type, bookmark.correlation_key)
        for b in in_want
        for name in b.opened
        if (bookmark := b.state.bookmarks[name]).kind != "timer"
    ]
    cursor = await connection.execute(
        _SQL["keys_in_use"],
        {
            "instance_ids": [instance_id for instance_id, _, _ in wanted],
            "types": [message_type for _, message_type, _ in wanted],
            "keys": [key for _, _, key in wanted],
        },
        binary=True,
    )
    taken = await cursor.fetchall()
    for batch in in_want:
        own = Counter((b.message_type, b.correlation_key) for b in batch.state.bookmarks.values() if b.kind != "timer")
        taken += [(batch.instance_id, *wanted) for wanted, count in own.items() if count > 1]
    for instance_id, message_type, key in taken:
        outcome.spoilt[instance_id] = KeyInUse(instance_id, message_type=message_type, correlation_key=key)
    outcome.late.update(b.instance_id for b in in_want if b.instance_id not in outcome.spoilt)
