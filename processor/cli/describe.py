"""What an event, a state or a wait means, in a few words for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

import orjson

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
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
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
from holdfast.processor.cli.output import local
from holdfast.processor.cli.readable import readable, shortened
from holdfast.projections.instance import Bookmark
from holdfast.projections.queries import Instance, NonPersisted, OpenBookmark, Tally


def condition(instance: Instance | Tally) -> str:
    """Return how an instance is, in one word or two."""
    if not instance.is_initialized:
        return "non-persisted, suspended" if instance.is_suspended else "non-persisted"
    if instance.is_suspended:
        return "suspended"
    return instance.outcome or instance.execution_status


def reason(instance: Instance | NonPersisted) -> str | None:
    """Return why an instance is suspended, briefly: the exception without its module, or the reason."""
    name = instance.suspension_exception_name
    return instance.suspension_reason if name is None else name.rpartition(".")[2]


def wait(bookmark: OpenBookmark | Bookmark | BookmarkOpened) -> str:
    """Return what an instance waits for."""
    match bookmark.kind:
        case "timer":
            return f"the timer at {local(_time(bookmark.due))}"
        case "child":
            return f"the end of subflow {bookmark.correlation_key}"
        case "activity":
            return f"the result of activity request {bookmark.correlation_key}"
        case "message":
            return f"{bookmark.message_type} with key {bookmark.correlation_key}"


def what(event: Event) -> list[str]:
    """Return what happened, one thing a line."""
    match event:
        case InstanceStarted():
            origin = [f"{event.subflow} by {event.parent}"] if event.parent else []
            return [f"{event.workflow} with {event.message_type} {event.message_id}", *origin, _body(event.body)]
        case ActivityIntended():
            return [f"{event.activity} is about to run, once"]
        case ActivityRequested():
            return [f"{event.activity} asked of queue {event.queue} by {event.message_id}, attempt {event.attempt}"]
        case ActivityDelayed():
            tried = f"{event.activity}{_tries(event.attempts)} raised {shortened(readable(event.error))}"
            return [tried, f"again at {local(_time(event.due))}"]
        case ActivityCompleted():
            return [f"{event.activity}{_tries(event.attempts)} gave {shortened(readable(event.result))}"]
        case ActivityFailed():
            return [f"{event.activity}{_tries(event.attempts)} raised {shortened(readable(event.error))}"]
        case ActivityResolved():
            result = f", result {shortened(readable(event.result))}" if event.decision == "done" else ""
            return [f"{event.activity}: {event.decision}{result}", f"by {_who(event.by, event.why)}"]
        case TransactionRolledBack():
            return [f"because of {shortened(readable(event.error))}"]
        case SubflowStarted():
            return [f"{event.mode}: {event.workflow} {event.instance_id} with key {event.correlation_key}"]
        case SubflowEnded():
            outcome = event.result if event.error is None else event.error
            return [f"{event.workflow} {event.instance_id} {event.outcome}: {shortened(readable(outcome))}"]
        case BookmarkOpened(kind="timer"):
            return [f"{event.bookmark}: due {local(_time(event.due))}"]
        case BookmarkOpened():
            return [f"{event.bookmark}: waits for {wait(event)}"]
        case BookmarkClosed():
            return [f"{event.bookmark}: no longer waited for"]
        case MessageReceived():
            return [f"{event.bookmark}: {event.message_type} {event.message_id}", _body(event.body)]
        case TimerFired(by=None):
            return [f"{event.bookmark}: was due {local(_time(event.due))}"]
        case TimerFired():
            early = f"{event.bookmark}: was to be due {local(_time(event.due))}"
            return [early, f"by {_who(event.by or '', event.why)}"]
        case TimerRescheduled():
            return [f"{event.bookmark}: due {local(_time(event.due))} instead", f"by {_who(event.by, event.why)}"]
        case TimerCancelled():
            return [f"{event.bookmark}: will not fire", f"by {_who(event.by, event.why)}"]
        case MessageSent():
            return [f"{event.message_type} {event.message_id}", _body(event.body)]
        case InstanceSuspended():
            lines = [f"{event.reason}: {event.detail or event.exception_name or ''}".rstrip(": ")]
            return lines if event.by is None else [*lines, f"by {event.by}"]
        case (
            InstanceResumed()
            | InstanceAbandoned()
            | PersistRequested()
            | UnloadRequested()
            | CancelRequested()
            | InstanceTerminated()
        ):
            return [f"by {_who(event.by, event.why)}"]
        case InstanceCompleted():
            return [f"result {shortened(readable(event.result))}"]
        case InstanceContinued():
            return [f"goes on as {event.instance_id}"]
        case InstanceFaulted():
            return [f"because of {shortened(readable(event.error))}"]
        case InstanceCancelled():
            return ["as requested" if event.error is None else f"because of {shortened(readable(event.error))}"]
        case Persisted():
            return [f"because of {event.reason}", *_changes(event)]
        case _:
            assert_never(event)


def variables(values: dict[str, Any]) -> dict[str, Any]:
    """Return a frame's variables without those that only the interpreter needs."""
    return {name: value for name, value in values.items() if not name.startswith("$")}


def _changes(event: Persisted) -> list[str]:
    lines = []
    for path, change in event.frames.items():
        where = "" if path == "0" else f"frame {path}: "
        lines += [
            f"{where}{name} = {shortened(readable(value))}" for name, value in variables(dict(change.set)).items()
        ]
        lines += [f"{where}{name} is gone" for name in change.unset if not name.startswith("$")]
    return lines


def _body(body: Any) -> str:
    return shortened(orjson.dumps(body).decode())


def _who(by: str, why: str | None) -> str:
    return f"{by}: {why}" if why else by


def _tries(attempts: int) -> str:
    return "" if attempts == 1 else f", tried {attempts} times,"


def _time(moment: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment
