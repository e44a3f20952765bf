"""What hosts and activity workers say to each other over RabbitMQ; ``docs/activities.md`` is the contract.

Every message names its request, the id of the message by which an activity was asked for. Each attempt is a request of
its own, so an answer to an earlier one finds nobody who waits for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from holdfast.schemas.errors import ActivityLost
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.values import Types, encode

SILENT = "its worker fell silent"
"""Why a request is lost whose worker sent no heartbeat in time."""


class ActivityRequest(Message, correlation="request", type="holdfast.ActivityRequest"):
    """Asks a worker to run an activity for the ``attempt``-th time, counted from 1.

    ``args`` and ``kwargs`` are trees of the values codec, of one pass. ``call`` is the idempotency key, the same on
    every attempt. ``reply_to`` is the exchange to which the worker publishes its heartbeats and its result. After
    ``deadline`` nobody waits for the result; ``heartbeat`` is how many seconds at most the worker may be silent.
    """

    request: str
    activity: str
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    call: str
    attempt: int
    instance_id: UUID
    workflow: str
    reply_to: str
    deadline: datetime | None = None
    heartbeat: float | None = None


class ActivityHeartbeat(Message, correlation="request", type="holdfast.ActivityHeartbeat"):
    """Says that a worker is busy with a request, and is to be given up if it says no more for so many ``seconds``."""

    request: str
    seconds: Annotated[float, Field(gt=0, le=86_400)]


class ActivityResult(Message, correlation="request", type="holdfast.ActivityResult"):
    """Says how an activity ended. ``result`` and ``error`` are trees of the values codec; ``error`` of an exception."""

    request: str
    outcome: Literal["completed", "failed"]
    result: Any = None
    error: Any = None

    @model_validator(mode="after")
    def _check_error(self) -> Self:
        error = self.error
        is_exception = (
            isinstance(error, dict) and isinstance(error.get("$exception"), str) and isinstance(error.get("args"), list)
        )
        if self.outcome == "failed" and not is_exception:
            raise ValueError('a failed activity has an error, such as {"$exception": "RuntimeError", "args": ["why"]}')
        return self


def lost(request: str, why: str) -> Envelope:
    """Return the result of a request that nobody will answer; always the same message for one request."""
    error = encode({"error": ActivityLost(why)}, Types())["error"]
    return ActivityResult(request=request, outcome="failed", error=error).envelope(f"{request}:lost")
