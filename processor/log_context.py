"""What log lines say of the work in which they were written: ids of the instance, the message, the activity, the trace.

Nothing is bound while nothing is logged. The engine leaves behind, in context variables, who is at work; the processor
looks there when a line is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

from holdfast.processor import tracing
from holdfast.processor.engine.activities import running_activity

Ids = dict[str, str]

at_work: ContextVar[Callable[[], Ids]] = ContextVar("holdfast_at_work")
"""Gives the ids of the instance whose burst runs in this context."""


def log_context(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001  As structlog calls it.
    """Add the ids of what runs here; a processor for structlog, also for lines of the standard library's ``logging``.

    In a burst ``instance_id``, ``workflow`` and ``message_id``, in an activity ``instance_id``, ``idempotency_key`` and
    ``attempt``, and ``trace_id`` and ``span_id`` where there are such. What the line says itself stays; a line about
    another instance gets nothing.
    """
    ids = _ids()
    if str(event.get("instance_id", ids.get("instance_id"))) == str(ids.get("instance_id")):
        for name, value in ids.items():
            event.setdefault(name, value)
    return event


def ids_of(message: tracing.Traced) -> Ids:
    """Return what a line about a message says of it."""
    ids = {"message_id": message.message_id}
    if message.traceparent is not None:
        ids["trace_id"] = tracing.trace_id(message.traceparent)
    return ids


def _ids() -> dict[str, object]:
    giver = at_work.get(None)
    ids: dict[str, object] = {} if giver is None else dict(giver())
    activity = running_activity()
    if activity is not None:
        ids |= {
            "instance_id": str(activity.instance_id),
            "idempotency_key": activity.idempotency_key,
            "attempt": activity.attempt,
        }
        if activity.carried is not None:
            ids["trace_id"] = tracing.trace_id(activity.carried)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        ids |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    return ids
