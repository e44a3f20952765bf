"""What operators and users ask of the instance store and of the messages that were given up.

Lists come in pages of at most ``limit`` items; the last item of a page says where the next one begins. The
caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, Unpack
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row

from holdfast.projections.criteria import Criteria, Order, Sort, completed, order
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.errors import InstanceNotFound, InvalidQuery
from holdfast.schemas.postgres.statements import load
from holdfast.schemas.words import BookmarkKind, ExecutionStatus, Outcome, SubflowMode

_SQL = load(__package__)
_Row = TypeVar("_Row")
_LEAST, _GREATEST = UUID(int=0), UUID(int=2**128 - 1)
_OWN = ("region", "bookmark", "promoted")
"""Orders that have a statement of their own."""
_FEW = 3_000
"""Among how many instances a promoted value is looked for before its index is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One row of the instance store, without the state.

    ``current_machine`` and the lock are None where no living host holds the instance; ``version`` is the
    number of its events; ``pending_timer`` is when its next timer is due. ``parent_id`` is the instance that brought
    it into being, if one did, and ``subflow`` says how. ``state_encoding`` is how its state is stored, None while there
    is none, and ``promoted`` what it shows for queries. Of one that ``is_discarded`` there is no row any more: it is
    as its history tells, which knows nothing of partitions and machines.
    """

    instance_id: UUID
    app: str
    workflow: str
    program_hash: str
    correlation_key: str
    partition: int | None
    start_message_id: str | None
    execution_status: ExecutionStatus
    outcome: Outcome | None
    is_initialized: bool
    is_suspended: bool
    suspension_reason: str | None
    suspension_exception_name: str | None
    creation_time: datetime
    last_updated_time: datetime
    pending_timer: datetime | None
    active_bookmarks: Sequence[str]
    current_machine: str | None
    last_machine: str | None
    lock_owner: UUID | None
    lock_token: int | None
    lock_expiration: datetime | None
    version: int
    parent_id: UUID | None
    subflow: SubflowMode | None
    state_encoding: StateEncoding | None
    promoted: Mapping[str, Any] | None
    is_discarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative(Instance):
    """An instance that came out of another one, over ``depth`` generations; 0 is that one itself."""

    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBookmark:
    """Where an instance waits: for a timer due at ``due``, or for a message of a type and key.

    A subflow's end and an activity's result are messages too.
    """

    name: str
    kind: BookmarkKind
    message_type: str | None
    correlation_key: str | None
    due: datetime | None
    line: int
    opened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many instances of a workflow are in one and the same condition."""

    app: str
    workflow: str
    execution_status: ExecutionStatus
    outcome: Outcome | None
    is_initialized: bool
    is_suspended: bool
    instances: int


Class = Literal["live", "suspended", "orphan", "message_lost"]
"""What a non-persisted instance is; see ``NonPersisted``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPersisted:
    """An instance without a persistence point yet, a row of the view ``holdfast.non_persisted``.

    ``class_`` is ``live`` (a living host holds it), ``suspended``, ``orphan`` (no living host holds it, and the
    inbox has its start message still) or ``message_lost``. The last is a likelihood where ``start_message_verdict``
    is None: the start message may still wait in RabbitMQ. ``expected_lifetime`` is what its workflow says, and
    ``is_overdue`` that it is older.
    """

    instance_id: UUID
    app: str
    workflow: str
    correlation_key: str
    start_message_id: str
    start_message_verdict: str | None
    class_: Class
    creation_time: datetime
    age: timedelta
    expected_lifetime: timedelta | None
    is_overdue: bool
    current_machine: str | None
    last_machine: str | None
    suspension_reason: str | None
    suspension_exception_name: str | None
    parent_id: UUID | None
    subflow: SubflowMode | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up: taken in (``inbox``), or sent and not routable (``outbox``).

    ``at`` is when it was received or written; ``size`` is the body's in bytes, None if it is not kept.
    """

    box: Literal["inbox", "outbox"]
    app: str
    message_id: str
    type: str
    correlation_key: str
    reason: str | None
    detail: str | None
    instance_id: UUID | None
    at: datetime
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDeadLetter(DeadLetter):
    """A dead letter with what is in it."""

    body: bytes | None
    traceparent: str | None


async def instances(
    connection: AsyncConnection[Any],
    *,
    app: str | None = None,
    sort: Sort = "created",
    ascending: bool = False,
    after: Instance | UUID | None = None,
    limit: int = 100,
    **criteria: Unpack[Criteria],
) -> list[Instance]:
    """Return a page of the instances that fit all that is given, from behind ``after``; see ``Criteria``.

    They come in the order of their ids, which are made in the order of time, or of their creation, where that is asked
    for; or, sorted by ``updated``, of their last updates. Of what has the same, ids decide. The newest come first, or
    last if ``ascending``. Raises ``InvalidQuery``, and ``InstanceNotFound`` for an ``after`` that is gone where its
    time is needed.
    """
    if isinstance(after, UUID) and (row := await _instance(connection, after)) is not None:
        after = row
    statement, parameters = find(app, criteria, sort=sort, ascending=ascending, after=after, limit=limit)
    return await _all(connection, Instance, statement, **parameters)


def find(
    app: str | None,
    criteria: Criteria,
    *,
    sort: Sort = "created",
    ascending: bool = False,
    after: Instance | UUID | None = None,
    limit: int = 100,
) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of the statement that finds a page of instances; see ``instances``."""
    if limit < 1:
        raise InvalidQuery(f"a page has one instance at least, not {limit}")
    wanted = completed(criteria, app, sort)
    by = order(wanted, sort)
    if isinstance(after, UUID) and by in ("creation", "update"):
        raise InstanceNotFound(after)
    if wanted["promoted"] is not None:
        wanted["promoted"] = orjson.dumps(wanted["promoted"]).decode()
    bounds = _bounds(by, after, ascending=ascending)
    own = {"by": by, "descending": not ascending, "limit": limit, "few": max(_FEW, limit)}
    if by == "bookmark" and not wanted["is_completed"]:
        # What has a bookmark lives. The planner does not know, and would expect few of them to.
        wanted["is_completed"] = None
    return f"instances_by_{by}" if by in _OWN else "instances_in_order", wanted | bounds | own


def _bounds(by: Order, after: Instance | UUID | None, *, ascending: bool) -> dict[str, Any]:
    """Return the first and the last place, both included, at which a page may have instances."""
    bounds = {"from_time": "-infinity", "from_id": _LEAST, "to_time": "infinity", "to_id": _GREATEST}
    if after is not None:
        instance_id = after if isinstance(after, UUID) else after.instance_id
        end = "from" if ascending else "to"
        bounds[f"{end}_id"] = UUID(int=min(max(instance_id.int + (1 if ascending else -1), 0), _GREATEST.int))
        if isinstance(after, Instance) and by in ("creation", "update"):
            bounds[f"{end}_time"] = after.creation_time if by == "creation" else after.last_updated_time
    return bounds


async def instance(connection: AsyncConnection[Any], instance_id: UUID) -> tuple[Instance, list[OpenBookmark]]:
    """Return one instance and where it waits, or raise ``InstanceNotFound``; one that is discarded too."""
    found = await _instance(connection, instance_id)
    if found is None:
        return await _discarded(connection, instance_id), []
    return found, await _all(connection, OpenBookmark, "bookmarks", instance_id=instance_id)


async def tree(connection: AsyncConnection[Any], instance_id: UUID, limit: int = 1000) -> list[Relative]:
    """Return an instance and what came out of it by way of subflows, nearest first, or raise ``InstanceNotFound``."""
    found = await _all(connection, Relative, "tree", instance_id=instance_id, limit=limit)
    if not found or found[0].depth > 0:
        itself = await _discarded(connection, instance_id)
        found.insert(0, Relative(**{it.name: getattr(itself, it.name) for it in fields(Instance)}, depth=0))
    return found


async def tally(
    connection: AsyncConnection[Any],
    app: str | None = None,
    *,
    workflow: str | None = None,
    program_hash: str | None = None,
) -> list[Tally]:
    """Return how many instances there are of each workflow in each condition, as it is kept with every commit."""
    return await _all(connection, Tally, "tally", app=app, workflow=workflow, program_hash=program_hash)


async def non_persisted(
    connection: AsyncConnection[Any],
    *,
    instance_id: UUID | None = None,
    app: str | None = None,
    class_: Class | None = None,
    older_than: timedelta | None = None,
    is_overdue: bool | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[NonPersisted]:
    """Return a page of the instances without a persistence point that fit all that is given, newest first."""
    return await _all(
        connection,
        NonPersisted,
        "non_persisted",
        instance_id=instance_id,
        app=app,
        class_=class_,
        older_than=older_than,
        is_overdue=is_overdue,
        after=after,
        limit=limit,
    )


async def dead_letters(
    connection: AsyncConnection[Any], *, app: str | None = None, after: DeadLetter | None = None, limit: int = 100
) -> list[DeadLetter]:
    """Return a page of the dead letters of inbox and outbox, newest first."""
    return await _all(
        connection,
        DeadLetter,
        "dead_letters",
        app=app,
        at=after and after.at,
        box=after and after.box,
        message_id=after and after.message_id,
        limit=limit,
    )


async def dead_letter(connection: AsyncConnection[Any], app: str, message_id: str) -> OpenedDeadLetter | None:
    """Return one dead letter with its body; None if the app has none with this message id."""
    found = await _all(connection, OpenedDeadLetter, "dead_letter", app=app, message_id=message_id)
    return found[0] if found else None


async def _instance(connection: AsyncConnection[Any], instance_id: UUID) -> Instance | None:
    found = await _all(connection, Instance, "instance", instance_id=instance_id)
    return found[0] if found else None


async def _discarded(connection: AsyncConnection[Any], instance_id: UUID) -> Instance:
    """Return an instance as its history tells; ``InstanceNotFound`` if it has none, or should have a row."""
    # Few are discarded: who asks for others needs no events.
    from holdfast.events.types import InstanceStarted  # noqa: PLC0415  For the reason above.
    from holdfast.projections.history import events_of  # noqa: PLC0415  As above.
    from holdfast.projections.instance import fold  # noqa: PLC0415  As above.

    recorded = [recorded async for recorded in events_of(connection, instance_id)]
    state = fold(each.event for each in recorded)
    if state.execution_status != "closed":
        raise InstanceNotFound(instance_id)
    first, last = recorded[0], recorded[-1]
    return Instance(
        instance_id=instance_id,
        app=first.metadata.get("app", ""),
        workflow=state.workflow,
        program_hash=state.program_hash,
        correlation_key=state.correlation_key,
        partition=None,
        start_message_id=first.event.message_id if isinstance(first.event, InstanceStarted) else None,
        execution_status=state.execution_status,
        outcome=state.outcome,
        is_initialized=True,
        is_suspended=state.is_suspended,
        suspension_reason=state.suspension_reason,
        suspension_exception_name=state.suspension_exception_name,
        creation_time=first.recorded_at,
        last_updated_time=last.recorded_at,
        pending_timer=None,
        active_bookmarks=(),
        current_machine=None,
        last_machine=None,
        lock_owner=None,
        lock_token=None,
        lock_expiration=None,
        version=state.version,
        parent_id=None if state.parent is None else UUID(state.parent),
        subflow=state.subflow,
        state_encoding=None,
        promoted=state.promoted or None,
        is_discarded=True,
    )


async def _all(connection: AsyncConnection[Any], row: type[_Row], name: str, **parameters: Any) -> list[_Row]:
    async with connection.cursor(row_factory=class_row(row), binary=True) as cursor:
        await cursor.execute(_SQL[name], parameters)
        return await cursor.fetchall()
