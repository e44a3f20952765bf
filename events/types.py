"""What happens to an instance: one frozen dataclass an event type.

``Where`` says at which frame, step and source line an event found the instance. Variables change the
stored state only in ``Persisted``, which closes every batch: at a persistence point all variables are
encoded in one pass and what differs from the last encoded form is kept there, frame by frame. So any
stream folds without the program that wrote it.

Values inside events (``body``, ``result``, ``error``, ``set``) are JSON trees as the values codec
makes them. Times are ISO 8601 strings in UTC, decided by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Any
"""A JSON tree: None, bool, int, float, str, or lists and string-keyed dicts of them."""

Reason = Literal[
    "activity_completed",
    "activity_intent",
    "transaction_completed",
    "transacted_receive_completed",
    "idle",
    "checkpoint",
    "persist_on_close",
    "requested",
    "unload",
    "suspended",
    "subflow",
    "migrated",
    "completed",
    "faulted",
    "cancelled",
    "terminated",
    "shutdown",
]
"""Why a persistence point was taken."""

SuspensionReason = Literal[
    "unhandled_exception", "program_unresolvable", "not_persistable", "attempts_exhausted", "requested"
]
"""Why an instance was suspended."""


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the running program: frame path, step number, line in the user's file."""

    frame: str
    step: int
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStarted:
    """The instance began, with the message that started it."""

    workflow: str
    program_hash: str
    correlation_key: str
    message_id: str
    message_type: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCompleted:
    """An activity returned; ``attempts`` counts the calls it took."""

    where: Where
    activity: str
    idempotency_key: str
    attempts: int
    result: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFailed:
    """An activity raised for the last time; the exception goes on at its ``await``."""

    where: Where
    activity: str
    idempotency_key: str
    attempts: int
    error: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class BookmarkOpened:
    """The instance waits at a named place: for a message, or for a timer that is due at ``due``."""

    where: Where
    bookmark: str
    kind: Literal["message", "timer"]
    message_type: str | None = None
    correlation_key: str | None = None
    due: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookmarkClosed:
    """The instance no longer waits at a place: what waited there was cancelled."""

    where: Where
    bookmark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """A message resumed a bookmark; ``closes`` names every bookmark that ended with it."""

    where: Where
    bookmark: str
    closes: tuple[str, ...]
    message_id: str
    message_type: str
    correlation_key: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """A timer resumed a bookmark; ``closes`` names every bookmark that ended with it."""

    where: Where
    bookmark: str
    closes: tuple[str, ...]
    due: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent:
    """The instance put a message into the outbox."""

    where: Where
    message_id: str
    message_type: str
    correlation_key: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSuspended:
    """The instance stands still until it is resumed."""

    reason: SuspensionReason
    exception_name: str | None = None
    detail: str | None = None
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceResumed:
    """Somebody let a suspended instance go on."""

    by: str
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCompleted:
    """The workflow returned."""

    result: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChange:
    """What a persistence point changed in one frame: its place and its variables.

    ``program`` is the hash of the frame's program, given when the frame is new.
    """

    step: int
    line: int
    visits: int
    program: str | None = None
    set: Mapping[str, Json] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisted:
    """A persistence point: everything since the previous one is now durable.

    ``frames`` holds the frames that changed, ``ended`` the paths of those that are no more.
    """

    reason: Reason
    frames: Mapping[str, FrameChange] = field(default_factory=dict)
    ended: tuple[str, ...] = ()


Event = (
    InstanceStarted
    | ActivityCompleted
    | ActivityFailed
    | BookmarkOpened
    | BookmarkClosed
    | MessageReceived
    | TimerFired
    | MessageSent
    | InstanceSuspended
    | InstanceResumed
    | InstanceCompleted
    | Persisted
)
"""Every event type; the codec and ``evolve`` handle each of them."""
