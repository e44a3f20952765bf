"""XES, the format of process mining (IEEE 1849): a trace is an instance, an event of it a step that it took.

The steps are those that ``Variants`` counts: a message that came in, an activity that ended, a timer, a subflow. First
stands what tools agree upon, extensions, global attributes and classifiers, then one trace after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from typing import Any, BinaryIO, Literal, get_args
from uuid import UUID
from xml.sax.saxutils import quoteattr

from holdfast.events.types import (
    ActivityCompleted,
    ActivityDelayed,
    ActivityFailed,
    ActivityIntended,
    ActivityRequested,
    BookmarkClosed,
    BookmarkOpened,
    Event,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    MessageReceived,
    MessageSent,
    SubflowEnded,
    SubflowStarted,
    TimerCancelled,
    TimerFired,
)
from holdfast.projections.builtin.variants import Step
from holdfast.projections.export import ExportedEvent, name_of
from holdfast.schemas.errors import ExportRefused

Label = Callable[[Step], str | None]
"""Says what a step is called; None leaves it out."""

Case = Literal["instance", "key"]
"""What a trace is named by: the id of its instance, or its correlation key."""

STEP_TYPES = frozenset(step.__name__ for step in get_args(Step))

_TRANSITIONS: dict[type[Event], str] = {
    InstanceStarted: "complete",
    InstanceForked: "complete",
    MessageReceived: "complete",
    MessageSent: "complete",
    ActivityCompleted: "complete",
    TimerFired: "complete",
    SubflowEnded: "complete",
    InstanceCompleted: "complete",
    InstanceContinued: "complete",
    ActivityFailed: "ate_abort",
    ActivityRequested: "schedule",
    ActivityDelayed: "schedule",
    BookmarkOpened: "schedule",
    ActivityIntended: "start",
    SubflowStarted: "start",
    BookmarkClosed: "withdraw",
    TimerCancelled: "withdraw",
    InstanceSuspended: "suspend",
    InstanceResumed: "resume",
    InstanceFaulted: "pi_abort",
    InstanceCancelled: "pi_abort",
    InstanceTerminated: "pi_abort",
}
"""What events are in the standard model of the life of an activity, or a case; all others are ``unknown`` in it."""

_EXTENSIONS = (("Concept", "concept"), ("Time", "time"), ("Lifecycle", "lifecycle"), ("Organizational", "org"))
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Xes:
    """Writes events, which come stream by stream, to a file.

    ``with_all`` has it write what is no step too, under the name of what an event is about, or of its type. ``events``
    and ``traces`` count what was written.
    """

    def __init__(self, file: BinaryIO, cursor: str, *, label: Label, case: Case, with_all: bool) -> None:
        self._file = file
        self._label = label
        self._case = case
        self._with_all = with_all
        self._open: UUID | None = None
        self.events = self.traces = 0
        file.write("\n".join(_head(cursor)).encode() + b"\n")

    def write(self, events: Sequence[ExportedEvent]) -> None:
        """Write events, and the beginning and the end of their traces."""
        self._file.write("".join(f"{line}\n" for event in events for line in self._lines(event)).encode())

    def close(self) -> None:
        """Write the end of the last trace and of the file."""
        self._file.write(b"</log>\n" if self._open is None else b"  </trace>\n</log>\n")

    def _lines(self, event: ExportedEvent) -> Iterator[str]:
        if event.recorded.instance_id != self._open:
            if self._open is not None:
                yield "  </trace>"
            self._open = event.recorded.instance_id
            self.traces += 1
            yield "  <trace>"
            for attribute in self._trace(event):
                yield "    " + attribute
        attributes = self._event(event)
        if attributes:
            self.events += 1
            yield "    <event>"
            for attribute in attributes:
                yield "      " + attribute
            yield "    </event>"

    def _trace(self, event: ExportedEvent) -> list[str]:
        instance_id = str(event.recorded.instance_id)
        return [
            _string("concept:name", event.correlation_key if self._case == "key" else instance_id),
            _string("instance_id", instance_id),
            _string("correlation_key", event.correlation_key),
            _string("app", event.app),
            _string("workflow", event.workflow),
        ]

    def _event(self, exported: ExportedEvent) -> list[str]:
        recorded = exported.recorded
        event: Any = recorded.event
        name = self._name(exported)
        if name is None:
            return []
        moment = recorded.recorded_at.astimezone(UTC).isoformat(timespec="microseconds")
        attributes = [
            _string("concept:name", name),
            _string("lifecycle:transition", _transition(event)),
            f'<date key="time:timestamp" value="{moment}"/>',
            _string("type", type(event).__name__),
            f'<int key="version" value="{recorded.version}"/>',
        ]
        instance = getattr(event, "idempotency_key", None) or getattr(event, "message_id", None)
        if instance is not None:
            attributes.append(_string("concept:instance", instance))
        if getattr(event, "by", None) is not None:
            attributes.append(_string("org:resource", event.by))
        return attributes

    def _name(self, exported: ExportedEvent) -> str | None:
        event = exported.recorded.event
        if not isinstance(event, Step):
            return (name_of(event) or type(event).__name__) if self._with_all else None
        try:
            return self._label(event)
        except Exception as error:
            place = f"{type(event).__name__}, version {exported.recorded.version} of {exported.recorded.instance_id}"
            raise ExportRefused(f"the label of {place} cannot be told: {error!r}") from error


def _transition(event: Event) -> str:
    if isinstance(event, SubflowEnded) and event.outcome != "completed":
        return "ate_abort"
    return _TRANSITIONS.get(type(event), "unknown")


def _head(cursor: str) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<log xes.version="1849.2016" xes.features="" xmlns="http://www.xes-standard.org/">'
    for name, prefix in _EXTENSIONS:
        yield f'  <extension name="{name}" prefix="{prefix}" uri="http://www.xes-standard.org/{prefix}.xesext"/>'
    yield '  <global scope="trace">'
    for key in ("concept:name", "instance_id", "correlation_key", "app", "workflow"):
        yield f"    {_string(key, 'unknown')}"
    yield "  </global>"
    yield '  <global scope="event">'
    for key in ("concept:name", "lifecycle:transition", "type"):
        yield f"    {_string(key, 'unknown')}"
    yield '    <date key="time:timestamp" value="1970-01-01T00:00:00.000000+00:00"/>'
    yield '    <int key="version" value="0"/>'
    yield "  </global>"
    yield '  <classifier name="Activity" scope="event" keys="concept:name"/>'
    yield '  <classifier name="Transition" scope="event" keys="concept:name lifecycle:transition"/>'
    yield f"  {_string('concept:name', 'holdfast')}"
    yield f"  {_string('lifecycle:model', 'standard')}"
    yield f"  {_string('cursor', cursor)}"


def _string(key: str, value: str) -> str:
    return f'<string key="{key}" value={quoteattr(_NO_XML.sub("�", value))}/>'
