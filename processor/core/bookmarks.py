"""From what a frame awaits to the bookmarks that it opens, and from what happens to them to its answer.

A bookmark is named ``<frame>.<visit>``, with ``/<branch>`` for a branch of ``first_of`` and ``:timeout``
for the timer that bounds a ``receive``. A branch of ``gather`` counts as a frame of one await: ``0.4-2.1`` is
what the second branch of the fourth await of frame 0 waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.events.types import BookmarkOpened, Where
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import (
    Awaitable,
    Delay,
    Enter,
    FirstOf,
    Outcome,
    Receive,
    TransactedReceive,
)
from holdfast.schemas.message import Message


def waits(ask: Ask) -> bool:
    """Whether an ask waits at bookmarks for a message or a timer."""
    match ask.awaited:
        case Receive() | Delay() | FirstOf() | Enter(scope=TransactedReceive()):
            return True
    return False


def prefix(ask: Ask) -> str:
    """Return what the names of all bookmarks of an ask begin with."""
    return f"{ask.path}.{ask.visit}"


def owner(bookmark: str) -> str:
    """Return the prefix of the ask that opened a bookmark."""
    return bookmark.partition("/")[0].partition(":")[0]


def belongs(bookmark: str, ask: Ask) -> bool:
    """Whether a bookmark was opened by this ask."""
    return owner(bookmark) == prefix(ask)


def opened(ask: Ask, now: datetime) -> list[BookmarkOpened]:
    """Return the bookmarks that an ask opens at ``now``; ``OverflowError`` for a time out of reach."""
    return list(_opened(prefix(ask), ask.awaited, ask.where, now))


def _opened(name: str, awaited: Awaitable[Any], where: Where, now: datetime) -> Iterator[BookmarkOpened]:
    match awaited:
        case (Receive() as received) | Enter(scope=TransactedReceive() as received):
            yield BookmarkOpened(
                where=where,
                bookmark=name,
                kind="message",
                message_type=received.type,
                correlation_key=received.key,
            )
            if received.timeout is not None:
                yield BookmarkOpened(
                    where=where, bookmark=f"{name}:timeout", kind="timer", due=_due(received.timeout, now)
                )
        case Delay():
            yield BookmarkOpened(where=where, bookmark=name, kind="timer", due=_due(awaited.until, now))
        case FirstOf():
            for branch, each in awaited.branches.items():
                yield from _opened(f"{name}/{branch}", each, where, now)


def _due(until: timedelta | datetime, now: datetime) -> str:
    moment = until if isinstance(until, datetime) else now + until
    return moment.astimezone(UTC).isoformat()


def by_message(ask: Ask, bookmark: str, message: Message) -> Returned:
    """Return a frame's answer when ``message`` resumes one of its bookmarks."""
    return _answer(ask, bookmark, message)


def by_timer(ask: Ask, bookmark: str) -> Returned | Raised:
    """Return a frame's answer when a timer resumes one of its bookmarks."""
    if bookmark.endswith(":timeout"):
        return Raised(TimeoutError(f"no message came for {_wait(ask, bookmark)}"))
    return _answer(ask, bookmark, None)


def _answer(ask: Ask, bookmark: str, value: object) -> Returned:
    if isinstance(ask.awaited, FirstOf):
        return Returned(Outcome(bookmark.removeprefix(f"{prefix(ask)}/"), value))
    return Returned(value)


def _wait(ask: Ask, bookmark: str) -> str:
    awaited: object = ask.awaited
    if isinstance(awaited, FirstOf):
        awaited = awaited.branches[bookmark.removeprefix(f"{prefix(ask)}/").removesuffix(":timeout")]
    elif isinstance(awaited, Enter):
        awaited = awaited.scope
    if isinstance(awaited, Receive | TransactedReceive):
        return f"{awaited.type} with key {awaited.key!r} within {awaited.timeout}"
    return repr(awaited)
