"""Runs activities: attempts, timeouts, threads, savepoints."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.schemas.errors import StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityContext:
    """What a running activity may know of its call.

    ``idempotency_key`` is the same on every attempt, also after a crash; ``attempt`` counts from 1
    within the current burst.
    """

    instance_id: UUID
    idempotency_key: str
    attempt: int


_current: ContextVar[ActivityContext] = ContextVar("holdfast_activity")


def activity_context() -> ActivityContext:
    """Return the context of the running activity; ``LookupError`` outside of one."""
    return _current.get()


def attempts_in(context: Context) -> int:
    """Return how often the activity that ran in a context was tried."""
    return context[_current].attempt if _current in context else 0


async def run(
    activity: Activity[Any, Any],
    call: ActivityCall[Any],
    *,
    instance_id: UUID,
    idempotency_key: str,
    unit: UnitOfWork | None,
    environment: Environment,
) -> tuple[Returned | Raised, int]:
    """Run one activity call to its end and return its outcome and the number of attempts.

    A record activity needs ``unit``, the open transaction; each attempt runs under a savepoint.
    """
    attempt = 0
    while True:
        attempt += 1
        _current.set(ActivityContext(instance_id=instance_id, idempotency_key=idempotency_key, attempt=attempt))
        try:
            if activity.timeout is None:
                return Returned(await _attempt(activity, call, unit, environment)), attempt
            async with asyncio.timeout(activity.timeout.total_seconds()):
                return Returned(await _attempt(activity, call, unit, environment)), attempt
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) or _is_cancelled(error):
                raise
            # Whatever an activity raises goes on at its await, but a transaction that is gone takes the burst along.
            if unit is not None and isinstance(error, StorageError):
                raise
            if attempt >= activity.retry.attempts or not isinstance(error, activity.retry.on):
                return Raised(error), attempt
            await environment.sleep(activity.retry.wait(attempt))


def _is_cancelled(error: BaseException) -> bool:
    """Whether this burst is being cancelled, rather than something that the activity waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _attempt(
    activity: Activity[Any, Any], call: ActivityCall[Any], unit: UnitOfWork | None, environment: Environment
) -> object:
    if unit is not None:
        async with unit.savepoint() as transaction:
            return await activity.function(transaction, *call.args, **call.kwargs)
    if activity.is_async:
        return await activity.function(*call.args, **call.kwargs)
    return await environment.in_thread(partial(activity.function, *call.args, **call.kwargs))
