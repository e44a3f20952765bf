"""What operators and users ask of the messages that were taken in, and what became of them.

The caller owns the connection and its transaction; nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from holdfast.schemas.postgres.statements import load

Verdict = Literal["applied", "buffered", "rejected", "expired", "dead_lettered"]
"""What became of a message; ``buffered`` is the one that is not final."""

_SQL = load(__package__)
_ALL = dict.fromkeys(("verdict", "type", "correlation_key", "instance_id", "since"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxMessage:
    """A message, or a command (``kind`` is ``control``), that was taken in.

    ``sequence`` is its place in the inbox. ``instance_id`` is, while it is buffered, the only instance that may take
    it, if it is addressed to one; later the one that it led to, at ``version``. ``size`` is the body's in bytes,
    None if it is not kept.
    """

    app: str
    message_id: str
    sequence: int
    kind: Literal["message", "control"]
    type: str
    correlation_key: str
    received_at: datetime
    verdict: Verdict
    reason: str | None
    detail: str | None
    instance_id: UUID | None
    version: int | None
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCount:
    """How many messages of an app, or commands, have one and the same verdict for one and the same reason."""

    app: str
    kind: Literal["message", "control"]
    verdict: Verdict
    reason: str | None
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTally:
    """How many messages of a type have one and the same verdict: of the final ones all that ever had it."""

    app: str
    type: str
    verdict: Verdict
    messages: int


class Criteria(TypedDict, total=False):
    """Which messages are meant: those that fit all that is given.

    ``since`` is when they were received at the earliest; ``instance_id`` is as in ``InboxMessage``.
    """

    verdict: Verdict | None
    type: str | None
    correlation_key: str | None
    instance_id: UUID | None
    since: datetime | None


async def messages(
    connection: AsyncConnection[Any],
    app: str | None = None,
    *,
    after: int | None = None,
    limit: int = 100,
    **criteria: Unpack[Criteria],
) -> list[InboxMessage]:
    """Return a page of messages, newest first, from behind the one with the sequence ``after``."""
    async with connection.cursor(row_factory=class_row(InboxMessage), binary=True) as cursor:
        await cursor.execute(_SQL["messages"], {**_ALL, **criteria, "app": app, "after": after, "limit": limit})
        return await cursor.fetchall()


async def count(
    connection: AsyncConnection[Any], app: str | None = None, **criteria: Unpack[Criteria]
) -> list[VerdictCount]:
    """Return how many messages have which verdict."""
    async with connection.cursor(row_factory=class_row(VerdictCount), binary=True) as cursor:
        await cursor.execute(_SQL["count_messages"], {**_ALL, **criteria, "app": app})
        return await cursor.fetchall()


async def tally(
    connection: AsyncConnection[Any],
    app: str | None = None,
    *,
    type: str | None = None,
    verdict: Verdict | None = None,
) -> list[MessageTally]:
    """Return how many messages there are of each type and verdict, as it is kept with every commit."""
    async with connection.cursor(row_factory=class_row(MessageTally), binary=True) as cursor:
        await cursor.execute(_SQL["message_tally"], {"app": app, "type": type, "verdict": verdict})
        return await cursor.fetchall()
