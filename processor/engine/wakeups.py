"""What wakes instances, as the store tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

if TYPE_CHECKING:
    from holdfast.processor.engine.provider import StoredMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """Something that a host should take up now: an instance, or a buffered start message."""

    instance_id: UUID | None = None
    message: StoredMessage | None = None
    why: Literal["message", "timer", "lapsed", "control", "start"] = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakeups:
    """What wakes one locked instance now, oldest message first; ``now`` is the store's clock."""

    now: datetime
    messages: Sequence[StoredMessage] = ()
    due: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """Asks what the inbox has for an instance whose bookmarks the store does not know yet.

    ``waits`` are the types and keys that it waits for; ``taken`` the ids of messages that it has taken already.
    """

    instance_id: UUID
    waits: Sequence[tuple[str, str]]
    taken: Sequence[str] = ()
