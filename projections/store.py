"""The instance store's writer: brings instances' rows, states and bookmarks up to their newest version.

The row is compared and set. ``advance`` writes an instance only while the host that says so lives and
holds the lock under the same token, and the row is at the version that the host saw: this is the fence
which keeps a host that has lost its lease, or its memory, from writing over what came after it.

The caller owns the transaction and appends the events in the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
from psycopg import AsyncConnection

from holdfast.projections.instance import InstanceState
from holdfast.projections.snapshot import dumps
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


class Advance(Protocol):
    """What one instance comes to; ``state`` is the fold of its stream.

    ``opened`` and ``closed`` name the bookmarks that came and went since ``expected_version``;
    ``release`` gives the lock back.
    """

    @property
    def instance_id(self) -> UUID: ...
    @property
    def host_id(self) -> UUID: ...
    @property
    def lock_token(self) -> int: ...
    @property
    def expected_version(self) -> int: ...
    @property
    def state(self) -> InstanceState: ...
    @property
    def state_encoding(self) -> StateEncoding: ...
    @property
    def opened(self) -> tuple[str, ...]: ...
    @property
    def closed(self) -> tuple[str, ...]: ...
    @property
    def release(self) -> bool: ...


async def advance(connection: AsyncConnection[Any], advances: Sequence[Advance]) -> dict[UUID, int]:
    """Write what passes the fence, each instance once, and return by id how many bookmarks it opened.

    An instance that did not pass is missing from the answer. One that opened fewer bookmarks than it
    names wants a message that another instance waits for: the caller has to roll back.
    """
    closed = [(a.instance_id, name) for a in advances for name in a.closed]
    opened = [(a.instance_id, name, a.state.bookmarks[name]) for a in advances for name in a.opened]
    states = [a.state for a in advances]
    cursor = await connection.execute(
        _SQL["advance"],
        {
            "instance_ids": [a.instance_id for a in advances],
            "hosts": [a.host_id for a in advances],
            "lock_tokens": [a.lock_token for a in advances],
            "expected": [a.expected_version for a in advances],
            "versions": [state.version for state in states],
            "statuses": [state.execution_status for state in states],
            "outcomes": [state.outcome for state in states],
            "suspended": [state.is_suspended for state in states],
            "reasons": [state.suspension_reason for state in states],
            "exception_names": [state.suspension_exception_name for state in states],
            "pending_timers": [_pending_timer(state) for state in states],
            "releases": [a.release for a in advances],
            "states": [dumps(a.state, a.state_encoding) for a in advances],
            "encodings": [a.state_encoding for a in advances],
            "promoted": [promoted(state) for state in states],
            "closed_of": [instance_id for instance_id, _ in closed],
            "closed": [name for _, name in closed],
            "opened_by": [instance_id for instance_id, _, _ in opened],
            "opened": [name for _, name, _ in opened],
            "kinds": [bookmark.kind for _, _, bookmark in opened],
            "message_types": [bookmark.message_type for _, _, bookmark in opened],
            "correlation_keys": [bookmark.correlation_key for _, _, bookmark in opened],
            "dues": [_moment(bookmark.due) for _, _, bookmark in opened],
            "lines": [bookmark.line for _, _, bookmark in opened],
        },
        binary=True,
    )
    return dict(await cursor.fetchall())


async def move_timers(connection: AsyncConnection[Any], timers: Mapping[tuple[UUID, str], InstanceState]) -> None:
    """Have open timers be due when the states of their instances say, which ``advance`` has written."""
    await connection.execute(
        _SQL["move_timers"],
        {
            "instance_ids": [instance_id for instance_id, _ in timers],
            "names": [name for _, name in timers],
            "dues": [_moment(state.bookmarks[name].due) for (_, name), state in timers.items()],
        },
        binary=True,
    )


def promoted(state: InstanceState) -> str | None:
    """Return what the row of a state shows for queries, as JSON text; None if that is nothing."""
    return orjson.dumps(state.promoted).decode() if state.promoted else None


def _pending_timer(state: InstanceState) -> datetime | None:
    return min((due for b in state.bookmarks.values() if (due := _moment(b.due)) is not None), default=None)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
