"""The message by which a subflow tells its parent how it ended."""

from __future__ import annotations

from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.words import Outcome


class SubflowResult(Message, correlation="instance_id", type="holdfast.SubflowResult"):
    """A subflow ended. ``result`` and ``error`` are trees of the values codec, as JSON text: they may nest deeply."""

    instance_id: str
    workflow: str
    outcome: Outcome
    result: str = "null"
    error: str = "null"

    def posted(self) -> Envelope:
        """Return it as the parent's mailbox gets it: once, under an id that the subflow's makes."""
        return self.envelope(f"{self.instance_id}:result")
