"""An instance, computed from its events: state, ``initial``, ``evolve``, ``fold``.

Pure, and independent of programs: any stream folds without the code that wrote it. For every cut
``k`` of a stream, ``fold(events[k:], fold(events[:k])) == fold(events)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

from holdfast.events.types import (
    BookmarkOpened,
    Event,
    InstanceCompleted,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    Json,
    MessageReceived,
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
    version = state.version + 1
    match event:
        case Persisted():
            return _persisted(state, event, version)
        case BookmarkOpened():
            opened = Bookmark(
                kind=event.kind,
                frame=event.where.frame,
                line=event.where.line,
                message_type=event.message_type,
                correlation_key=event.correlation_key,
                due=event.due,
            )
            return replace(
                state, version=version, bookmarks={**state.bookmarks, event.bookmark: opened}
            )
        case MessageReceived() | TimerFired():
            left = {k: v for k, v in state.bookmarks.items() if k not in event.closes}
            return replace(state, version=version, execution_status="executing", bookmarks=left)
        case InstanceStarted():
            return replace(
                state,
                version=version,
                workflow=event.workflow,
                program_hash=event.program_hash,
                correlation_key=event.correlation_key,
            )
        case InstanceSuspended():
            return replace(
                state,
                version=version,
                is_suspended=True,
                suspension_reason=event.reason,
                suspension_exception_name=event.exception_name,
                suspension_detail=event.detail,
            )
        case InstanceResumed():
            return replace(
                state,
                version=version,
                is_suspended=False,
                suspension_reason=None,
                suspension_exception_name=None,
                suspension_detail=None,
            )
        case InstanceCompleted():
            return replace(
                state,
                version=version,
                execution_status="closed",
                outcome="completed",
                bookmarks={},
                result=event.result,
            )
        case _:
            return replace(state, version=version)


def fold(events: Iterable[Event], state: InstanceState = initial) -> InstanceState:
    """Return the state after many events."""
    return reduce(evolve, events, state)


def _persisted(state: InstanceState, event: Persisted, version: int) -> InstanceState:
    frames = {path: frame for path, frame in state.frames.items() if path not in event.ended}
    for path, change in event.frames.items():
        before = frames.get(path)
        kept = before.variables if before is not None else {}
        variables = {k: v for k, v in kept.items() if k not in change.unset}
        variables.update(change.set)
        frames[path] = FrameState(
            program=change.program or (before.program if before is not None else state.program_hash),
            step=change.step,
            line=change.line,
            visits=change.visits,
            variables=variables,
        )
    status = state.execution_status
    if status != "closed":
        status = "idle" if event.reason == "idle" else "executing"
        if event.reason in ("suspended", "unload"):
            status = state.execution_status
    return replace(state, version=version, execution_status=status, frames=frames)
