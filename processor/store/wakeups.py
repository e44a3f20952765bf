"""What wakes instances: messages that lie in the inbox, timers that are due, commands, hosts that ended.

Normally whoever commits looks at once for what the commit may have woken. ``runnable`` is the second
look, for all that was left behind by a host that ended in between. It reads through the buffered messages
a page at a time, so that a long backlog that nobody waits for does not make each look a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from holdfast.processor.engine.provider import Runnable, StoredMessage, Wakeups
from holdfast.processor.store.connections import Connection, one
from holdfast.processor.store.inbox import reject_late, reject_left_over, stored_message
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

PAGE = 1000
"""Buffered messages that one look goes through."""


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


async def next_timer(connection: Connection, app: str, host_id: UUID) -> float | None:
    """Return the seconds until a timer may be due that this host could fire."""
    cursor = await connection.execute(_SQL["next_timer"], {"app": app, "host_id": host_id}, binary=True)
    (seconds,) = await one(cursor)
    return None if seconds is None else max(0.0, seconds)


class Sweep:
    """Looks for work, each time where the last look at the inbox ended."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._after = 0

    async def runnable(
        self, connection: Connection, host_id: UUID, start_types: Sequence[str], limit: int
    ) -> list[Runnable]:
        """Return at most ``limit`` findings, each instance once."""
        found: dict[UUID | int, Runnable] = {
            instance_id: Runnable(instance_id=instance_id, why="control")
            for instance_id in await self._commanded(connection, host_id, limit)
        }
        sources: tuple[tuple[str, Literal["timer", "message", "lapsed"]], ...] = (
            ("due_instances", "timer"),
            ("instances_with_mail", "message"),
            ("lapsed_instances", "lapsed"),
        )
        for statement, why in sources:
            cursor = await connection.execute(
                _SQL[statement], {"app": self._app, "host_id": host_id, "limit": limit}, binary=True
            )
            for (instance_id,) in await cursor.fetchall():
                found.setdefault(instance_id, Runnable(instance_id=instance_id, why=why))
        runnables = list(found.values())[:limit]
        if len(runnables) < limit:
            runnables += [
                r
                for r in await self._look_through_inbox(connection, host_id, start_types, limit - len(runnables))
                if r.instance_id is None or r.instance_id not in found
            ]
        return runnables

    async def _commanded(self, connection: Connection, host_id: UUID, limit: int) -> list[UUID]:
        """Return the instances that somebody gave a command; reject the commands for those that are closed."""
        cursor = await connection.execute(
            _SQL["commanded_instances"], {"app": self._app, "host_id": host_id, "limit": limit}, binary=True
        )
        rows = await cursor.fetchall()
        closed = sorted({instance_id for instance_id, is_completed in rows if is_completed})
        if closed:
            await reject_left_over(connection, closed)
        return [instance_id for instance_id, is_completed in rows if not is_completed]

    async def _look_through_inbox(
        self, connection: Connection, host_id: UUID, start_types: Sequence[str], limit: int
    ) -> list[Runnable]:
        cursor = await connection.execute(
            _SQL["look_through_inbox"],
            {
                "app": self._app,
                "host_id": host_id,
                "start_types": list(start_types),
                "result_type": ActivityResult.message_type,
                "after": self._after,
                "page": PAGE,
            },
            binary=True,
        )
        rows = await cursor.fetchall()
        end, size = rows[0][:2]
        found: dict[UUID | int, Runnable] = {}
        closed: set[UUID] = set()
        late: list[str] = []
        self._after = end if size == PAGE else 0
        for _, _, why, taker, sequence, *message in rows:
            if why == "finished":
                closed.add(taker)
            elif why == "late":
                late.append(message[1])
            elif why is not None and len(found) == limit:
                self._after = sequence - 1
                break
            elif taker is not None:
                found.setdefault(taker, Runnable(instance_id=taker, why=why))
            elif why is not None:
                found[sequence] = Runnable(message=stored_message([sequence, *message]), why=why)
        if closed:
            await reject_left_over(connection, sorted(closed))
        if late:
            await reject_late(connection, self._app, late)
        return list(found.values())
