"""What happens to an instance: one frozen dataclass an event type.

``Where`` says at which frame, step and source line an event found the instance. Variables change the
stored state only in ``Persisted``, which closes every batch: at a persistence point all variables are
encoded in one pass and what differs from the last encoded form is kept there, frame by frame. So any
stream folds without the program that wrote it.

None has slots: orjson writes what has a ``__dict__`` six times as fast.

Values inside events (``body``, ``result``, ``error``, ``set``) are JSON trees as the values codec
makes them. Times are ISO 8601 strings in UTC, decided by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.schemas.control import Decision
from holdfast.schemas.words import BookmarkKind, Outcome, SubflowMode

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
    "unhandled_exception", "program_unresolvable", "not_persistable", "attempts_exhausted", "requested", "in_doubt"
]
"""Why an instance was suspended."""


@dataclass(frozen=True)
class Where:
    """A place in the running program: frame path, step number, line in the user's file."""

    frame: str
    step: int
    line: int


@dataclass(frozen=True, kw_only=True)
class InstanceStarted:
    """The instance began, with the message that started it, and that message's trace context if it had one.

    ``parent`` is the instance that asked for it. ``awaited_as`` is the id under which another instance waits for
    its end: its own, or that of the one in whose place it goes on.
    """

    workflow: str
    program_hash: str
    correlation_key: str
    message_id: str
    message_type: str
    body: Json
    reply_to: str | None = None
    parent: str | None = None
    subflow: SubflowMode | None = None
    awaited_as: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceForked:
    """The instance began where another one, ``origin``, stood at a version; of that one it needs nothing any more.

    What it waits for, its frames and their variables are in the events that follow, up to the persistence point.
    ``changed`` names the variables that are not as they were, as ``frame.name``. ``reply_to`` is where the sender of
    the last message waits for an answer, ``reply_key`` that message's correlation key.
    """

    origin: str
    origin_version: int
    workflow: str
    program_hash: str
    correlation_key: str
    by: str
    why: str | None = None
    changed: tuple[str, ...] = ()
    reply_to: str | None = None
    reply_key: str = ""
    traceparent: str | None = None


@dataclass(frozen=True, kw_only=True)
class ActivityCompleted:
    """An activity returned; ``attempts`` counts the calls it took.

    What the SQL of a record activity (``is_record``) wrote commits with this event.
    """

    where: Where
    activity: str
    idempotency_key: str
    attempts: int
    result: Json
    is_record: bool = False


@dataclass(frozen=True, kw_only=True)
class ActivityFailed:
    """An activity raised for the last time; the exception goes on at its ``await``."""

    where: Where
    activity: str
    idempotency_key: str
    attempts: int
    error: Json


@dataclass(frozen=True, kw_only=True)
class ActivityIntended:
    """An activity that must not run twice is about to run; how it ends is recorded after it."""

    where: Where
    activity: str
    idempotency_key: str


@dataclass(frozen=True, kw_only=True)
class ActivityDelayed:
    """An activity failed for the ``attempts``-th time and is tried again at ``due``."""

    where: Where
    activity: str
    idempotency_key: str
    attempts: int
    error: Json
    due: str


@dataclass(frozen=True, kw_only=True)
class ActivityRequested:
    """An activity worker was asked, by a message to its queue, to run an activity for the ``attempt``-th time."""

    where: Where
    activity: str
    idempotency_key: str
    attempt: int
    queue: str
    message_id: str


@dataclass(frozen=True, kw_only=True)
class ActivityResolved:
    """Somebody decided what became of an activity that was in doubt: it is done, to be retried, or failed."""

    where: Where
    activity: str
    idempotency_key: str
    decision: Decision
    by: str
    why: str | None = None
    result: Json = None


@dataclass(frozen=True, kw_only=True)
class TransactionRolledBack:
    """A transaction scope failed: its record writes, messages and pending work since it began are gone."""

    where: Where
    error: Json


@dataclass(frozen=True, kw_only=True)
class SubflowStarted:
    """The instance brought another one into being, ``instance_id``."""

    where: Where
    instance_id: str
    workflow: str
    correlation_key: str
    mode: SubflowMode


@dataclass(frozen=True, kw_only=True)
class SubflowEnded:
    """A subflow that the instance waited for has ended; ``closes`` names the bookmarks that ended with it."""

    where: Where
    instance_id: str
    workflow: str
    outcome: Outcome
    result: Json = None
    error: Json = None
    closes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BookmarkOpened:
    """The instance waits at a named place.

    For a timer that is due at ``due``, or for a message by type and key: a subflow's end and an activity's result
    are messages too.
    """

    where: Where
    bookmark: str
    kind: BookmarkKind
    message_type: str | None = None
    correlation_key: str | None = None
    due: str | None = None


@dataclass(frozen=True, kw_only=True)
class BookmarkClosed:
    """The instance no longer waits at a place: what waited there was cancelled."""

    where: Where
    bookmark: str


@dataclass(frozen=True, kw_only=True)
class MessageReceived:
    """A message resumed a bookmark; ``closes`` names every bookmark that ended with it."""

    where: Where
    bookmark: str
    closes: tuple[str, ...]
    message_id: str
    message_type: str
    correlation_key: str
    body: Json
    reply_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class TimerFired:
    """A timer resumed a bookmark; ``closes`` names every bookmark that ended with it.

    If somebody had it fire before it was ``due``, ``by`` says who.
    """

    where: Where
    bookmark: str
    closes: tuple[str, ...]
    due: str
    by: str | None = None
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class TimerRescheduled:
    """Somebody gave an open timer another time: it is due at ``due``."""

    where: Where
    bookmark: str
    due: str
    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class TimerCancelled:
    """Somebody closed a timer, which will not fire; the instance waits on at what else is open."""

    where: Where
    bookmark: str
    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class MessageSent:
    """The instance put a message into the outbox."""

    where: Where
    message_id: str
    message_type: str
    correlation_key: str
    body: Json


@dataclass(frozen=True, kw_only=True)
class InstanceSuspended:
    """The instance stands still until it is resumed; ``by`` is whose command led to it, if anybody's did."""

    reason: SuspensionReason
    exception_name: str | None = None
    detail: str | None = None
    where: Where | None = None
    by: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceResumed:
    """Somebody let a suspended instance go on."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceAbandoned:
    """Somebody had the instance dropped from memory, back to the last persistence point."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class PersistRequested:
    """Somebody asked for a persistence point: the one that ends this batch."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnloadRequested:
    """Somebody asked for the instance to be persisted and let go of; its host did so with this batch."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceMigrated:
    """Somebody moved the instance to another program, in whose places its frames stand from this batch on.

    ``lines`` are the lines of the open bookmarks there, by name.
    """

    from_program: str
    to_program: str
    by: str
    why: str | None = None
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InstanceCompleted:
    """The workflow returned."""

    result: Json


@dataclass(frozen=True, kw_only=True)
class InstanceContinued:
    """The workflow ended and goes on as a new instance, ``instance_id``."""

    instance_id: str


@dataclass(frozen=True, kw_only=True)
class InstanceFaulted:
    """An exception ended the instance."""

    error: Json
    where: Where | None = None


@dataclass(frozen=True, kw_only=True)
class CancelRequested:
    """Somebody asked for the instance to be cancelled; it unwinds from here."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceCancelled:
    """The instance has unwound and ended; ``error`` is the exception that made it, if it was no request."""

    error: Json = None
    where: Where | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceTerminated:
    """Somebody ended the instance at once, without unwinding."""

    by: str
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Persisted:
    """A persistence point: everything since the previous one is now durable.

    ``frames`` holds the frames that changed, ``ended`` the paths of those that are no more. ``values`` are what
    the participants want back on load, ``promoted`` what they give for queries; None where nothing changed.
    ``idle`` says that all frames wait at bookmarks, whatever the reason is.
    """

    reason: Reason
    frames: Mapping[str, FrameChange] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    values: Mapping[str, Json] | None = None
    promoted: Mapping[str, Json] | None = None
    idle: bool = False


Event = (
    InstanceStarted
    | InstanceForked
    | ActivityIntended
    | ActivityRequested
    | ActivityDelayed
    | ActivityCompleted
    | ActivityFailed
    | ActivityResolved
    | TransactionRolledBack
    | SubflowStarted
    | SubflowEnded
    | BookmarkOpened
    | BookmarkClosed
    | MessageReceived
    | TimerFired
    | TimerRescheduled
    | TimerCancelled
    | MessageSent
    | InstanceSuspended
    | InstanceResumed
    | InstanceAbandoned
    | PersistRequested
    | UnloadRequested
    | CancelRequested
    | InstanceMigrated
    | InstanceCompleted
    | InstanceContinued
    | InstanceFaulted
    | InstanceCancelled
    | InstanceTerminated
    | Persisted
)
"""Every event type; the codec and ``evolve`` handle each of them."""
