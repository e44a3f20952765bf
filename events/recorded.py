"""An event as it stands in the log, and the cursor that names its place there.

Both are msgspec's, which are made in a tenth of the time that a frozen dataclass takes: whoever reads the log makes one
of each an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import msgspec

from holdfast.events.types import Event


class Cursor(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in the whole log; cursors compare as the log is read.

    ``epoch`` counts the clusters that the database has lived in, ``xid`` is the transaction that wrote
    the event and ``position`` its number. To users it is one opaque string: ``str`` gives it.
    """

    epoch: int
    xid: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.xid}-{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that ``str`` gave; ``ValueError`` if the text is none."""
        parts = text.split("-")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(f"{text!r} is not a cursor of the log")
        return cls(*map(int, parts))


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event after it was appended: ``version`` is its place in its stream, ``cursor`` that in the log."""

    instance_id: UUID
    version: int
    event: Event
    cursor: Cursor
    metadata: Mapping[str, Any]
    recorded_at: datetime
