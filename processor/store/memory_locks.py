"""Locks of the provider in memory: registering, loading, suspending and resuming instances."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from holdfast.processor.engine.provider import AlreadyConsumed, Consumed, Loaded, Registration, Suspension
from holdfast.processor.store.memory_tables import InstanceRow, Tables, settle
from holdfast.schemas.errors import (
    HoldfastError,
    InstanceCompleted,
    InstanceLocked,
    InstanceLockLost,
    InstanceNotFound,
    InstanceUnreadable,
    KeyInUse,
    StorageError,
)


def register(tables: Tables, host_id: UUID, registration: Registration) -> int | HoldfastError:
    """Register an instance that the host locks, and return the token."""
    host = tables.living(host_id, tables.now())
    own = tables.instances.get(registration.instance_id)
    if own is not None and own.owner == host_id:
        return own.token
    if host is None:
        return InstanceLockLost(registration.instance_id)
    known = tables.inbox.get(registration.start_message_id)
    rows = [row.registration for row in tables.instances.values()]
    if (known is not None and known.verdict != "buffered") or any(
        other.start_message_id == registration.start_message_id for other in rows
    ):
        return AlreadyConsumed(registration.start_message_id)
    if tables.lives(registration.workflow, registration.correlation_key):
        program = tables.programs.get(registration.program_hash)
        return KeyInUse(
            registration.instance_id,
            message_type=(program.starts_with if program else None) or registration.workflow,
            correlation_key=registration.correlation_key,
        )
    tables.instances[registration.instance_id] = InstanceRow(
        registration, owner=host_id, created=tables.now(), last_machine=host.host.machine
    )
    return 1


def load(tables: Tables, host_id: UUID, instance_id: UUID) -> Loaded | HoldfastError:
    """Lock and load an instance."""
    now = tables.now()
    row = tables.instances.get(instance_id)
    if row is not None and row.is_completed:
        return InstanceCompleted(instance_id)
    if row is None or row.subflow == "run":
        return InstanceNotFound(instance_id)
    holder = tables.living(row.owner, now)
    if holder is not None and row.owner is not None and row.owner != host_id:
        return InstanceLocked(instance_id, owner=row.owner, machine=holder.host.machine, expiration=holder.expiration)
    host = tables.living(host_id, now)
    if host is None:
        return InstanceLockLost(instance_id)
    is_taken_over = row.owner is not None and row.owner != host_id
    if row.owner != host_id:
        row.owner, row.token = host_id, row.token + 1
    row.last_machine = host.host.machine
    try:
        state = row.read()
    except StorageError as error:
        return InstanceUnreadable(instance_id, str(error))
    registration = row.registration
    start = tables.inbox.get(registration.start_message_id)
    kept = start is not None and not row.is_initialized and start.verdict in ("buffered", "dead_lettered")
    return Loaded(
        instance_id=instance_id,
        workflow=registration.workflow,
        program_hash=registration.program_hash,
        correlation_key=registration.correlation_key,
        partition=registration.partition,
        start_message_id=registration.start_message_id,
        lock_token=row.token,
        is_initialized=row.is_initialized,
        is_suspended=row.is_suspended,
        state=state,
        start_message=start.message if kept and start is not None else None,
        parent_id=row.parent_id,
        subflow=row.subflow,
        awaited_as=row.awaited_as,
        is_taken_over=is_taken_over,
    )


def suspend(tables: Tables, suspension: Suspension) -> None:
    """Suspend a non-persisted instance and keep its start message; raises ``InstanceLockLost``."""
    row = tables.instances.get(suspension.instance_id)
    if row is None or not tables.holds(row, suspension.host_id, suspension.lock_token) or row.is_initialized:
        raise InstanceLockLost(suspension.instance_id)
    row.is_suspended, row.owner = True, None
    tables.burst_attempts.pop(suspension.instance_id, None)
    row.suspension_reason, row.suspension_exception_name = suspension.reason, suspension.exception_name
    if suspension.message is not None:
        _keep_for(tables, suspension.instance_id, suspension.message)


def resume(tables: Tables, host_id: UUID, instance_id: UUID, control_id: str) -> None:
    """Let a suspended non-persisted instance go on; raises ``InstanceLockLost``."""
    row = tables.instances.get(instance_id)
    if row is None or not tables.holds(row, host_id, row.token) or row.is_initialized:
        raise InstanceLockLost(instance_id)
    row.is_suspended, row.suspension_reason, row.suspension_exception_name = False, None, None
    control = tables.inbox.get(control_id)
    if control is not None and control.verdict == "buffered":
        settle(control, "applied", instance_id=instance_id)


def _keep_for(tables: Tables, instance_id: UUID, message: Consumed) -> None:
    envelope = message.envelope
    row = tables.inbox.get(envelope.message_id) or tables.insert(envelope, message.kind, instance_id)
    if row.verdict in ("buffered", "dead_lettered"):
        row.verdict, row.reason, row.detail, row.instance_id = "buffered", None, None, instance_id
        row.message = replace(row.message, instance_id=instance_id)
    tables.attempts.pop(envelope.message_id, None)
