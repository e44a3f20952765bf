"""Runs activities: attempts, timeouts, threads, savepoints.

Short waits between attempts pass here, in memory. A long one is not waited for: the caller is told when the next
attempt is due, and calls again then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from opentelemetry.trace import Tracer

from holdfast.processor import tracing
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.processor.language.participant import Participant
from holdfast.schemas.errors import ParticipantError, StorageError

K = TypeVar("K", bound=Participant)

SHORT = 5.0
"""Seconds that an instance stays in memory between two attempts; for a longer wait a timer is worth its commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityContext:
    """What a running activity may know of its call.

    ``idempotency_key`` is the same on every attempt, also after a crash; ``attempt`` counts from 1. Attempts since the
    last persistence point are counted anew after a crash. ``participants`` are the instance's, by class. ``carried`` is
    the trace context of the message that the instance, or an activity worker, is busy with.
    """

    instance_id: UUID
    idempotency_key: str
    attempt: int
    participants: Mapping[type[Participant], Participant] = field(default_factory=dict, repr=False)
    carried: str | None = field(default=None, repr=False)

    @property
    def traceparent(self) -> str | None:
        """The trace context to give on to whom the activity calls, in the form of W3C Trace Context; None if none is.

        That of the activity's span where an OpenTelemetry SDK is set up, else what came with the message.
        """
        return tracing.current() or self.carried

    def participant(self, kind: type[K]) -> K:
        """Return the instance's participant of a class; ``ParticipantError`` if it has none."""
        found = self.participants.get(kind)
        if not isinstance(found, kind):
            raise ParticipantError(
                f"this instance has no participant {kind.__name__}: register it with @app.participant, for its "
                "workflow; an activity that is done by an activity worker has none"
            )
        return found


_current: ContextVar[ActivityContext] = ContextVar("holdfast_activity")


def activity_context() -> ActivityContext:
    """Return the context of the running activity; ``LookupError`` outside of one."""
    return _current.get()


def running_activity() -> ActivityContext | None:
    """Return the context of the running activity; None outside of one."""
    return _current.get(None)


def attempts_in(context: Context) -> int:
    """Return how often the activity that ran in a context was tried."""
    return context[_current].attempt if _current in context else 0


@dataclass(frozen=True, slots=True)
class Postponed:
    """The last attempt raised ``error``; the next one is due after ``seconds``."""

    error: BaseException
    seconds: float


Result = tuple[Returned | Raised | Postponed, int]
"""How a run ended, and how many attempts the call has had by then."""


async def run(
    activity: Activity[Any, Any],
    call: ActivityCall[Any],
    *,
    instance_id: UUID,
    idempotency_key: str,
    unit: UnitOfWork | None,
    environment: Environment,
    attempt: int,
    participants: Mapping[type[Participant], Participant] = MappingProxyType({}),
    may_postpone: Callable[[], bool] = lambda: True,
    carried: str | None = None,
    tracer: Tracer | None = None,
) -> Result:
    """Run one activity call to its end, or to a failure after which a long wait is due, if that ``may_postpone`` it.

    ``attempt`` is how many attempts it has had before. A record activity needs ``unit``, the open transaction;
    each attempt runs under a savepoint.
    """
    while True:
        attempt += 1
        context = ActivityContext(
            instance_id=instance_id,
            idempotency_key=idempotency_key,
            attempt=attempt,
            participants=participants,
            carried=carried,
        )
        _current.set(context)
        trying = try_once(activity, call, context, unit=unit, environment=environment, tracer=tracer)
        if activity.timeout is not None:
            trying = _within(activity, activity.timeout, trying, environment)
        try:
            return Returned(await trying), attempt
        except BaseException as error:
            if ends_the_task(error):
                raise
            # Whatever an activity raises goes on at its await, but a transaction that is gone takes the burst along.
            if unit is not None and isinstance(error, StorageError):
                raise
            if not activity.retry.tries_again(attempt, error):
                return Raised(error), attempt
            seconds = activity.retry.wait(attempt)
            if seconds > SHORT and may_postpone():
                return Postponed(error, seconds), attempt
            await environment.sleep(seconds)


def ends_the_task(error: BaseException) -> bool:
    """Whether an error is no outcome of an activity, but the end of who runs it."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    # What an activity waits for may be cancelled too, which is the activity's own affair.
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _within(
    activity: Activity[Any, Any], timeout: timedelta, running: Coroutine[Any, Any, object], environment: Environment
) -> object:
    try:
        return await within(environment, timeout.total_seconds(), running)
    except OutOfTime:
        raise TimeoutError(f"activity {activity.name} took longer than {timeout}") from None


def try_once(
    activity: Activity[Any, Any],
    call: ActivityCall[Any],
    context: ActivityContext,
    *,
    unit: UnitOfWork | None = None,
    environment: Environment,
    tracer: Tracer | None = None,
) -> Coroutine[Any, Any, object]:
    """Return the call of an activity's function, to be awaited once for what it returns; it can ask for ``context``."""
    trying = _call(activity, call, context, unit, environment)
    return trying if tracer is None else _traced(tracer, activity, context, trying)


async def _traced(
    tracer: Tracer, activity: Activity[Any, Any], context: ActivityContext, trying: Coroutine[Any, Any, object]
) -> object:
    about = {"instance_id": str(context.instance_id), "idempotency_key": context.idempotency_key}
    with tracing.activity(tracer, activity.name, **about, attempt=context.attempt):
        return await trying


async def _call(
    activity: Activity[Any, Any],
    call: ActivityCall[Any],
    context: ActivityContext,
    unit: UnitOfWork | None,
    environment: Environment,
) -> object:
    _current.set(context)
    if unit is not None:
        async with unit.savepoint() as transaction:
            return await activity.function(transaction, *call.args, **call.kwargs)
    if activity.is_async:
        return await activity.function(*call.args, **call.kwargs)
    return await environment.in_thread(partial(activity.function, *call.args, **call.kwargs))
