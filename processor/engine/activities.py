"""Runs activities: attempts, timeouts, threads, savepoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.processor.language.participant import Participant
from holdfast.schemas.errors import ParticipantError, StorageError

K = TypeVar("K", bound=Participant)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityContext:
    """What a running activity may know of its call.

    ``idempotency_key`` is the same on every attempt, also after a crash; ``attempt`` counts from 1
    within the current burst. ``participants`` are the instance's, by class.
    """

    instance_id: UUID
    idempotency_key: str
    attempt: int
    participants: Mapping[type[Participant], Participant] = field(default_factory=dict, repr=False)

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
    participants: Mapping[type[Participant], Participant] = MappingProxyType({}),
) -> tuple[Returned | Raised, int]:
    """Run one activity call to its end and return its outcome and the number of attempts.

    A record activity needs ``unit``, the open transaction; each attempt runs under a savepoint.
    """
    attempt = 0
    while True:
        attempt += 1
        context = ActivityContext(
            instance_id=instance_id,
            idempotency_key=idempotency_key,
            attempt=attempt,
            participants=participants,
        )
        trying = try_once(activity, call, context, unit=unit, environment=environment)
        try:
            if activity.timeout is None:
                return Returned(await trying), attempt
            async with asyncio.timeout(activity.timeout.total_seconds()):
                return Returned(await trying), attempt
        except BaseException as error:
            if ends_the_task(error):
                raise
            # Whatever an activity raises goes on at its await, but a transaction that is gone takes the burst along.
            if unit is not None and isinstance(error, StorageError):
                raise
            if not activity.retry.tries_again(attempt, error):
                return Raised(error), attempt
            await environment.sleep(activity.retry.wait(attempt))


def ends_the_task(error: BaseException) -> bool:
    """Whether an error is no outcome of an activity, but the end of who runs it."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    # What an activity waits for may be cancelled too, which is the activity's own affair.
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def try_once(
    activity: Activity[Any, Any],
    call: ActivityCall[Any],
    context: ActivityContext,
    *,
    unit: UnitOfWork | None = None,
    environment: Environment,
) -> object:
    """Call an activity's function once and return what it returns; it can ask for ``context``."""
    _current.set(context)
    if unit is not None:
        async with unit.savepoint() as transaction:
            return await activity.function(transaction, *call.args, **call.kwargs)
    if activity.is_async:
        return await activity.function(*call.args, **call.kwargs)
    return await environment.in_thread(partial(activity.function, *call.args, **call.kwargs))
