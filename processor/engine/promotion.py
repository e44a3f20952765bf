"""Values for queries: plain JSON in the column ``promoted`` of the instance store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from holdfast.events.types import Json
from holdfast.schemas.errors import NotPersistable
from holdfast.schemas.identifiers import storable

_BITS = 64


def plain(value: Any, name: str, path: str = "") -> Json:
    """Return a value as JSON that Postgres can index; ``NotPersistable`` with its name if it has no such form.

    Times become ISO 8601, ``UUID`` and ``Decimal`` text, an enum what it stands for, a model or dataclass an object.
    """
    match value:
        case Enum():
            return plain(value.value, name, path)
        case None | bool():
            return value
        case str() if storable(value) == value:
            return str(value)
        case int() if value.bit_length() < _BITS:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case list() | tuple():
            return [plain(item, name, f"{path}/{index}") for index, item in enumerate(value)]
        case BaseModel():
            return plain(value.model_dump(mode="json"), name, path)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {each.name: plain(getattr(value, each.name), name, f"{path}/{each.name}") for each in fields(value)}
        case Mapping() if all(isinstance(key, str) and storable(key) == key for key in value):
            return {str(key): plain(item, name, f"{path}/{key}") for key, item in value.items()}
    kind = type(value)
    raise NotPersistable(
        variable=name,
        path=path.removeprefix("/"),
        type_name=kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        mend="A value for queries is JSON: text without NUL, finite numbers of 64 bits, lists, dicts with text as keys",
    )
