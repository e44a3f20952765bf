"""An instance, computed from its events: state, ``initial``, ``evolve``, ``fold``.

Pure, and independent of programs: any stream folds without the code that wrote it. For every cut
``k`` of a stream, ``fold(events[k:], fold(events[:k])) == fold(events)``. Like events, states have no slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, assert_never

from holdfast.events.types import (
    ActivityCompleted,
    ActivityDelayed,
    ActivityFailed,
    ActivityIntended,
    ActivityRequested,
    ActivityResolved,
    BookmarkClosed,
    BookmarkOpened,
    CancelRequested,
    Event,
    InstanceAbandoned,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceMigrated,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    Json,
    MessageReceived,
    MessageSent,
    Persisted,
    PersistRequested,
    SubflowEnded,
    SubflowStarted,
    TimerCancelled,
    TimerFired,
    TimerRescheduled,
    TransactionRolledBack,
    UnloadRequested,
)
from holdfast.schemas.words import BookmarkKind, ExecutionStatus, Outcome, SubflowMode

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FrameState:
    """One running call: its program's hash, where it stands and its variables as JSON trees."""

    program: str
    step: int
    line: int
    visits: int
    variables: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """A place where the instance waits for a message, a timer, a child or an activity's result."""

    kind: BookmarkKind
    frame: str
    line: int
    message_type: str | None = None
    correlation_key: str | None = None
    due: str | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """An activity call that the log knows and whose end it does not know yet, after so many ``attempts``."""

    activity: str
    frame: str
    line: int
    status: Literal["intended", "delayed", "requested"]
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Subflow:
    """A subflow that the instance waits for; ``frame`` is the frame or branch that does."""

    workflow: str
    frame: str
    mode: SubflowMode


@dataclass(frozen=True, kw_only=True)
class InstanceState:
    """All that is known of an instance after ``version`` events.

    ``calls`` are by idempotency key, ``subflows`` by instance id. ``awaited_as`` is the id under which another
    instance waits for the end of this one, ``traceparent`` the trace context that the start message carried.
    ``reply_to`` is where the sender of the last message waits for an answer, ``reply_key`` that message's correlation
    key. ``values`` and ``promoted`` are the participants'. A fork has ``origin``, the instance that it came from, and
    that one's version then.
    """

    version: int = 0
    workflow: str = ""
    program_hash: str = ""
    correlation_key: str = ""
    execution_status: ExecutionStatus = "executing"
    outcome: Outcome | None = None
    is_suspended: bool = False
    suspension_reason: str | None = None
    suspension_exception_name: str | None = None
    suspension_detail: str | None = None
    is_cancelling: bool = False
    frames: Mapping[str, FrameState] = field(default_factory=dict)
    bookmarks: Mapping[str, Bookmark] = field(default_factory=dict)
    result: Json = None
    error: Json = None
    parent: str | None = None
    subflow: SubflowMode | None = None
    awaited_as: str | None = None
    traceparent: str | None = None
    reply_to: str | None = None
    reply_key: str = ""
    calls: Mapping[str, Call] = field(default_factory=dict)
    subflows: Mapping[str, Subflow] = field(default_factory=dict)
    values: Mapping[str, Json] = field(default_factory=dict)
    promoted: Mapping[str, Json] = field(default_factory=dict)
    origin: str | None = None
    origin_version: int | None = None


initial = InstanceState()
"""The state of an instance that has no events yet."""


def evolve(state: InstanceState, event: Event) -> InstanceState:
    """Return the state after one more event."""
    return fold((event,), state)


def fold(events: Iterable[Event], state: InstanceState = initial) -> InstanceState:
    """Return the state after many events."""
    draft = _Draft(state)
    for event in events:
        draft.version += 1
        _apply(draft, event)
    return draft.state()


class _Draft:
    """A state while events are applied to it, so that a long stream does not make a new one for each.

    Attributes are replaced, never changed in place: a draft shares its mappings with the state it began as.
    """

    version: int
    workflow: str
    program_hash: str
    correlation_key: str
    execution_status: ExecutionStatus
    outcome: Outcome | None
    is_suspended: bool
    suspension_reason: str | None
    suspension_exception_name: str | None
    suspension_detail: str | None
    is_cancelling: bool
    frames: Mapping[str, FrameState]
    bookmarks: Mapping[str, Bookmark]
    result: Json
    error: Json
    parent: str | None
    subflow: SubflowMode | None
    awaited_as: str | None
    traceparent: str | None
    reply_to: str | None
    reply_key: str
    calls: Mapping[str, Call]
    subflows: Mapping[str, Subflow]
    values: Mapping[str, Json]
    promoted: Mapping[str, Json]
    origin: str | None
    origin_version: int | None

    def __init__(self, state: InstanceState) -> None:
        vars(self).update(vars(state))

    def state(self) -> InstanceState:
        state = object.__new__(InstanceState)
        vars(state).update(vars(self))
        return state


def _apply(draft: _Draft, event: Event) -> None:
    match event:
        case Persisted():
            draft.frames = _frames(draft, event)
            if event.values is not None:
                draft.values = event.values
            if event.promoted is not None:
                draft.promoted = event.promoted
            if draft.execution_status == "closed":
                return
            if event.reason == "idle" or event.idle:
                draft.execution_status = "idle"
            elif event.reason not in ("suspended", "unload", "requested"):
                draft.execution_status = "executing"
        case ActivityCompleted() | ActivityFailed() | ActivityResolved():
            if event.idempotency_key in draft.calls:
                draft.calls = _without(draft.calls, event.idempotency_key)
        case BookmarkOpened():
            opened = Bookmark(
                kind=event.kind,
                frame=event.where.frame,
                line=event.where.line,
                message_type=event.message_type,
                correlation_key=event.correlation_key,
                due=event.due,
            )
            draft.bookmarks = {**draft.bookmarks, event.bookmark: opened}
        case BookmarkClosed():
            closed = draft.bookmarks.get(event.bookmark)
            if closed is not None and closed.kind == "child":
                draft.subflows = _without(draft.subflows, closed.correlation_key or "")
            draft.bookmarks = _without(draft.bookmarks, event.bookmark)
        case MessageReceived():
            draft.bookmarks = _without(draft.bookmarks, *event.closes)
            draft.execution_status = "executing"
            draft.reply_to, draft.reply_key = event.reply_to, event.correlation_key if event.reply_to else ""
        case TimerFired():
            draft.bookmarks = _without(draft.bookmarks, *event.closes)
            draft.execution_status = "executing"
        case TimerRescheduled():
            timer = draft.bookmarks.get(event.bookmark)
            if timer is not None:
                draft.bookmarks = {**draft.bookmarks, event.bookmark: replace(timer, due=event.due)}
        case TimerCancelled():
            draft.bookmarks = _without(draft.bookmarks, event.bookmark)
        case InstanceStarted():
            draft.workflow = event.workflow
            draft.program_hash = event.program_hash
            draft.correlation_key = event.correlation_key
            draft.parent = event.parent
            draft.subflow = event.subflow
            draft.awaited_as = event.awaited_as
            draft.traceparent = event.traceparent
            draft.reply_to, draft.reply_key = event.reply_to, event.correlation_key if event.reply_to else ""
        case InstanceForked():
            draft.workflow = event.workflow
            draft.program_hash = event.program_hash
            draft.correlation_key = event.correlation_key
            draft.origin, draft.origin_version = event.origin, event.origin_version
            draft.traceparent = event.traceparent
            draft.reply_to, draft.reply_key = event.reply_to, event.reply_key
        case InstanceMigrated():
            draft.program_hash = event.to_program
            marks = draft.bookmarks.items()
            draft.bookmarks = {name: replace(mark, line=event.lines.get(name, mark.line)) for name, mark in marks}
        case InstanceSuspended():
            draft.is_suspended = True
            draft.suspension_reason = event.reason
            draft.suspension_exception_name = event.exception_name
            draft.suspension_detail = event.detail
        case InstanceResumed():
            draft.is_suspended = False
            draft.suspension_reason = None
            draft.suspension_exception_name = None
            draft.suspension_detail = None
        case ActivityIntended() | ActivityDelayed() | ActivityRequested():
            draft.calls = {**draft.calls, event.idempotency_key: _call(draft, event)}
        case SubflowStarted():
            if event.mode in ("run", "start"):
                child = Subflow(workflow=event.workflow, frame=event.where.frame, mode=event.mode)
                draft.subflows = {**draft.subflows, event.instance_id: child}
        case SubflowEnded():
            draft.subflows = _without(draft.subflows, event.instance_id)
            draft.bookmarks = _without(draft.bookmarks, *event.closes)
            draft.execution_status = "executing"
        case InstanceCompleted():
            _close(draft, "completed")
            draft.result = event.result
        case InstanceContinued():
            _close(draft, "completed")
        case InstanceFaulted():
            _close(draft, "faulted")
            draft.error = event.error
        case InstanceCancelled():
            _close(draft, "cancelled")
            draft.error = event.error
        case InstanceTerminated():
            _close(draft, "terminated")
        case CancelRequested():
            draft.is_cancelling = True
        case MessageSent() | TransactionRolledBack() | InstanceAbandoned() | PersistRequested() | UnloadRequested():
            pass
        case _:
            assert_never(event)


def _close(draft: _Draft, outcome: Outcome) -> None:
    draft.execution_status = "closed"
    draft.outcome = outcome
    draft.bookmarks = {}
    draft.calls = {}
    draft.subflows = {}


def _call(draft: _Draft, event: ActivityIntended | ActivityDelayed | ActivityRequested) -> Call:
    before = draft.calls.get(event.idempotency_key)
    attempts = 0 if before is None else before.attempts
    status: Literal["intended", "delayed", "requested"] = "intended"
    if isinstance(event, ActivityDelayed):
        status, attempts = "delayed", event.attempts
    elif isinstance(event, ActivityRequested):
        status, attempts = "requested", event.attempt
    where = event.where
    return Call(activity=event.activity, frame=where.frame, line=where.line, status=status, attempts=attempts)


def _without(mapping: Mapping[str, T], *names: str) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name not in names}


def _frames(draft: _Draft, event: Persisted) -> dict[str, FrameState]:
    frames = {path: frame for path, frame in draft.frames.items() if path not in event.ended}
    for path, change in event.frames.items():
        before = frames.get(path)
        kept = before.variables if before is not None else {}
        variables = {name: value for name, value in kept.items() if name not in change.unset}
        variables.update(change.set)
        frames[path] = FrameState(
            program=change.program or (before.program if before is not None else draft.program_hash),
            step=change.step,
            line=change.line,
            visits=change.visits,
            variables=variables,
        )
    return frames
