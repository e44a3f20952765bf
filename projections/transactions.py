"""The transactions of an instance: its history, cut where it committed, and what else each commit held.

A persistence point is one Postgres transaction. Its events have the transaction's id, and so has all that
committed with them in other streams: subflows that ran within the instance, or the parent within which it ran, and
beside these the other members of the same group. What the SQL of record activities and participants wrote is in tables
that Holdfast does not know; the log says which record activities ended in which transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import (
    ActivityCompleted,
    InstanceContinued,
    InstanceStarted,
    MessageReceived,
    MessageSent,
    Persisted,
    Reason,
    SubflowStarted,
)
from holdfast.projections.history import events_of
from holdfast.schemas.postgres.statements import load
from holdfast.schemas.words import SubflowMode

_SQL = load(__package__)
_PAGE = 50

_Key = tuple[int, int]
"""A transaction: epoch and xid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """A message that the instance took; ``verdict`` and ``version`` are the inbox's, None once it has forgotten it."""

    message_id: str
    message_type: str
    verdict: str | None
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that went into the outbox."""

    message_id: str
    message_type: str
    correlation_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """An instance that came into being; its workflow and key are None for one that goes on in this one's place."""

    instance_id: UUID
    mode: SubflowMode
    workflow: str | None = None
    correlation_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Another instance that committed in the same transaction; ``events`` are the types of what it recorded."""

    instance_id: UUID
    workflow: str | None
    first_version: int
    last_version: int
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One transaction of an instance.

    ``events`` are the types from ``first_version`` to ``last_version``, ``record_activities`` names those whose SQL
    committed here, ``values`` and ``promoted`` what participants and the workflow gave to be kept and to be found by,
    where that changed. ``joined`` are the subflows that ran within the instance, or that it ran within. ``others``
    counts the instances that only shared the group.
    """

    epoch: int
    xid: int
    recorded_at: datetime
    first_version: int
    last_version: int
    reason: Reason | None
    events: tuple[str, ...]
    record_activities: tuple[str, ...]
    values: tuple[str, ...]
    promoted: tuple[str, ...]
    consumed: tuple[Consumed, ...]
    sent: tuple[Sent, ...]
    children: tuple[Born, ...]
    joined: tuple[Joined, ...]
    others: int


async def transactions(connection: AsyncConnection[Any], instance_id: UUID) -> AsyncIterator[Commit]:
    """Yield the transactions of an instance, oldest first; nothing for one that is not persisted.

    Raises ``InstanceNotFound`` if there is none at all.
    """
    page: list[list[RecordedEvent]] = []
    async for recorded in events_of(connection, instance_id):
        if page and _key(page[-1][0]) == _key(recorded):
            page[-1].append(recorded)
            continue
        if len(page) == _PAGE:
            for commit in await _commits(connection, instance_id, page):
                yield commit
            page.clear()
        page.append([recorded])
    for commit in await _commits(connection, instance_id, page):
        yield commit


async def _commits(
    connection: AsyncConnection[Any], instance_id: UUID, page: Sequence[Sequence[RecordedEvent]]
) -> list[Commit]:
    if not page:
        return []
    (own,) = await _rows(connection, "place_of_instance", instance_id=instance_id) or [{}]
    messages = [message_id for events in page for message_id, _ in _received(events)]
    verdicts = {
        row["message_id"]: row
        for row in await _rows(
            connection, "verdicts", app=own.get("app"), instance_id=instance_id, message_ids=messages
        )
    }
    keys = [_key(events[0]) for events in page]
    companions: dict[_Key, list[dict[str, Any]]] = {key: [] for key in keys}
    for row in await _rows(
        connection,
        "companions",
        instance_id=instance_id,
        epochs=[epoch for epoch, _ in keys],
        xids=[str(xid) for _, xid in keys],
    ):
        companions[row["epoch"], row["xid"]].append(row)
    return [
        _commit(events, verdicts, {"instance_id": instance_id, **own}, companions[key])
        for key, events in zip(keys, page, strict=True)
    ]


def _commit(
    recorded: Sequence[RecordedEvent],
    verdicts: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
    companions: Sequence[Mapping[str, Any]],
) -> Commit:
    events = [each.event for each in recorded]
    joined = _joined(own, companions)
    epoch, xid = _key(recorded[0])
    persisted = next((e for e in reversed(events) if isinstance(e, Persisted)), None)
    return Commit(
        epoch=epoch,
        xid=xid,
        recorded_at=recorded[-1].recorded_at,
        first_version=recorded[0].version,
        last_version=recorded[-1].version,
        reason=None if persisted is None else persisted.reason,
        events=tuple(type(e).__name__ for e in events),
        record_activities=tuple(e.activity for e in events if isinstance(e, ActivityCompleted) and e.is_record),
        values=() if persisted is None else tuple(persisted.values or ()),
        promoted=() if persisted is None else tuple(persisted.promoted or ()),
        consumed=tuple(
            Consumed(
                message_id=message_id,
                message_type=message_type,
                verdict=verdicts.get(message_id, {}).get("verdict"),
                version=verdicts.get(message_id, {}).get("version"),
            )
            for message_id, message_type in _received(recorded)
        ),
        sent=tuple(
            Sent(message_id=e.message_id, message_type=e.message_type, correlation_key=e.correlation_key)
            for e in events
            if isinstance(e, MessageSent)
        ),
        children=tuple(_children(recorded)),
        joined=joined,
        others=len(companions) - len(joined),
    )


def _received(recorded: Sequence[RecordedEvent]) -> list[tuple[str, str]]:
    """Return id and type of the messages that were taken."""
    events = [each.event for each in recorded]
    return [(e.message_id, e.message_type) for e in events if isinstance(e, InstanceStarted | MessageReceived)]


def _children(recorded: Sequence[RecordedEvent]) -> list[Born]:
    """Return the instances that were born; what runs within this one's transactions joins them instead."""
    born = []
    for each in recorded:
        event = each.event
        if isinstance(event, SubflowStarted) and event.mode != "run":
            born.append(
                Born(
                    instance_id=UUID(event.instance_id),
                    mode=event.mode,
                    workflow=event.workflow,
                    correlation_key=event.correlation_key,
                )
            )
        elif isinstance(event, InstanceContinued):
            born.append(Born(instance_id=UUID(event.instance_id), mode="continued"))
    return born


def _joined(own: Mapping[str, Any], companions: Sequence[Mapping[str, Any]]) -> tuple[Joined, ...]:
    """Return those that are tied to this instance by running one within the other, over any number of steps."""
    ties = {row["instance_id"]: row["parent_id"] for row in (own, *companions) if row.get("subflow") == "run"}
    tied = {own["instance_id"]}
    while more := {x for edge in ties.items() if tied & set(edge) for x in edge} - tied:
        tied |= more
    return tuple(
        Joined(
            instance_id=row["instance_id"],
            workflow=row["workflow"],
            first_version=row["first_version"],
            last_version=row["last_version"],
            events=tuple(row["events"]),
        )
        for row in companions
        if row["instance_id"] in tied
    )


def _key(recorded: RecordedEvent) -> _Key:
    return recorded.cursor.epoch, recorded.cursor.xid


async def _rows(connection: AsyncConnection[Any], name: str, **parameters: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        await cursor.execute(_SQL[name], parameters)
        return await cursor.fetchall()
