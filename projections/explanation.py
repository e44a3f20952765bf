"""Why an instance stands where it stands, and what would move it.

What is known is read in a few bounded queries; which ways on there are follows from it alone. The caller owns the
connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from holdfast.projections import history, queries
from holdfast.projections.inbox import InboxMessage
from holdfast.projections.queries import Instance, NonPersisted, OpenBookmark
from holdfast.schemas.postgres.statements import load
from holdfast.schemas.words import ExecutionStatus, Outcome

LIMIT = 20
"""How many messages of a mailbox, and how many near misses, are given at most."""

WINDOW = 10_000
"""Among how many of an app's newest buffered messages, and dead letters, near misses are looked for."""

_SQL = load(__package__)
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(OpenBookmark):
    """An open bookmark, and how it is with what would close it.

    ``is_due`` says that a timer's time has come; while it ``is_held_back``, it waits for the messages that came to its
    partition before a worker did. ``child_…`` is the subflow that is waited for, None if it is not
    there. ``activity`` with ``queue`` and ``attempt`` is what an activity worker was asked for; the request
    ``is_unpublished`` until the broker has confirmed it, and was given up if there is a ``dead_reason``;
    ``heartbeat_due`` is when its worker is given up, from the first heartbeat on.
    """

    is_due: bool
    is_held_back: bool
    child_id: UUID | None
    child_workflow: str | None
    child_status: ExecutionStatus | None
    child_outcome: Outcome | None
    child_is_suspended: bool
    activity: str | None
    queue: str | None
    attempt: int | None
    is_unpublished: bool
    dead_reason: str | None
    heartbeat_due: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss(InboxMessage):
    """A message that the instance does not get, though it may have been meant for it.

    ``why`` is ``another_key`` (of a type that is waited for), ``another_type`` (of its key, but nothing that its
    program receives) or ``dead_letter``. Keys that ``looks_alike`` marks differ in nothing but case, zeros that lead
    a number and what is neither a letter nor a digit.
    """

    why: Literal["another_key", "another_type", "dead_letter"]
    looks_alike: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedTimer:
    """A timer of what the instance waits for now that somebody gave another time, ``due``, or closed: None."""

    bookmark: str
    due: str | None
    by: str
    why: str | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Who could run an instance: workers of its app, and how many of them have its program compiled themselves.

    ``holder_lapsed`` says that the host which held it is gone, since ``holder_lease``.
    """

    holder_lapsed: bool
    holder_lease: datetime | None
    living_workers: int
    workers_with_program: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Something that would move the instance; ``bookmark`` is the one that it would close, if any."""

    by: Literal["message", "timer", "child", "activity", "command", "worker", "parent"]
    text: str
    bookmark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an instance stands where it stands.

    ``non_persisted`` says of which class it is, None once it is persisted. ``detail`` says more of its suspension;
    ``in_doubt`` are the idempotency keys of its calls in doubt. ``changed_timers`` are the newest first. ``mailbox``
    holds the oldest of what is buffered for it, commands too, ``near_misses`` begins with keys that look alike, then
    the newest; each is cut at ``LIMIT``.
    """

    instance: Instance
    circumstances: Circumstances
    non_persisted: NonPersisted | None
    detail: str | None
    in_doubt: Sequence[str]
    waits: Sequence[Wait]
    changed_timers: Sequence[ChangedTimer]
    mailbox: Sequence[InboxMessage]
    near_misses: Sequence[NearMiss]

    @property
    def ways(self) -> list[Way]:
        """What would move the instance; empty if nothing will any more."""
        return [*_ways(self)]


async def explain(connection: AsyncConnection[Any], instance_id: UUID) -> Explanation:
    """Return why an instance stands where it stands, or raise ``InstanceNotFound``."""
    instance, _ = await queries.instance(connection, instance_id)
    (circumstances,) = await _all(
        connection,
        Circumstances,
        "circumstances",
        instance_id=instance_id,
        app=instance.app,
        program_hash=instance.program_hash,
    )
    detail, in_doubt = None, list[str]()
    if instance.is_suspended:
        state = await history.state_at(connection, instance_id)
        detail = state.suspension_detail
        in_doubt = [key for key, call in state.calls.items() if call.status == "intended"]
    return Explanation(
        instance=instance,
        circumstances=circumstances,
        non_persisted=next(iter(await queries.non_persisted(connection, instance_id=instance_id)), None),
        detail=detail,
        in_doubt=in_doubt,
        waits=await _all(connection, Wait, "waits", instance_id=instance_id),
        changed_timers=await _all(connection, ChangedTimer, "changed_timers", instance_id=instance_id, limit=LIMIT),
        mailbox=await _all(connection, InboxMessage, "mailbox", instance_id=instance_id, limit=LIMIT),
        near_misses=await _all(
            connection, NearMiss, "near_misses", instance_id=instance_id, limit=LIMIT, window=WINDOW
        ),
    )


async def _all(connection: AsyncConnection[Any], row: type[_Row], name: str, **parameters: Any) -> list[_Row]:
    async with connection.cursor(row_factory=class_row(row), binary=True) as cursor:
        await cursor.execute(_SQL[name], parameters)
        return await cursor.fetchall()


def _ways(it: Explanation) -> Iterator[Way]:
    instance = it.instance
    if instance.execution_status == "closed":
        return
    if instance.subflow == "run":
        yield Way(by="parent", text=f"it runs within instance {instance.parent_id}, and moves with that one")
        return
    for message in it.mailbox:
        if message.kind == "control":
            yield Way(by="command", text=f"the command {message.message_id}, which no worker has taken up yet")
    if instance.is_suspended:
        yield _out_of_suspension(it)
    elif not instance.is_initialized:
        yield _first_run(it)
    elif instance.execution_status == "executing":
        yield _next_run(it)
    else:
        for wait in it.waits:
            yield _closing(it, wait)
    if not it.circumstances.living_workers:
        yield Way(by="worker", text=f"first of all a worker of the app {instance.app}: none is alive")
    elif not it.circumstances.workers_with_program:
        text = "a worker that can run its program: the living ones have another version of it, or need the program key"
        yield Way(by="worker", text=text)


def _out_of_suspension(it: Explanation) -> Way:
    instance_id = it.instance.instance_id
    if it.in_doubt:
        calls = " or ".join(f"--call {call}" for call in it.in_doubt) if len(it.in_doubt) > 1 else ""
        text = f"holdfast resolve {instance_id} {calls}".rstrip() + " with --done RESULT, --retry or --fail"
        return Way(by="command", text=text)
    start = ", which runs it from the start" if not it.instance.is_initialized else ", once the cause is mended"
    return Way(by="command", text=f"holdfast resume {instance_id}{start}")


def _first_run(it: Explanation) -> Way:
    if it.instance.lock_owner is not None:
        return _next_run(it)
    start = it.instance.start_message_id
    match it.non_persisted and it.non_persisted.start_message_verdict:
        case "buffered":
            return Way(by="worker", text=f"any worker of its app, from its start message {start} in the inbox")
        case "dead_lettered":
            text = f"holdfast dead-letters requeue {start}: its start message was given up; or a message of its key"
            return Way(by="command", text=text)
    text = f"its start message {start}, should it still wait in RabbitMQ: the inbox has nothing to start it from"
    return Way(by="message", text=text)


def _next_run(it: Explanation) -> Way:
    instance = it.instance
    if instance.lock_owner is not None:
        text = (
            f"it is in the hands of {instance.current_machine}; should that fall, its lease lapses at "
            f"{_moment(instance.lock_expiration)} and another worker takes over"
        )
        return Way(by="worker", text=text)
    gone = f": the lease of the one that held it lapsed at {_moment(it.circumstances.holder_lease)}"
    return Way(
        by="worker",
        text=f"any worker of its app, which looks for such instances all the time"
        f"{gone if it.circumstances.holder_lapsed and it.circumstances.holder_lease else ''}",
    )


def _closing(it: Explanation, wait: Wait) -> Way:
    match wait.kind:
        case "message":
            text = f"a {wait.message_type} with key {wait.correlation_key!r}, to exchange holdfast.{it.instance.app}"
            return Way(by="message", text=text, bookmark=wait.name)
        case "timer":
            due = f"the timer that is due at {_moment(wait.due)}"
            if wait.is_due and wait.is_held_back:
                due = f"{due}: it is, but its worker first takes in the messages that it found in the partition"
            elif wait.is_due:
                due = f"{due}: it is, and a worker is about to find it"
            return Way(by="timer", text=due, bookmark=wait.name)
        case "child":
            return Way(by="child", text=_child(wait), bookmark=wait.name)
        case "activity":
            return Way(by="activity", text=_activity(wait), bookmark=wait.name)


def _child(wait: Wait) -> str:
    if wait.child_id is None:
        return f"the end of subflow {wait.correlation_key}, which is not in the instance store"
    condition = "suspended" if wait.child_is_suspended else wait.child_outcome or wait.child_status
    return f"the end of subflow {wait.child_id} ({wait.child_workflow}), which is {condition}"


def _activity(wait: Wait) -> str:
    result = f"the result of {wait.activity}, attempt {wait.attempt}, from a worker of queue {wait.queue}"
    if wait.dead_reason is not None:
        request = wait.correlation_key
        return f"{result}: the request was given up ({wait.dead_reason}), holdfast dead-letters requeue {request}"
    if wait.is_unpublished:
        return f"{result}: the request is committed, but not published yet"
    if wait.heartbeat_due is not None:
        return f"{result}, which says that it lives and is given up at {_moment(wait.heartbeat_due)} if it falls silent"
    return result


def _moment(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else moment.isoformat(sep=" ", timespec="seconds")
