"""What wakes instances: messages that lie in the inbox, timers that are due, commands, hosts that ended.

Normally whoever commits looks at once for what the commit may have woken. ``runnable`` is the second
look, for all that was left behind by a host that ended in between. It reads through the buffered messages
a page at a time, so that a long backlog that nobody waits for does not make each look a long one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from holdfast.processor.engine.provider import StoredMessage
from holdfast.processor.engine.wakeups import Mail, Runnable, Wakeups
from holdfast.processor.store.connections import Connection, one
from holdfast.processor.store.inbox import reject_late, reject_left_over, stored_message
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

PAGE = 1000
"""Buffered messages that one look goes through."""

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
NOBODY = UUID(int=0)


async def wakeups(connection: Connection, host_id: UUID, instance_ids: Sequence[UUID]) -> list[Wakeups]:
    """Return what wakes each of these instances; nothing for one that this host does not hold."""
    cursor = await connection.execute(
        _SQL["wakeups"], {"host_id": host_id, "instance_ids": list(instance_ids)}, binary=True
    )
    messages: list[list[StoredMessage]] = [[] for _ in instance_ids]
    due: list[list[str]] = [[] for _ in instance_ids]
    moments: list[Any] = [None for _ in instance_ids]
    for ordinal, now, timer, *message in await cursor.fetchall():
        moments[ordinal - 1] = now
        if timer is not None:
            due[ordinal - 1].append(timer)
        elif message[0] is not None:
            messages[ordinal - 1].append(stored_message(message))
    return [
        Wakeups(now=now, messages=sorted(waiting, key=lambda m: m.sequence), due=tuple(timers))
        for now, waiting, timers in zip(moments, messages, due, strict=True)
    ]


async def find_mail(connection: Connection, app: str, mails: Sequence[Mail]) -> list[list[StoredMessage]]:
    """Return the oldest message of each address that an instance waits for and has not taken."""
    waits = [(ordinal, *address) for ordinal, mail in enumerate(mails) for address in mail.waits]
    taken = [(ordinal, message_id) for ordinal, mail in enumerate(mails) for message_id in mail.taken]
    cursor = await connection.execute(
        _SQL["find_mail"],
        {
            "app": app,
            "ordinals": [ordinal for ordinal, _, _ in waits],
            "types": [message_type for _, message_type, _ in waits],
            "keys": [key for _, _, key in waits],
            "instance_ids": [mails[ordinal].instance_id for ordinal, _, _ in waits],
            "taken_by": [ordinal for ordinal, _ in taken],
            "taken": [message_id for _, message_id in taken],
        },
        binary=True,
    )
    found: list[list[StoredMessage]] = [[] for _ in mails]
    for ordinal, *message in await cursor.fetchall():
        found[ordinal].append(stored_message(message))
    return found


async def next_timer(connection: Connection, app: str, host_id: UUID, held_back: Sequence[int]) -> float | None:
    """Return the seconds until a timer may be due that is this host's to fire."""
    about = {"app": app, "host_id": host_id, **await _elsewhere(connection, app, host_id, held_back)}
    cursor = await connection.execute(_SQL["next_timer"], about, binary=True)
    (seconds,) = await one(cursor)
    return None if seconds is None else max(0.0, seconds)


async def _elsewhere(connection: Connection, app: str, host_id: UUID, held_back: Sequence[int]) -> dict[str, list[int]]:
    """Return the partitions left to other hosts, and those whose timers are held back, here or there."""
    cursor = await connection.execute(_SQL["foreign_partitions"], {"app": app, "host_id": host_id}, binary=True)
    foreign, held_back_there = await one(cursor)
    return {"foreign": foreign, "held_back": [*held_back, *held_back_there]}


class Source(Protocol):
    """Findings of one kind, in order: each look goes on where the last one ended, and behind the end begins again."""

    async def look(self, connection: Connection, about: Mapping[str, Any], limit: int) -> Sequence[Runnable]:
        """Return the next findings, ``limit`` at most; ``about`` says for whom."""
        ...


@dataclass(slots=True)
class Instances:
    """Instances that a statement finds."""

    statement: str
    why: Literal["control", "timer", "message", "lapsed"]
    first: datetime | int
    """What comes before every finding."""
    after: tuple[Any, UUID] | None = None

    async def look(self, connection: Connection, about: Mapping[str, Any], limit: int) -> Sequence[Runnable]:
        after, after_id = self.after or (self.first, NOBODY)
        cursor = await connection.execute(
            _SQL[self.statement], {**about, "after": after, "after_id": after_id, "limit": limit}, binary=True
        )
        rows = await cursor.fetchall()
        self.after = (rows[-1][1], rows[-1][0]) if len(rows) == limit else None
        if self.why == "control":
            rows = await _living(connection, rows)
        return [Runnable(instance_id=row[0], why=self.why) for row in rows]


@dataclass(slots=True)
class Inbox:
    """What buffered messages make runnable."""

    after: int = 0

    async def look(self, connection: Connection, about: Mapping[str, Any], limit: int) -> Sequence[Runnable]:
        cursor = await connection.execute(
            _SQL["look_through_inbox"],
            {**about, "result_type": ActivityResult.message_type, "after": self.after, "page": PAGE},
            binary=True,
        )
        rows = await cursor.fetchall()
        end, size = rows[0][:2]
        found: dict[UUID | int, Runnable] = {}
        closed: set[UUID] = set()
        late: list[str] = []
        self.after = end if size == PAGE else 0
        for _, _, why, taker, sequence, *message, partition in rows:
            if why == "finished":
                closed.add(taker)
            elif why == "late":
                late.append(message[1])
            elif why is not None and len(found) == limit:
                self.after = sequence - 1
                break
            elif taker is not None:
                found.setdefault(taker, Runnable(instance_id=taker, why=why))
            elif why is not None:
                found[sequence] = Runnable(message=stored_message([sequence, *message], partition), why=why)
        if closed:
            await reject_left_over(connection, sorted(closed))
        if late:
            await reject_late(connection, about["app"], late)
        return list(found.values())


class Sweep:
    """Looks for work in all sources.

    What cannot go on is found again and again. It hides nothing that can: not behind it, as each source goes on from
    where it ended, and not in other sources, as the one after that which took the last room comes first next time.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._sources: deque[Source] = deque(
            (
                Instances("commanded_instances", "control", 0),
                Instances("due_instances", "timer", LONG_AGO),
                Instances("instances_with_mail", "message", 0),
                Instances("lapsed_instances", "lapsed", LONG_AGO),
                Inbox(),
            )
        )

    async def runnable(
        self,
        connection: Connection,
        host_id: UUID,
        start_types: Sequence[str],
        limit: int,
        held_back: Sequence[int],
    ) -> list[Runnable]:
        """Return at most ``limit`` findings, each instance once; no timers of partitions that are held back."""
        elsewhere = await _elsewhere(connection, self._app, host_id, held_back)
        about = {"app": self._app, "host_id": host_id, "start_types": list(start_types), **elsewhere}
        found: dict[UUID | int, Runnable] = {}
        for _ in range(len(self._sources)):
            source = self._sources[0]
            self._sources.rotate(-1)
            for each in await source.look(connection, about, limit - len(found)):
                key = each.instance_id or (each.message.sequence if each.message else 0)
                # A command may have to be heard in the middle of a burst, so it counts before all else.
                if key not in found or each.why == "control":
                    found[key] = each
            if len(found) == limit:
                break
        return list(found.values())


async def _living(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the rows of instances that can still obey; the commands of those that are closed are rejected."""
    closed = sorted({instance_id for instance_id, _, is_completed in rows if is_completed})
    if closed:
        await reject_left_over(connection, closed)
    return [row for row in rows if not row[2]]
