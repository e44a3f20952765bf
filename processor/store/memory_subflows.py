"""What batches change besides their own instance, in memory: children, inner subflows, deposits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from holdfast.processor.engine.provider import Batch, Deposit, InnerBatch, Registration
from holdfast.processor.store.memory_tables import InstanceRow, Tables, settle
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import (
    HoldfastError,
    InstanceLockLost,
    InstanceNotFound,
    InstanceUnreadable,
    KeyInUse,
    StorageError,
    WrongExpectedVersion,
)


def refusals(tables: Tables, members: Sequence[Batch]) -> dict[UUID, HoldfastError]:
    """Return what is wrong with the first member that has something wrong."""
    taken: set[tuple[str, str]] = set()
    for batch in members:
        for it in batch.inner:
            row = tables.instances.get(it.instance_id)
            actual = row.version if row is not None else 0
            if actual != it.expected_version:
                wrong = WrongExpectedVersion(it.instance_id, expected=it.expected_version, actual=actual)
                return {batch.instance_id: wrong}
            if row is not None and (row.subflow != "run" or row.is_completed):
                return {batch.instance_id: InstanceLockLost(it.instance_id)}
        closing = {own_key(tables, batch)} if batch.state.execution_status == "closed" else set()
        for child in batch.children:
            wanted = (child.workflow, child.correlation_key)
            lives = tables.lives(*wanted) and wanted not in closing
            if lives or wanted in taken or child.start.message_id in tables.inbox:
                refusal = KeyInUse(
                    batch.instance_id, message_type=child.start.type, correlation_key=child.correlation_key
                )
                return {batch.instance_id: refusal}
            taken.add(wanted)
    return {}


def own_key(tables: Tables, batch: Batch) -> tuple[str, str]:
    """Return the workflow and the key of a batch's instance."""
    registration = tables.instances[batch.instance_id].registration
    return registration.workflow, registration.correlation_key


def apply(tables: Tables, batch: Batch) -> None:
    """Bear the children of a batch, advance its inner subflows and put its deposits into mailboxes."""
    for child in batch.children:
        registration = Registration(
            instance_id=child.instance_id,
            workflow=child.workflow,
            program_hash=child.program_hash,
            correlation_key=child.correlation_key,
            start_message_id=child.start.message_id,
            partition=child.partition,
        )
        tables.instances[child.instance_id] = InstanceRow(
            registration,
            owner=None,
            created=tables.now(),
            token=0,
            parent_id=batch.instance_id,
            subflow=child.mode,
            awaited_as=child.awaited_as,
        )
        if child.mode == "continued":
            _hand_on(tables, batch.instance_id, child.instance_id)
        tables.insert(child.start, "message", child.instance_id)
    for it in batch.inner:
        _advance(tables, batch, it)
    for deposit in batch.deposits:
        if deposit.envelope.message_id not in tables.inbox:
            _deposit(tables, deposit)


def _advance(tables: Tables, batch: Batch, it: InnerBatch) -> None:
    holder, parent = tables.instances[batch.instance_id], it.state.parent
    row = tables.instances.get(it.instance_id)
    if row is None:
        registration = Registration(
            instance_id=it.instance_id,
            workflow=it.workflow,
            program_hash=it.program_hash,
            correlation_key=it.correlation_key,
            start_message_id=it.start_message_id,
            partition=holder.registration.partition,
        )
        parent_id = UUID(parent) if parent else None
        row = InstanceRow(registration, owner=None, created=tables.now(), parent_id=parent_id, subflow="run")
        tables.instances[it.instance_id] = row
    row.come_to(it.state, it.keeping.state_encoding)
    row.last_machine = holder.last_machine


def read_state(tables: Tables, instance_id: UUID) -> InstanceState | HoldfastError:
    """Return the state of a persisted instance."""
    row = tables.instances.get(instance_id)
    try:
        return (None if row is None else row.read()) or InstanceNotFound(instance_id)
    except StorageError as error:
        return InstanceUnreadable(instance_id, str(error))


def _hand_on(tables: Tables, instance_id: UUID, successor_id: UUID) -> None:
    for row in tables.buffered():
        if row.instance_id == instance_id:
            row.instance_id = successor_id
            row.message = replace(row.message, instance_id=successor_id)


def _deposit(tables: Tables, deposit: Deposit) -> None:
    heirs = (i for i, row in tables.instances.items() if row.awaited_as == deposit.instance_id and not row.is_completed)
    instance_id = next(heirs, deposit.instance_id) if deposit.instance_id is not None else None
    row = tables.insert(deposit.envelope, deposit.kind, instance_id)
    addressee = tables.instances.get(instance_id) if instance_id is not None else None
    if instance_id is not None and (addressee is None or addressee.is_completed):
        settle(row, "rejected", reason="completed")
