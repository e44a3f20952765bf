"""Traces: the spans that Holdfast makes, and the trace context that messages carry.

Spans are made only where the application has set up an OpenTelemetry SDK. Everywhere else there is no tracer, and a
message's ``traceparent`` goes on unchanged to what is sent because of it. Names and attributes follow OpenTelemetry's
conventions for messaging; ``docs/observability.md`` shows a trace.

What travels is W3C Trace Context's ``traceparent`` alone: neither ``tracestate`` nor baggage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_TRACE_CONTEXT = TraceContextTextMapPropagator()


class Traced(Protocol):
    """What a span says of a message; an ``Envelope`` has it and so has an ``Outgoing``."""

    @property
    def message_id(self) -> str:
        """The unique id."""

    @property
    def type(self) -> str:
        """The message type."""

    @property
    def key(self) -> str:
        """The correlation key."""

    @property
    def traceparent(self) -> str | None:
        """The trace context, if there is one."""


def tracer() -> Tracer | None:
    """Return what makes spans; None where nobody has set up an SDK, so that not even an empty span is made."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, (ProxyTracerProvider, NoOpTracerProvider)):
        return None
    return provider.get_tracer("holdfast")


def current() -> str | None:
    """Return the trace context of the span that is current, as a ``traceparent``; None if there is none."""
    context = trace.get_current_span().get_span_context()
    return _traceparent(context) if context.is_valid else None


def leave() -> None:
    """Have no span be current any more, in the task that calls it."""
    attach(Context())


def trace_id(traceparent: str) -> str:
    """Return the id of the trace that a ``traceparent`` belongs to, 32 hexadecimal digits if it is well-formed."""
    return traceparent[3:35]


@contextmanager
def from_process_environment() -> Iterator[None]:
    """Have the trace that the variable TRACEPARENT names be current, if there is one and no span is."""
    given = os.environ.get("TRACEPARENT")
    if given is None or current() is not None:
        yield
        return
    token = attach(_context(given))
    try:
        yield
    finally:
        detach(token)


def create(tracer: Tracer, message: Traced, exchange: str, routing_key: str) -> str:
    """Tell that a message was made that leaves later; return the trace context that it is to carry."""
    span = tracer.start_span(
        f"create {_destination(exchange, routing_key)}",
        kind=SpanKind.PRODUCER,
        attributes=_of_message(message, "create", exchange, routing_key),
    )
    span.end()
    return _traceparent(span.get_span_context())


def send(tracer: Tracer, message: Traced, exchange: str, routing_key: str) -> Span:
    """Begin to send a message; ``sent`` ends that.

    For a message that carries a trace context the span is part of that trace. For another one it is what the message is
    to carry, as ``traceparent_of`` gives it.
    """
    is_created = message.traceparent is not None
    return tracer.start_span(
        f"send {_destination(exchange, routing_key)}",
        context=_context(message.traceparent) if is_created else None,
        kind=SpanKind.CLIENT if is_created else SpanKind.PRODUCER,
        attributes=_of_message(message, "send", exchange, routing_key),
        links=_links(message.traceparent),
    )


def sent(span: Span, problem: str | None = None, error_type: str = "unroutable") -> None:
    """End the sending of a message, with what went wrong if it did."""
    if problem is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR, problem))
    span.end()


def traceparent_of(span: Span) -> str:
    """Return the trace context of a span."""
    return _traceparent(span.get_span_context())


@contextmanager
def process(
    tracer: Tracer,
    message: Traced,
    exchange: str,
    routing_key: str = "",
    *,
    links: Sequence[str | None] = (),
    **about: str,
) -> Iterator[None]:
    """Be busy with a message: the span is a child of the one that the message carries.

    ``links`` are further traces that this one belongs with; ``about`` are attributes of Holdfast's own.
    """
    with tracer.start_as_current_span(
        f"process {_destination(exchange, routing_key)}",
        context=_context(message.traceparent),
        kind=SpanKind.CONSUMER,
        attributes={**_of_message(message, "process", exchange, routing_key), **_own(about)},
        links=_links(message.traceparent, *links),
    ):
        yield


@contextmanager
def burst(tracer: Tracer, name: str, *, links: Sequence[str | None], **about: str) -> Iterator[None]:
    """Run a burst that no message woke: the root of a trace of its own."""
    with tracer.start_as_current_span(f"burst {name}", context=Context(), attributes=_own(about), links=_links(*links)):
        yield


@contextmanager
def activity(tracer: Tracer, name: str, **about: str | int) -> Iterator[None]:
    """Run one attempt of an activity, within the span that is current."""
    with tracer.start_as_current_span(f"activity {name}", attributes=_own({"activity": name, **about})):
        yield


def _own(about: Mapping[str, str | int]) -> dict[str, str | int]:
    return {f"holdfast.{name}": value for name, value in about.items()}


def _of_message(message: Traced, operation: str, exchange: str, routing_key: str) -> dict[str, str]:
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": _destination(exchange, routing_key),
        "messaging.message.id": message.message_id,
        "holdfast.message_type": message.type,
    }
    if message.key:
        attributes["messaging.message.conversation_id"] = message.key
    if routing_key:
        attributes["messaging.rabbitmq.destination.routing_key"] = routing_key
    return attributes


def _destination(exchange: str, routing_key: str) -> str:
    return ":".join(filter(None, (exchange, routing_key)))


def _context(traceparent: str | None) -> Context:
    """Return a context with nothing but this trace in it, so that what happens to be current is no parent."""
    return Context() if traceparent is None else _TRACE_CONTEXT.extract({"traceparent": traceparent}, Context())


def _links(*traceparents: str | None) -> list[Link]:
    """Return a link to each different trace context that is well-formed."""
    contexts = (trace.get_current_span(_context(each)).get_span_context() for each in dict.fromkeys(traceparents))
    return [Link(context) for context in contexts if context.is_valid]


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
