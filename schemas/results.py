"""The message by which a subflow tells its parent how it ended."""

from __future__ import annotations

from typing import Literal

from holdfast.schemas.message import Message


class SubflowResult(Message, correlation="instance_id", type="holdfast.SubflowResult"):
    """A subflow ended. ``result`` and ``error`` are trees of the values codec, as JSON text: they may nest deeply."""

    instance_id: str
    workflow: str
    outcome: Literal["completed", "faulted", "cancelled", "terminated"]
    result: str = "null"
    error: str = "null"
