"""Beginning a new instance where another one stood.

The fork is written in one transaction, by a host that nobody ever sees, and the instance that it came from is only
read. From there on the fork is an instance like any other: a worker takes it up if there is something to do.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from holdfast.events.postgres import read_stream
from holdfast.events.types import (
    ActivityCompleted,
    ActivityDelayed,
    ActivityFailed,
    ActivityIntended,
    ActivityRequested,
    ActivityResolved,
    Event,
    InstanceContinued,
    InstanceForked,
    Json,
    MessageSent,
    SubflowStarted,
)
from holdfast.processor.engine.batch import Batch
from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import Registration
from holdfast.processor.store import hosts, inbox, locks
from holdfast.processor.store.connections import Connection
from holdfast.processor.store.persistence_point import write
from holdfast.projections import history, queries
from holdfast.projections.forking import forked
from holdfast.projections.instance import InstanceState, fold
from holdfast.schemas.errors import ForkRefused, KeyInUse, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_STORE = load("holdfast.processor.store")
_LEASE = 60.0
"""Seconds; the host that writes a fork ends with its transaction."""

_MEND = "give the fork a key of its own, or end that one first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What the origin did after the point of the fork, at a ``version``: ``name`` is that of the activity or workflow.

    A ``record`` is an activity whose SQL committed with it; a ``successor`` is the instance as which the origin went on
    when it ended. ``detail`` is the id of the other instance, or what became of an activity by now: ``completed``,
    ``failed``, or how far it is without an outcome. Then it is ``intended``, so it may have run, ``delayed`` until its
    next attempt, or ``requested`` of a ``queue`` by the message with the id ``request``.
    """

    version: int
    kind: str
    name: str
    detail: str
    queue: str | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentLater:
    """A message that the origin sent after the point of the fork, at a ``version``."""

    version: int
    message_id: str
    type: str
    correlation_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A fork, or what one would be: then ``instance_id`` is None.

    ``changed`` names the variables that are not as they were, as ``frame.name``. ``sent`` and ``done`` are what the
    origin did after ``at``: the fork may do the same again, under ids and idempotency keys of its own.
    """

    instance_id: UUID | None
    origin: UUID
    at: int
    app: str
    state: InstanceState
    changed: tuple[str, ...]
    sent: tuple[SentLater, ...]
    done: tuple[Done, ...]


async def fork(
    connection: Connection,
    instance_id: UUID,
    at: int,
    new_id: UUID,
    *,
    by: str,
    why: str | None,
    key: str | None,
    variables: Mapping[str, Json] | None,
    dry_run: bool,
) -> Fork:
    """Begin an instance with the id ``new_id`` where another one stood at a version; with ``dry_run`` only try it."""
    found, _ = await queries.instance(connection, instance_id)
    await _check_point(connection, instance_id, at)
    before = await history.state_at(connection, instance_id, at)
    events = forked(instance_id, before, by=by, why=why, key=key, variables=variables)
    state = fold(events)
    async with connection.transaction(force_rollback=dry_run):
        await _write(connection, found, new_id, events, state)
    sent, done = await _afterwards(connection, instance_id, at, state.workflow)
    first = events[0]
    return Fork(
        instance_id=None if dry_run else new_id,
        origin=instance_id,
        at=at,
        app=found.app,
        state=state,
        changed=first.changed if isinstance(first, InstanceForked) else (),
        sent=sent,
        done=done,
    )


async def _check_point(connection: Connection, origin: UUID, at: int) -> None:
    cursor = await connection.execute(_SQL["persistence_points"], {"instance_id": origin, "at": at})
    before, behind = await cursor.fetchone() or (None, None)
    if before is None and behind is None:
        raise ForkRefused(origin, "nothing of it is persisted yet")
    if before != at and not (behind is None and at > before):
        nearest = " and ".join(str(version) for version in (before, behind) if version is not None)
        raise ForkRefused(origin, f"version {at} is inside of a transaction; the nearest ends of one are {nearest}")


async def _write(
    connection: Connection, origin: queries.Instance, new_id: UUID, events: list[Event], state: InstanceState
) -> None:
    """Write a fork as a persistence point of an instance that was registered just before."""
    cursor = await connection.execute(_SQL["is_there"], {"instance_id": new_id})
    if await cursor.fetchone() is not None:
        # The connection broke after the commit, and all is done already.
        return
    app = origin.app
    host = Host(host_id=new_id, app=app, machine=socket.gethostname(), process_id=os.getpid(), lease_seconds=_LEASE)
    await hosts.open_host(connection, host)
    registration = Registration(
        instance_id=new_id,
        workflow=state.workflow,
        program_hash=state.program_hash,
        correlation_key=state.correlation_key,
        start_message_id=f"fork-{new_id}",
        partition=origin.partition or 0,
    )
    (token,) = await locks.register(connection, app, host.host_id, [registration])
    if not isinstance(token, int):
        raise await _not_registered(connection, origin, state, token)
    batch = Batch(
        instance_id=new_id,
        host_id=host.host_id,
        lock_token=token,
        expected_version=0,
        events=events,
        metadata={"app": app},
        state=state,
        opened=tuple(state.bookmarks),
        release=True,
    )
    written = await write(connection, app, [batch])
    for error in (*written.refused.values(), *written.spoilt.values()):
        if not isinstance(error, KeyInUse):
            raise error
        waits = f"{error.message_type} with key {error.correlation_key!r}"
        raise ForkRefused(origin.instance_id, f"another instance waits for {waits}, as the fork would: {_MEND}")
    if written.late:
        raise StorageError("other transactions got in the way: try again")
    await hosts.close_host(connection, app, host.host_id)
    await locks.leave_to_be_found(connection, new_id)
    await connection.execute(_STORE["notify"], {"channel": inbox.CHANNEL, "app": app})


async def _not_registered(
    connection: Connection, origin: queries.Instance, state: InstanceState, error: Exception
) -> Exception:
    """Return why the store takes no instance like the fork."""
    cursor = await connection.execute(
        _SQL["living_with_key"],
        {"app": origin.app, "workflow": state.workflow, "correlation_key": state.correlation_key},
    )
    row = await cursor.fetchone()
    if row is None:
        return error
    who = "it" if row[0] == origin.instance_id else f"instance {row[0]}"
    return ForkRefused(origin.instance_id, f"{who} lives under the key {state.correlation_key!r}: {_MEND}")


async def _afterwards(
    connection: Connection, origin: UUID, at: int, workflow: str
) -> tuple[tuple[SentLater, ...], tuple[Done, ...]]:
    """Return what an instance sent, and what it did, after a version."""
    sent: list[SentLater] = []
    done: dict[str, Done] = {}
    async for recorded in read_stream(connection, origin, at + 1):
        event, version = recorded.event, recorded.version
        if isinstance(event, MessageSent):
            sent.append(
                SentLater(
                    version=version,
                    message_id=event.message_id,
                    type=event.message_type,
                    correlation_key=event.correlation_key,
                )
            )
        found = _done(version, event, workflow)
        if found is not None:
            of, it = found
            done.pop(of, None)  # A call is told once, as it stands now.
            done[of] = it
    return tuple(sent), tuple(done.values())


def _done(version: int, event: Event, workflow: str) -> tuple[str, Done] | None:
    """Return what an event says that the instance did, behind what tells it from the others: a call, or an instance."""
    queue: str | None = None
    request: str | None = None
    kind = "activity"
    match event:
        case SubflowStarted(instance_id=other, workflow=name):
            return other, Done(version=version, kind="subflow", name=name, detail=other)
        case InstanceContinued(instance_id=other):
            return other, Done(version=version, kind="successor", name=workflow, detail=other)
        case ActivityIntended():
            detail = "intended"
        case ActivityRequested():
            detail, queue, request = "requested", event.queue, event.message_id
        case ActivityDelayed():
            detail = "delayed"
        case ActivityCompleted():
            kind, detail = "record" if event.is_record else "activity", "completed"
        case ActivityResolved(decision="done"):
            detail = "completed"
        case ActivityFailed() | ActivityResolved(decision="fail"):
            detail = "failed"
        case _:
            return None
    done = Done(version=version, kind=kind, name=event.activity, detail=detail, queue=queue, request=request)
    return event.idempotency_key, done
