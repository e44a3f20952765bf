"""Control commands: what somebody outside asks of one instance.

A command lies in the inbox as a row of kind ``control``, addressed to its instance; its body is JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import orjson

from holdfast.schemas.envelope import Envelope

CommandName = Literal[
    "suspend",
    "resume",
    "resolve",
    "cancel",
    "terminate",
    "abandon",
    "persist",
    "unload",
    "reschedule_timer",
    "fire_timer",
    "cancel_timer",
]
"""What can be asked of an instance."""

DEMANDS = frozenset(("persist", "unload"))
"""The commands that are followed in the middle of a burst."""

NOT_LOADED = "not_loaded"
"""The reason beside ``applied`` for what is done already, as no host has anything of the instance in memory."""

Decision = Literal["done", "retry", "fail"]
"""What became of an activity call that was in doubt: it was done, it is to run again, or it counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, who gave it, and why.

    ``command`` is a ``CommandName``. With ``resolve`` come the idempotency key of the ``call`` that it is about, if
    there may be more than one, what became of it (``decision``), and what it returned (``result``, a JSON value) if it
    was done. Commands about timers name the bookmark (``timer``); to reschedule one takes the moment at which it is to
    be ``due``, in ISO 8601 with an offset from UTC.
    """

    command: str
    by: str = "unknown"
    why: str | None = None
    call: str | None = None
    decision: Decision | None = None
    result: Any = None
    timer: str | None = None
    due: str | None = None

    def envelope(self, message_id: str, key: str = "") -> Envelope:
        """Return the command as the inbox keeps it."""
        return Envelope(message_id=message_id, type="control", key=key, body=orjson.dumps(asdict(self)))

    @classmethod
    def of(cls, envelope: Envelope) -> Self:
        """Read a command; one that cannot be read is a command that nobody knows, the empty one."""
        try:
            body: dict[str, Any] = orjson.loads(envelope.body)
            return cls(**body)
        except (orjson.JSONDecodeError, TypeError):
            return cls(command="")
