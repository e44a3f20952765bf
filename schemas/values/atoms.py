"""Values without parts of their own: numbers, text, bytes, times, ids, classes and modules."""

from __future__ import annotations

import math
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from types import ModuleType, NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic_core import TzInfo

from holdfast.schemas.errors import UnreadableValue
from holdfast.schemas.values.passes import Decode, Decoding, Encode, Encoding, Json, Place, refuse

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def writable(text: str) -> bool:
    """Tell whether JSON and Postgres can hold ``text``: no NUL, no lone surrogate."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_same(_encoding: Encoding, value: Any, _parent: Place, _key: str | int) -> Json:
    """Write what JSON has itself."""
    same: Json = value
    return same


def encode_str(_encoding: Encoding, value: str, _parent: Place, _key: str | int) -> Json:
    """Write text, escaped if it must be."""
    if (value.isascii() and "\0" not in value) or writable(value):
        return value
    return {"$str": value.encode("unicode_escape").decode("ascii")}


def encode_int(_encoding: Encoding, value: int, _parent: Place, _key: str | int) -> Json:
    """Write an integer; hexadecimal has no limit on its digits in Python, decimal has."""
    return value if _SMALLEST <= value <= _LARGEST else {"$int": hex(value)}


def encode_float(_encoding: Encoding, value: float, _parent: Place, _key: str | int) -> Json:
    """Write a float; JSON has the finite ones, -0.0 included."""
    return value if math.isfinite(value) else {"$float": repr(value)}


def encode_time(encoding: Encoding, value: datetime | time, parent: Place, key: str | int) -> Json:
    """Write a datetime or a time; an offset without a name is part of the text, other zones stand beside it."""
    tag = "$datetime" if isinstance(value, datetime) else "$time"
    zone = value.tzinfo
    if zone is None or zone is UTC or (type(zone) is timezone and _name(zone) is None):
        tree: dict[str, Json] = {tag: value.isoformat()}
    else:
        # The wall clock counts: the offset of a zone may be decided anew before the time comes.
        tree = {tag: value.replace(tzinfo=None).isoformat()}
        tree["tz"] = encoding.encoders[type(zone)](encoding, zone, (parent, key, parent[2]), "tz")
    if value.fold:
        tree["fold"] = 1
    return tree


def encode_timezone(encoding: Encoding, value: timezone, parent: Place, key: str | int) -> Json:
    """Write a fixed offset."""
    tree: dict[str, Json] = {"$timezone": _parts(value.utcoffset(None))}
    name = _name(value)
    if name is not None:
        tree["name"] = encode_str(encoding, name, parent, key)
    return tree


def encode_zone(_encoding: Encoding, value: ZoneInfo, parent: Place, key: str | int) -> Json:
    """Write a zone of the time zone database by its key."""
    if value.key is None:
        refuse(value, parent, key, "Make the zone by its key: ZoneInfo(key)")
    return {"$zone": value.key}


def encode_module(encoding: Encoding, value: ModuleType, parent: Place, key: str | int) -> Json:
    """Write a module by its name, if it is one that the program imports."""
    if value.__name__ not in encoding.types.modules:
        refuse(value, parent, key, "Import the module by a statement of the workflow, or at the top of the file")
    return {"$module": value.__name__}


def encode_class(encoding: Encoding, value: type, parent: Place, key: str | int) -> Json:
    """Write a declared class by its name."""
    name = encoding.types.names.get(value)
    if name is None:
        refuse(value, parent, key, f"Declare {value.__qualname__} among the app's types, or name it where it is used")
    return {"$class": name}


def encode_range(encoding: Encoding, value: range, parent: Place, key: str | int) -> Json:
    """Write a range."""
    return {"$range": [encode_int(encoding, part, parent, key) for part in (value.start, value.stop, value.step)]}


def _name(zone: timezone) -> str | None:
    """Give the name that a fixed offset was made with."""
    made_with: tuple[Any, ...] = zone.__getinitargs__()  # type: ignore[attr-defined]  # pickle's protocol, not in typeshed
    return made_with[1] if len(made_with) > 1 else None


def _parts(delta: timedelta) -> list[Json]:
    return [delta.days, delta.seconds, delta.microseconds]


def _by(write: Callable[[Any], Json], tag: str) -> Encode:
    """Make the encoder of a type that one expression writes."""

    def encode(_encoding: Encoding, value: Any, _parent: Place, _key: str | int) -> Json:
        return {tag: write(value)}

    return encode


def _read(tag: str, read: Callable[[Any], Any]) -> Decode:
    """Make the decoder of a tag that one expression reads."""

    def decode(_decoding: Decoding, node: Any) -> Any:
        return read(node[tag])

    return decode


def decode_datetime(decoding: Decoding, node: Any) -> datetime:
    """Read a datetime with its zone and fold."""
    value = datetime.fromisoformat(node["$datetime"])
    if len(node) == 1:
        return value
    zone = decoding.value(node["tz"]) if "tz" in node else value.tzinfo
    return value.replace(tzinfo=zone, fold=node.get("fold", 0))


def decode_time(decoding: Decoding, node: Any) -> time:
    """Read a time with its zone and fold."""
    value = time.fromisoformat(node["$time"])
    zone = decoding.value(node["tz"]) if "tz" in node else value.tzinfo
    return value.replace(tzinfo=zone, fold=node.get("fold", 0))


def decode_timezone(decoding: Decoding, node: Any) -> timezone:
    """Read a fixed offset."""
    offset = timedelta(*node["$timezone"])
    return timezone(offset, decoding.value(node["name"])) if "name" in node else timezone(offset)


def decode_range(decoding: Decoding, node: Any) -> range:
    """Read a range."""
    return range(*[decoding.value(part) for part in node["$range"]])


def decode_module(decoding: Decoding, node: Any) -> ModuleType:
    """Find a module again, if it is one that a program imports."""
    name = node["$module"]
    if name not in decoding.types.modules:
        raise UnreadableValue(f"the module {name!r} is not among those that the app's programs import")
    return sys.modules.get(name) or import_module(name)


def decode_class(decoding: Decoding, node: Any) -> type:
    """Find a declared class again."""
    name = node["$class"]
    cls = decoding.types.classes.get(name)
    if cls is None:
        raise UnreadableValue(f"the class {name!r} is not among the types that the app declares")
    return cls


ENCODERS: dict[type, Encode] = {
    NoneType: encode_same,
    bool: encode_same,
    str: encode_str,
    int: encode_int,
    float: encode_float,
    bytes: _by(lambda value: b64encode(value).decode("ascii"), "$bytes"),
    Decimal: _by(str, "$decimal"),
    UUID: _by(str, "$uuid"),
    date: _by(date.isoformat, "$date"),
    datetime: encode_time,
    time: encode_time,
    timedelta: _by(_parts, "$timedelta"),
    timezone: encode_timezone,
    ZoneInfo: encode_zone,
    TzInfo: _by(lambda value: int(value.utcoffset(None).total_seconds()), "$tzinfo"),
    range: encode_range,
    ModuleType: encode_module,
    type: encode_class,
}

TAGS: dict[str, Decode] = {
    "$str": _read("$str", lambda text: text.encode("ascii").decode("unicode_escape")),
    "$int": _read("$int", lambda digits: int(digits, 16)),
    "$float": _read("$float", float),
    "$bytes": _read("$bytes", b64decode),
    "$decimal": _read("$decimal", Decimal),
    "$uuid": _read("$uuid", UUID),
    "$date": _read("$date", date.fromisoformat),
    "$datetime": decode_datetime,
    "$time": decode_time,
    "$timedelta": _read("$timedelta", lambda parts: timedelta(*parts)),
    "$timezone": decode_timezone,
    "$zone": _read("$zone", ZoneInfo),
    "$tzinfo": _read("$tzinfo", TzInfo),
    "$range": decode_range,
    "$module": decode_module,
    "$class": decode_class,
}

SCALARS = frozenset(ENCODERS)
"""The types whose values have no identity worth keeping."""
