"""A call of an activity: an ask that knows more than the machine does, and how the log tells its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.events.types import ActivityCompleted, ActivityFailed
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.schemas.values import Types


@dataclass(slots=True, kw_only=True)
class Call(Ask):
    """An ask that calls an activity, or has deferred that.

    ``activity`` is None if the app has none of that name. ``key`` is the idempotency key. ``Retries`` keeps how many
    ``attempts`` have failed, and when the next one is ``due`` if it is waited for.
    """

    awaited: ActivityCall[Any]
    activity: Activity[Any, Any] | None
    key: str
    attempts: int = 0
    due: datetime | None = None

    @property
    def name(self) -> str:
        """The activity's name."""
        return self.awaited.activity

    @property
    def must_not_repeat(self) -> bool:
        """Whether the activity must not run twice, so that its intent is persisted before it begins."""
        return self.activity is not None and not self.activity.repeatable


def end_of(call: Call, outcome: Returned | Raised, attempts: int, types: Types) -> ActivityCompleted | ActivityFailed:
    """Return the event of a call that ended after so many ``attempts``."""
    if isinstance(outcome, Raised):
        return ActivityFailed(
            where=call.where,
            activity=call.name,
            idempotency_key=call.key,
            attempts=attempts,
            error=encode_value(outcome.error, types),
        )
    return ActivityCompleted(
        where=call.where,
        activity=call.name,
        idempotency_key=call.key,
        attempts=attempts,
        result=encode_value(outcome.value, types),
        is_record=call.activity is not None and call.activity.is_record,
    )
