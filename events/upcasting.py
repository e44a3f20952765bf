"""Old shapes of events, brought up to the present one as they are read.

An event's shape has a version, counted from 1 for each event type. It is kept in the event's data
under ``$v``; data without it has version 1. Whoever changes the fields of an event type adds an
upcaster here, from the last version to the new one; that alone makes the codec write the new
version. What was stored is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.schemas.errors import UnreadableEvent

VERSION_KEY = "$v"

Data = dict[str, Any]
Upcaster = Callable[[Data], Data]
"""Takes the data of one shape version and returns that of the next; it may change what it is given."""

UPCASTERS: Mapping[str, tuple[Upcaster, ...]] = {}
"""For each event type whose shape has changed: from version 1 to 2, from 2 to 3, and so on."""


def shape_version(type: str) -> int:
    """Return the present shape version of an event type."""
    return 1 + len(UPCASTERS.get(type, ()))


def upcast(type: str, data: Data) -> Data:
    """Return an event's data in the present shape, without its version.

    Raises ``UnreadableEvent`` for a version that is newer than the present one, or none at all.
    """
    version = data.pop(VERSION_KEY, 1)
    steps = UPCASTERS.get(type, ())
    if version not in range(1, len(steps) + 2):
        raise UnreadableEvent(
            f"{type} is stored in shape version {version!r}, this version of Holdfast knows up to {len(steps) + 1}"
        )
    for step in steps[version - 1 :]:
        data = step(data)
    return data
