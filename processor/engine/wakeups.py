"""What wakes one instance, as the store tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from holdfast.processor.engine.provider import StoredMessage


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
