"""What batches write besides their own instance: children, inner subflows, and what they put into mailboxes.

All of it is written after the batch's own row has passed the fence, in the same transaction. A child is an
instance of its own from then on. An inner subflow is not: whoever holds its parent writes its row and stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from holdfast.processor.engine.provider import Batch
from holdfast.processor.store import inbox
from holdfast.processor.store.connections import Connection
from holdfast.processor.store.locks import readable
from holdfast.projections.instance import InstanceState
from holdfast.projections.snapshot import dumps
from holdfast.projections.store import promoted
from holdfast.schemas.errors import HoldfastError, InstanceLockLost, InstanceNotFound, KeyInUse
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def write(connection: Connection, app: str, batches: Sequence[Batch]) -> dict[UUID, HoldfastError]:
    """Write the children, inner subflows and deposits of batches; return what spoils which batch."""
    spoilt: dict[UUID, HoldfastError] = {}
    await _bear(connection, app, batches, spoilt)
    await _advance_inner(connection, batches, spoilt)
    if not spoilt:
        await inbox.deposit(connection, app, [deposit for batch in batches for deposit in batch.deposits])
    return spoilt


async def read_states(
    connection: Connection, app: str, instance_ids: Sequence[UUID]
) -> list[InstanceState | HoldfastError]:
    """Return the state of each instance, or ``InstanceNotFound`` or ``InstanceUnreadable``."""
    cursor = await connection.execute(
        _SQL["read_states"], {"app": app, "instance_ids": list(instance_ids)}, binary=True
    )
    rows = {instance_id: stored for instance_id, *stored in await cursor.fetchall()}
    return [
        readable(instance_id, *rows[instance_id]) if instance_id in rows else InstanceNotFound(instance_id)
        for instance_id in instance_ids
    ]


async def _bear(connection: Connection, app: str, batches: Sequence[Batch], spoilt: dict[UUID, HoldfastError]) -> None:
    children = [(b, child) for b in batches for child in b.children]
    if not children:
        return
    cursor = await connection.execute(
        _SQL["bear"],
        {
            "app": app,
            "instance_ids": [child.instance_id for _, child in children],
            "parent_ids": [b.instance_id for b, _ in children],
            "subflows": [child.mode for _, child in children],
            "awaited_as": [child.awaited_as for _, child in children],
            "workflows": [child.workflow for _, child in children],
            "program_hashes": [child.program_hash for _, child in children],
            "correlation_keys": [child.correlation_key for _, child in children],
            "partitions": [child.partition for _, child in children],
            **inbox.columns([child.start for _, child in children]),
        },
        binary=True,
    )
    born = {instance_id for (instance_id,) in await cursor.fetchall()}
    for batch, child in children:
        if child.instance_id not in born:
            spoilt[batch.instance_id] = KeyInUse(
                batch.instance_id, message_type=child.start.type, correlation_key=child.correlation_key
            )
    continued = [(b.instance_id, child.instance_id) for b, child in children if child.mode == "continued"]
    if continued:
        olds, news = zip(*continued, strict=True)
        await connection.execute(_SQL["hand_on"], {"instance_ids": [*olds], "successor_ids": [*news]}, binary=True)


async def _advance_inner(connection: Connection, batches: Sequence[Batch], spoilt: dict[UUID, HoldfastError]) -> None:
    inner = [(b, it) for b in batches for it in b.inner]
    if not inner:
        return
    states = [it.state for _, it in inner]
    cursor = await connection.execute(
        _SQL["advance_inner"],
        {
            "instance_ids": [it.instance_id for _, it in inner],
            "held_by": [b.instance_id for b, _ in inner],
            "parent_ids": [state.parent for state in states],
            "workflows": [it.workflow for _, it in inner],
            "program_hashes": [it.program_hash for _, it in inner],
            "correlation_keys": [it.correlation_key for _, it in inner],
            "start_message_ids": [it.start_message_id for _, it in inner],
            "expected": [it.expected_version for _, it in inner],
            "versions": [state.version for state in states],
            "statuses": [state.execution_status for state in states],
            "outcomes": [state.outcome for state in states],
            "suspended": [state.is_suspended for state in states],
            "reasons": [state.suspension_reason for state in states],
            "exception_names": [state.suspension_exception_name for state in states],
            "states": [dumps(it.state, it.keeping.state_encoding) for _, it in inner],
            "encodings": [it.keeping.state_encoding for _, it in inner],
            "promoted": [promoted(state) for state in states],
        },
        binary=True,
    )
    advanced = {instance_id for (instance_id,) in await cursor.fetchall()}
    for batch, it in inner:
        if it.instance_id not in advanced:
            spoilt[batch.instance_id] = InstanceLockLost(it.instance_id)
