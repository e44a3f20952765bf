"""Pending work: the record activities that a workflow defers to the transaction of the next persistence point."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from holdfast.processor.core.outcomes import Returned
from holdfast.processor.engine import activities
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.engine.unhandled import UnhandledError

if TYPE_CHECKING:
    from holdfast.processor.engine.writer import Writer


async def do_pending_work(writer: Writer) -> None:
    """Run what was deferred, in the transaction that is about to commit; ``UnhandledError`` if it fails."""
    deferred = writer.unwritten.deferred
    while deferred:
        call = deferred.pop(0)
        running = _run(writer, call, await writer.sql.unit())
        outcome, attempts = await writer.sql.bound(running, call.where)
        if not isinstance(outcome, Returned):
            raise UnhandledError(outcome.error, call.where)
        writer.record_end(call, outcome, attempts)


def _run(writer: Writer, call: Call, unit: UnitOfWork) -> Coroutine[Any, Any, activities.Result]:
    return activities.run(
        writer.runtime.app.activities[call.name],
        call.awaited,
        instance_id=writer.instance_id,
        idempotency_key=call.key,
        unit=unit,
        environment=writer.runtime.environment,
        attempt=0,
        participants=writer.participants.objects,
        carried=writer.traceparent,
        tracer=writer.runtime.tracer,
        may_postpone=lambda: False,
    )
