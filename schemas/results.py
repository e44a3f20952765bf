"""The messages that Holdfast itself sends to instances: how a subflow or a queued activity ended."""

from __future__ import annotations

from typing import Any, Literal

from holdfast.schemas.message import Message


class SubflowResult(Message, correlation="instance_id", type="holdfast.SubflowResult"):
    """A subflow ended. ``result`` and ``error`` are trees of the values codec, as JSON text: they may nest deeply."""

    instance_id: str
    workflow: str
    outcome: Literal["completed", "faulted", "cancelled", "terminated"]
    result: str = "null"
    error: str = "null"


class ActivityResult(Message, correlation="call", type="holdfast.ActivityResult"):
    """An activity worker ran an activity; ``call`` is the idempotency key of the request.

    ``result`` is the value as JSON, in the form that ``docs/activities.md`` describes. ``error`` is the name of
    the exception's class and ``detail`` what it said.
    """

    call: str
    attempt: int
    outcome: Literal["completed", "failed"]
    result: Any = None
    error: str | None = None
    detail: str | None = None
