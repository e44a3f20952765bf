"""Locks: registering, locking, loading and releasing instances.

A host lives by one lease, and an instance names its owner and a token that grows with each change of
owner. A lock holds while the owner's lease lives; nothing has to be written for it to end. Whoever takes an
instance over raises the token, so that the former owner, should it still run, cannot commit: see
``projections/sql/store.sql``. All of it goes by the database's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Rollback

from holdfast.processor.engine.provider import AlreadyConsumed, Loaded, Registration, Suspension
from holdfast.processor.store.connections import Connection
from holdfast.processor.store.inbox import stored_message
from holdfast.projections.instance import InstanceState
from holdfast.projections.snapshot import loads
from holdfast.schemas.encodings import StateEncoding
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
from holdfast.schemas.identifiers import digest
from holdfast.schemas.postgres.statements import load as load_statements

_SQL = load_statements(__package__)


async def register(
    connection: Connection, app: str, host_id: UUID, registrations: Sequence[Registration]
) -> list[int | HoldfastError]:
    """Register instances, each locked by the host, and return the tokens.

    Whoever registers a start message meets the row of the instance that it started, or its verdict. Where the row may
    have gone with the verdict while this waited for it, the verdict is looked for once more, and all is done again.
    """
    if any(r.keeping.on_completion == "delete" for r in registrations):
        async with connection.transaction() as transaction:
            answers = await _register(connection, app, host_id, registrations)
            cursor = await connection.execute(
                _SQL["overtaken"],
                {"app": app, "start_message_ids": [r.start_message_id for r in registrations]},
                binary=True,
            )
            if await cursor.fetchone() is None:
                return answers
            raise Rollback(transaction)
    return await _register(connection, app, host_id, registrations)


async def _register(
    connection: Connection, app: str, host_id: UUID, registrations: Sequence[Registration]
) -> list[int | HoldfastError]:
    cursor = await connection.execute(
        _SQL["register"],
        {
            **_columns(registrations),
            "app": app,
            "host_id": host_id,
            "partitions": [r.partition for r in registrations],
        },
        binary=True,
    )
    answers: dict[UUID, int | HoldfastError] = dict(await cursor.fetchall())
    refused = [r for r in registrations if r.instance_id not in answers]
    if refused:
        cursor = await connection.execute(
            _SQL["why_not_registered"], {**_columns(refused), "app": app, "host_id": host_id}, binary=True
        )
        reasons = {row[0]: row[1:] for row in await cursor.fetchall()}
        for registration in refused:
            answers[registration.instance_id] = _refusal(registration, reasons[registration.instance_id])
    return [answers[r.instance_id] for r in registrations]


async def load(
    connection: Connection, app: str, host_id: UUID, instance_ids: Sequence[UUID]
) -> list[Loaded | HoldfastError]:
    """Lock and load instances; one that the database cannot give harms no other."""
    try:
        return await _load(connection, app, host_id, instance_ids)
    except (psycopg.DataError, psycopg.InternalError) as error:
        if len(instance_ids) == 1:
            return [InstanceUnreadable(instance_ids[0], str(error))]
        return [answer for each in instance_ids for answer in await load(connection, app, host_id, [each])]


async def _load(
    connection: Connection, app: str, host_id: UUID, instance_ids: Sequence[UUID]
) -> list[Loaded | HoldfastError]:
    parameters = {"app": app, "host_id": host_id, "instance_ids": list(instance_ids)}
    cursor = await connection.execute(_SQL["lock"], parameters, binary=True)
    locked: dict[UUID, bool] = dict(await cursor.fetchall())
    cursor = await connection.execute(_SQL["load"], parameters, binary=True)
    rows = {row[0]: row for row in await cursor.fetchall()}
    return [
        _loaded(instance_id, rows.get(instance_id), host_id, is_taken_over=locked.get(instance_id))
        for instance_id in instance_ids
    ]


async def release(connection: Connection, host_id: UUID, instance_ids: Sequence[UUID]) -> None:
    """Give locks of this host back."""
    await connection.execute(_SQL["release"], {"host_id": host_id, "instance_ids": list(instance_ids)})


async def leave_to_be_found(connection: Connection, instance_id: UUID) -> None:
    """Have an instance that nobody holds taken up soon, if a message waits in the inbox that it waits for."""
    await connection.execute(_SQL["leave_to_be_found"], {"instance_id": instance_id})


async def suspend(connection: Connection, suspensions: Sequence[Suspension]) -> None:
    """Suspend non-persisted instances, each in a transaction; raises ``InstanceLockLost`` at the first that is lost."""
    for suspension in suspensions:
        await _suspend(connection, suspension)


async def resume(connection: Connection, host_id: UUID, instance_id: UUID, control_id: str) -> None:
    """Let a suspended non-persisted instance go on; raises ``InstanceLockLost``."""
    cursor = await connection.execute(
        _SQL["resume"], {"host_id": host_id, "instance_id": instance_id, "control_id": control_id}
    )
    if await cursor.fetchone() is None:
        raise InstanceLockLost(instance_id)


async def _suspend(connection: Connection, suspension: Suspension) -> None:
    envelope = suspension.message.envelope if suspension.message else None
    cursor = await connection.execute(
        _SQL["suspend"],
        {
            "instance_id": suspension.instance_id,
            "host_id": suspension.host_id,
            "lock_token": suspension.lock_token,
            "reason": suspension.reason,
            "exception_name": suspension.exception_name,
            "message_id": envelope.message_id if envelope else None,
            "kind": suspension.message.kind if suspension.message else None,
            "type": envelope.type if envelope else None,
            "key": envelope.key if envelope else None,
            "body": envelope.body if envelope else None,
            "digest": digest(envelope.type, envelope.key, envelope.body) if envelope else None,
            "traceparent": envelope.traceparent if envelope else None,
            "reply_to": envelope.reply_to if envelope else None,
        },
    )
    if await cursor.fetchone() is None:
        raise InstanceLockLost(suspension.instance_id)


def _columns(registrations: Sequence[Registration]) -> dict[str, Any]:
    return {
        "instance_ids": [r.instance_id for r in registrations],
        "workflows": [r.workflow for r in registrations],
        "program_hashes": [r.program_hash for r in registrations],
        "correlation_keys": [r.correlation_key for r in registrations],
        "start_message_ids": [r.start_message_id for r in registrations],
    }


def _refusal(registration: Registration, reasons: Sequence[Any]) -> int | HoldfastError:
    own_token, is_known, key_lives, starts_with = reasons
    if own_token is not None:
        return int(own_token)
    if is_known:
        return AlreadyConsumed(registration.start_message_id)
    if key_lives:
        return KeyInUse(
            registration.instance_id,
            message_type=starts_with or registration.workflow,
            correlation_key=registration.correlation_key,
        )
    return InstanceLockLost(registration.instance_id)


def _loaded(
    instance_id: UUID, row: Sequence[Any] | None, host_id: UUID, *, is_taken_over: bool | None
) -> Loaded | HoldfastError:
    """Return what was loaded; ``is_taken_over`` is None if the instance could not be locked."""
    if row is None:
        return InstanceNotFound(instance_id)
    (_, workflow, program_hash, key, partition, start_message_id, token, is_initialized, is_suspended) = row[:9]
    (is_completed, version, state, encoding, owner, machine, expiration, is_held) = row[9:17]
    (parent_id, subflow, awaited_as) = row[17:20]
    if is_completed:
        return InstanceCompleted(instance_id)
    if subflow == "run":
        return InstanceNotFound(instance_id)
    if is_taken_over is None or owner != host_id or not is_held:
        if is_held and owner != host_id:
            return InstanceLocked(instance_id, owner=owner, machine=machine, expiration=expiration.astimezone(UTC))
        return InstanceLockLost(instance_id)
    folded = readable(instance_id, version, state, encoding) if is_initialized else None
    if isinstance(folded, InstanceUnreadable):
        return folded
    return Loaded(
        instance_id=instance_id,
        workflow=workflow,
        program_hash=program_hash,
        correlation_key=key,
        partition=partition,
        start_message_id=start_message_id,
        lock_token=token,
        is_initialized=is_initialized,
        is_suspended=is_suspended,
        state=folded,
        start_message=None if row[20] is None else stored_message(row[20:]),
        parent_id=parent_id,
        subflow=subflow,
        awaited_as=awaited_as,
        is_taken_over=is_taken_over,
    )


def readable(
    instance_id: UUID, version: int, state: bytes, encoding: StateEncoding
) -> InstanceState | InstanceUnreadable:
    """Return a stored state, unless it cannot be read or is not that of the instance's version."""
    try:
        folded = loads(state, encoding)
    except StorageError as error:
        return InstanceUnreadable(instance_id, str(error))
    if folded.version != version:
        return InstanceUnreadable(instance_id, f"it is at version {folded.version}, the instance at {version}")
    return folded
