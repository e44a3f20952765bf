"""Snapshots: an instance's state as the instance store keeps it.

A snapshot is a JSON object with the format's version under ``format`` and the fields of
``InstanceState`` beside it; those that are empty in most instances are left out while they are. Equal
histories give equal bytes, which is what ``verify`` relies on.
"""

from __future__ import annotations

from typing import Any

import orjson

from holdfast.projections.instance import Bookmark, Call, FrameState, InstanceState, Subflow, initial
from holdfast.schemas.encodings import StateEncoding, pack, unpack
from holdfast.schemas.errors import StorageError

FORMAT = 1

_LEFT_OUT = {
    name: getattr(initial, name)
    for name in (
        "is_cancelling",
        "error",
        "parent",
        "subflow",
        "awaited_as",
        "traceparent",
        "reply_to",
        "reply_key",
        "calls",
        "subflows",
        "values",
        "promoted",
        "origin",
        "origin_version",
    )
}
"""Fields that are left out while they have these values."""


def dumps(state: InstanceState, encoding: StateEncoding = "none") -> bytes:
    """Return a state as JSON text, encoded."""
    snapshot: dict[str, Any] = {"format": FORMAT, **vars(state)}
    for name, value in _LEFT_OUT.items():
        if snapshot[name] == value:
            del snapshot[name]
    return pack(orjson.dumps(snapshot), encoding)


def loads(snapshot: bytes, encoding: StateEncoding = "none") -> InstanceState:
    """Return the state that ``dumps`` wrote in an encoding; ``StorageError`` for a format that is not known."""
    try:
        values = orjson.loads(unpack(snapshot, encoding))
        version = values.pop("format")
        if version != FORMAT:
            raise StorageError(f"a snapshot has format {version!r}, this version of Holdfast knows {FORMAT}")
        values["frames"] = {path: FrameState(**frame) for path, frame in values["frames"].items()}
        values["bookmarks"] = {name: Bookmark(**bookmark) for name, bookmark in values["bookmarks"].items()}
        values["calls"] = {key: Call(**call) for key, call in values.get("calls", {}).items()}
        values["subflows"] = {name: Subflow(**child) for name, child in values.get("subflows", {}).items()}
        return InstanceState(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"a snapshot cannot be read: {error!r}") from error
