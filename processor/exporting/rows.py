"""What a row of an export holds: the same names and values in every format; those that are JSON are JSON text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from holdfast.events.codec import encode
from holdfast.projections.export import ExportedEvent, name_of
from holdfast.projections.queries import Instance

Row = Mapping[str, Any]

JSON = frozenset({"data", "metadata", "promoted"})
"""The columns whose values are JSON text."""

INSTANCE_COLUMNS = tuple(field.name for field in fields(Instance) if field.name != "is_discarded")


def event_row(exported: ExportedEvent) -> Row:
    """Return an event as a row; its data have the present shape of the type, whatever shape the log stores."""
    recorded = exported.recorded
    type_, data = encode(recorded.event)
    return {
        "cursor": str(recorded.cursor),
        "epoch": recorded.cursor.epoch,
        "xid": recorded.cursor.xid,
        "position": recorded.cursor.position,
        "recorded_at": recorded.recorded_at.astimezone(UTC),
        "app": exported.app,
        "workflow": exported.workflow,
        "instance_id": str(recorded.instance_id),
        "correlation_key": exported.correlation_key,
        "version": recorded.version,
        "type": type_,
        "name": name_of(recorded.event),
        "data": data.decode(),
        "metadata": orjson.dumps(recorded.metadata).decode(),
    }


def instance_row(instance: Instance) -> Row:
    """Return an instance as a row, with the columns of the view ``holdfast.instances`` but the state."""
    row = {name: _plain(getattr(instance, name)) for name in INSTANCE_COLUMNS}
    row["promoted"] = None if instance.promoted is None else orjson.dumps(instance.promoted).decode()
    return row


def _plain(value: object) -> object:
    convert = _PLAIN.get(type(value))
    return value if convert is None else convert(value)


_PLAIN: Mapping[type, Callable[[Any], object]] = {UUID: str, datetime: lambda moment: moment.astimezone(UTC)}
