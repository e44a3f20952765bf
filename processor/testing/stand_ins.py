"""An app as a simulation runs it: every activity call is known, and functions may stand in for activities."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from holdfast.processor.engine.activities import activity_context
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.app import App
from holdfast.processor.testing.work import Work
from holdfast.schemas.errors import AppError

StandIns = Mapping[Activity[..., Any], Callable[..., Any]]
"""What is called in place of an activity's own function, with the same arguments."""


@dataclass(slots=True)
class ActivityRun:
    """One attempt of an activity call; ``arguments`` are as the workflow gave them.

    ``idempotency_key`` is the same for all attempts of one call, also after a crash. ``outcome`` is what it
    returned or raised; ``ended`` is False while it runs, and for ever if its host died meanwhile.
    """

    activity: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    idempotency_key: str
    attempt: int
    ended: bool = False
    outcome: Any = None


def staged(app: App, stand_ins: StandIns, work: Work, runs: list[ActivityRun]) -> App:
    """Return a copy of an app that notes every attempt of an activity in ``runs``.

    Raises ``AppError`` for a stand-in of what is no activity of the app.
    """
    for activity in stand_ins:
        if app.activities.get(activity.name) is not activity:
            raise AppError(f"there is a stand-in for {activity!r}, which is no activity of app {app.name}")
    stage = copy.copy(app)
    stage.activities = {
        name: _staged(activity, stand_ins.get(activity, activity.function), work, runs)
        for name, activity in app.activities.items()
    }
    return stage


def _staged(
    activity: Activity[Any, Any], function: Callable[..., Any], work: Work, runs: list[ActivityRun]
) -> Activity[Any, Any]:
    # What is known of the activity is read off its own function, whatever stands in for that.
    skipped = int(activity.is_record)
    stage = copy.copy(activity)
    stage.is_async = activity.is_async or iscoroutinefunction(function)

    @wraps(activity.function)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        with work.going_on(activity), _noted(runs, activity, args[skipped:], kwargs) as run:
            result = function(*args, **kwargs)
            run.outcome = await result if isawaitable(result) else result
            return run.outcome

    @wraps(activity.function)
    def in_thread(*args: Any, **kwargs: Any) -> Any:
        with _noted(runs, activity, args, kwargs) as run:
            run.outcome = function(*args, **kwargs)
            return run.outcome

    stage.function = watched if stage.is_async else in_thread
    return stage


@contextmanager
def _noted(
    runs: list[ActivityRun], activity: Activity[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[ActivityRun]:
    context = activity_context()
    run = ActivityRun(activity.name, args, kwargs, context.idempotency_key, context.attempt)
    runs.append(run)
    try:
        yield run
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        run.ended, run.outcome = True, error
        raise
    run.ended = True
