"""Spans that a test collects, as if the application had set up an SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, Tracer

from holdfast.processor import tracing


class Spans:
    """The spans that have ended; they are told apart by their names."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def names(self) -> list[str]:
        """Their names, in the order in which they ended."""
        return [span.name for span in self._exporter.get_finished_spans()]

    def all(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (span,) = self.all(name)
        return span

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Have what begins in here make spans."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracing, "tracer", lambda: self.tracer)
            yield


def traceparent(span: ReadableSpan) -> str:
    """Return the trace context of a span."""
    return _written(span.context)


def parent(span: ReadableSpan) -> str | None:
    """Return the trace context of a span's parent."""
    return None if span.parent is None else _written(span.parent)


def links(span: ReadableSpan) -> list[str]:
    """Return the trace contexts that a span is linked to."""
    return [_written(link.context) for link in span.links]


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
