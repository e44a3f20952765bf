"""Runs activities for those who asked by message: from a request to its result."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from opentelemetry.trace import Tracer

from holdfast.processor.engine.activities import ActivityContext, ends_the_task, try_once
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.environment import Environment
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.schemas.activity_messages import ActivityRequest, ActivityResult
from holdfast.schemas.errors import AppError
from holdfast.schemas.values import Types, decode, encode


def _tell_nobody(error: BaseException) -> None:
    """Keep an exception for the workflow alone."""


async def perform(
    app: App,
    request: ActivityRequest,
    *,
    environment: Environment,
    now: Callable[[], datetime],
    tell: Callable[[BaseException], None] = _tell_nobody,
    carried: str | None = None,
    tracer: Tracer | None = None,
) -> ActivityResult:
    """Run the activity that a request asks for, once, and return how it ended.

    What this app does not know, or cannot read or write, is a failure of the activity. ``tell`` is given the exception
    of one that fails, with its traceback, which the result does not have. ``carried`` is the request's trace context.
    """
    try:
        value = await _run(app, request, environment, now, carried=carried, tracer=tracer)
        return ActivityResult(request=request.request, outcome="completed", result=_tree(value, app.types))
    except BaseException as error:
        if ends_the_task(error):
            raise
        tell(error)
        return failed(request.request, error, app.types)


def failed(request: str, error: BaseException, types: Types) -> ActivityResult:
    """Return the result of a request that ended with an exception."""
    return ActivityResult(request=request, outcome="failed", error=_tree(error, types))


async def _run(
    app: App,
    request: ActivityRequest,
    environment: Environment,
    now: Callable[[], datetime],
    *,
    carried: str | None,
    tracer: Tracer | None,
) -> object:
    activity = app.activities.get(request.activity)
    if activity is None or activity.queue is None:
        raise AppError(f"app {app.name}, as this worker has it, has no activity {request.activity!r} on a queue")
    remaining = None if request.deadline is None else (request.deadline - now()).total_seconds()
    late = TimeoutError(f"activity {activity.name} did not end by {request.deadline}")
    if remaining is not None and remaining <= 0:
        raise late
    given: dict[str, Any] = decode({"args": request.args, "kwargs": request.kwargs}, app.types)
    call: ActivityCall[object] = ActivityCall(activity.name, tuple(given["args"]), given["kwargs"])
    context = ActivityContext(
        instance_id=request.instance_id, idempotency_key=request.call, attempt=request.attempt, carried=carried
    )
    running = try_once(activity, call, context, environment=environment, tracer=tracer)
    if remaining is None:
        return await running
    try:
        return await within(environment, remaining, running)
    except OutOfTime:
        raise late from None


def _tree(value: object, types: Types) -> object:
    return encode({"value": value}, types)["value"]
