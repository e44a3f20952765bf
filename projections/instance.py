"""An instance, computed from its events: state, ``initial``, ``evolve``, ``fold``.

Pure, and independent of programs: any stream folds without the code that wrote it. For every cut
``k`` of a stream, ``fold(events[k:], fold(events[:k])) == fold(events)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, assert_never

from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    BookmarkClosed,
    BookmarkOpened,
    Event,
    InstanceCompleted,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    Json,
    MessageReceived,
    MessageSent,
    Persisted,
    TimerFired,
)

ExecutionStatus = Literal["executing", "idle", "closed"]
Outcome = Literal["completed", "faulted", "cancelled", "terminated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameState:
    """One running call: its program's hash, where it stands and its variables as JSON trees."""

    program: str
    step: int
    line: int
    visits: int
    variables: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """A place where the instance waits for a message or a timer."""

    kind: Literal["message", "timer"]
    frame: str
    line: int
    message_type: str | None = None
    correlation_key: str | None = None
    due: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """All that is known of an instance after ``version`` events."""

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
    frames: Mapping[str, FrameState] = field(default_factory=dict)
    bookmarks: Mapping[str, Bookmark] = field(default_factory=dict)
    result: Json = None


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

    __slots__ = tuple(field.name for field in fields(InstanceState))

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
    frames: Mapping[str, FrameState]
    bookmarks: Mapping[str, Bookmark]
    result: Json

    def __init__(self, state: InstanceState) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(state, name))

    def state(self) -> InstanceState:
        return InstanceState(**{name: getattr(self, name) for name in self.__slots__})


def _apply(draft: _Draft, event: Event) -> None:
    match event:
        case Persisted():
            draft.frames = _frames(draft, event)
            if draft.execution_status != "closed" and event.reason not in ("suspended", "unload", "requested"):
                draft.execution_status = "idle" if event.reason == "idle" else "executing"
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
            draft.bookmarks = {name: mark for name, mark in draft.bookmarks.items() if name != event.bookmark}
        case MessageReceived() | TimerFired():
            draft.bookmarks = {name: mark for name, mark in draft.bookmarks.items() if name not in event.closes}
            draft.execution_status = "executing"
        case InstanceStarted():
            draft.workflow = event.workflow
            draft.program_hash = event.program_hash
            draft.correlation_key = event.correlation_key
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
        case InstanceCompleted():
            draft.execution_status = "closed"
            draft.outcome = "completed"
            draft.bookmarks = {}
            draft.result = event.result
        case ActivityCompleted() | ActivityFailed() | MessageSent():
            pass
        case _:
            assert_never(event)


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
