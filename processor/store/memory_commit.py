"""Persistence points of the provider in memory: what is wrong with a group, and what a batch changes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from holdfast.processor.engine.provider import AlreadyConsumed, Batch, Consumed
from holdfast.processor.store import memory_subflows
from holdfast.processor.store.memory_tables import OutboxRow, Tables, digest_of, settle
from holdfast.schemas.errors import HoldfastError, InstanceLockLost, KeyInUse, WrongExpectedVersion


def refusals(tables: Tables, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
    """Return what is wrong with members of a group, as far as one look shows."""
    refusals: dict[UUID, HoldfastError] = {}
    for batch in members:
        row = tables.instances.get(batch.instance_id)
        if row is None or not tables.holds(row, batch.host_id, batch.lock_token):
            refusals[batch.instance_id] = InstanceLockLost(batch.instance_id)
        elif row.version != batch.expected_version:
            refusals[batch.instance_id] = WrongExpectedVersion(
                batch.instance_id, expected=batch.expected_version, actual=row.version
            )
    if refusals:
        return refusals
    return (
        _keys_in_use(tables, members) or memory_subflows.refusals(tables, members) or _consumed_before(tables, members)
    )


def apply(tables: Tables, batch: Batch) -> None:
    """Change all rows that a batch changes, its events apart."""
    state = batch.state
    row = tables.instances[batch.instance_id]
    row.come_to(state, batch.state_encoding)
    tables.burst_attempts.pop(batch.instance_id, None)
    for name in batch.closed:
        row.bookmarks.pop(name, None)
    row.bookmarks |= {name: state.bookmarks[name] for name in (*batch.opened, *batch.moved)}
    for consumed in batch.consumed:
        _apply(tables, batch, consumed)
    for message in batch.outgoing:
        tables.outbox[message.message_id] = OutboxRow(message, batch.instance_id, batch.host_id)
    memory_subflows.apply(tables, batch)
    if batch.release or row.is_completed:
        row.owner = None
    if row.is_completed:
        tables.reject_left_over(batch.instance_id)
    for instance_id in batch.discarded:
        tables.discarded[instance_id] = tables.instances.pop(instance_id)


def _apply(tables: Tables, batch: Batch, consumed: Consumed) -> None:
    envelope = consumed.envelope
    row = tables.inbox.get(envelope.message_id) or tables.insert(envelope, consumed.kind)
    settle(row, "applied", instance_id=batch.instance_id, version=batch.state.version)
    tables.attempts.pop(envelope.message_id, None)


def _keys_in_use(tables: Tables, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
    closed = {(batch.instance_id, name) for batch in members for name in batch.closed}
    taken = {
        (bookmark.message_type, bookmark.correlation_key)
        for instance_id, row in tables.instances.items()
        for name, bookmark in row.bookmarks.items()
        if bookmark.kind != "timer" and (instance_id, name) not in closed
    }
    for batch in sorted(members, key=lambda batch: batch.instance_id.int):
        for name in batch.opened:
            bookmark = batch.state.bookmarks[name]
            wanted = (bookmark.message_type, bookmark.correlation_key)
            if bookmark.kind != "timer" and wanted in taken:
                refusal = KeyInUse(
                    batch.instance_id,
                    message_type=bookmark.message_type or "",
                    correlation_key=bookmark.correlation_key or "",
                )
                return {batch.instance_id: refusal}
            taken.add(wanted)
    return {}


def _consumed_before(tables: Tables, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
    seen: set[str] = set()
    for batch in members:
        for consumed in batch.consumed:
            envelope = consumed.envelope
            known = tables.inbox.get(envelope.message_id)
            open_still = known is None or (
                known.verdict in ("buffered", "dead_lettered") and known.digest == digest_of(envelope)
            )
            if envelope.message_id in seen or not open_still:
                return {batch.instance_id: AlreadyConsumed(envelope.message_id)}
            seen.add(envelope.message_id)
    return {}
