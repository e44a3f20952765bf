"""What an event or a change of a state means, in a few words for people."""

from __future__ import annotations

from pathlib import PurePath
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
    InstanceForked,
    InstanceMigrated,
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
from holdfast.processor.cli.condition import point, wait
from holdfast.processor.cli.output import local
from holdfast.processor.cli.readable import readable, shortened
from holdfast.projections.difference import Change, Section
from holdfast.projections.history import SourceLine
from holdfast.projections.instance import Bookmark


def what(event: Event) -> list[str]:
    """Return what happened, one thing a line."""
    match event:
        case InstanceStarted():
            origin = [f"{event.subflow} by {event.parent}"] if event.parent else []
            return [f"{event.workflow} with {event.message_type} {event.message_id}", *origin, _body(event.body)]
        case InstanceForked():
            changed = [f"changed: {', '.join(event.changed)}"] if event.changed else []
            link = f"{event.workflow} as {event.origin} stood at version {event.origin_version}"
            return [link, *changed, f"by {_who(event.by, event.why)}"]
        case InstanceMigrated():
            return [f"to program {event.to_program}", f"by {_who(event.by, event.why)}"]
        case ActivityIntended():
            return [f"{event.activity} is about to run, once"]
        case ActivityRequested():
            return [f"{event.activity} asked of queue {event.queue} by {event.message_id}, attempt {event.attempt}"]
        case ActivityDelayed():
            tried = f"{event.activity}{_tries(event.attempts)} raised {shortened(readable(event.error))}"
            return [tried, f"again at {local(point(event.due))}"]
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
            return [f"{event.bookmark}: due {local(point(event.due))}"]
        case BookmarkOpened():
            return [f"{event.bookmark}: waits for {wait(event)}"]
        case BookmarkClosed():
            return [f"{event.bookmark}: no longer waited for"]
        case MessageReceived():
            return [f"{event.bookmark}: {event.message_type} {event.message_id}", _body(event.body)]
        case TimerFired(by=None):
            return [f"{event.bookmark}: was due {local(point(event.due))}"]
        case TimerFired():
            early = f"{event.bookmark}: was to be due {local(point(event.due))}"
            return [early, f"by {_who(event.by or '', event.why)}"]
        case TimerRescheduled():
            return [f"{event.bookmark}: due {local(point(event.due))} instead", f"by {_who(event.by, event.why)}"]
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
            return [f"because of {event.reason}"]
        case _:
            assert_never(event)


def source_line(source: SourceLine | None, line: int) -> str:
    """Return where a line is, and its text; in parentheses what stands in the stored program for it."""
    if source is None or not source.file:
        return f"line {line}"
    text = "" if source.text is None else f": {f'({source.text})' if source.is_stored else source.text}"
    return f"{PurePath(source.file).name}:{line}{text}"


def variables(values: dict[str, Any]) -> dict[str, Any]:
    """Return a frame's variables without those that only the interpreter needs."""
    return {name: value for name, value in values.items() if not name.startswith("$")}


def change(it: Change) -> str:
    """Return what became of one place in a state."""
    where = "" if it.frame in (None, "0") else f"frame {it.frame}: "
    if it.section == "place" and not it.name:
        return f"frame {it.frame} {'begins' if it.kind == 'added' else 'ends'}"
    title = it.section if it.section in _RECORDS else ""
    name = f"{where}{title} {it.name}".strip()
    if it.kind == "changed":
        return f"{name}: {_value(it.section, it.before)} -> {_value(it.section, it.after)}"
    told = _value(it.section, it.after if it.kind == "added" else it.before)
    if it.kind == "added":
        return f"{name} = {told}" if not title else f"{name}: {told}"
    return f"{name} is gone, was {told}"


_RECORDS = ("bookmark", "call", "subflow", "compensation")


def _value(section: Section, value: Any) -> str:
    if isinstance(value, dict):
        match section:
            case "bookmark":
                return wait(Bookmark(**value))
            case "call":
                return f"{value['activity']} {value['status']}, attempts {value['attempts']}"
            case "subflow":
                return f"{value['mode']} {value['workflow']}"
            case "compensation":
                arguments = [*map(readable, value["arguments"])]
                arguments += [f"{name}={readable(each)}" for name, each in value["keywords"].items()]
                return shortened(f"{value['kind']} {value['name']}({', '.join(arguments)})")
    return shortened(readable(value))


def _body(body: Any) -> str:
    return shortened(orjson.dumps(body).decode())


def _who(by: str, why: str | None) -> str:
    return f"{by}: {why}" if why else by


def _tries(attempts: int) -> str:
    return "" if attempts == 1 else f", tried {attempts} times,"
