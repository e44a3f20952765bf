"""Events as the log stores them: the name of the type, and the fields as JSON.

How a type is read is derived from its dataclass fields once, when this module is loaded. A field that
is missing in the data takes its default, one that this version does not know is passed over; how shapes
change otherwise, ``upcasting.py`` says. Data in the present shape, nearly all there is, is read straight into
its dataclass; what that does not take is read step by step, with a clear word about what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import orjson

from holdfast.events.types import Event
from holdfast.events.upcasting import UPCASTERS, VERSION_KEY, shape_version, upcast
from holdfast.schemas.errors import UnreadableEvent

_Convert = Callable[[Any], Any]


def encode(event: Event) -> tuple[str, bytes]:
    """Return the type of an event and its data as JSON text.

    Raises ``TypeError`` for what is no event, and where an event holds what is no JSON tree.
    """
    kind = type(event)
    name = kind.__name__
    if _CLASSES.get(name) is not kind:
        raise TypeError(f"{kind.__qualname__} is not an event type")
    if name in UPCASTERS:
        data = {field.name: getattr(event, field.name) for field in fields(event)}
        return name, orjson.dumps({VERSION_KEY: shape_version(name), **data})
    return name, orjson.dumps(event)


def decode(type: str, data: bytes | str) -> Event:
    """Return the event that was stored as this type and JSON text; older shapes are upcast.

    Raises ``UnreadableEvent`` if the type or the shape is unknown.
    """
    if type in UPCASTERS or (_MARK in data if isinstance(data, bytes) else _MARK_TEXT in data):
        return _step_by_step(type, data)
    try:
        return _READERS[type](data)
    except (KeyError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return _step_by_step(type, data)


def _step_by_step(type: str, data: bytes | str) -> Event:
    try:
        make, conversions = _DECODERS[type]
        values = orjson.loads(data)
        if type in UPCASTERS or VERSION_KEY in values:
            values = upcast(type, values)
        for name, convert in conversions:
            if name in values:
                values[name] = convert(values[name])
        event: Event = make(**values)
        return event
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if type not in _DECODERS:
            raise UnreadableEvent(f"this version of Holdfast knows no event type {type!r}") from None
        raise UnreadableEvent(f"{type} is stored in a shape that cannot be read: {error}") from error


def _conversions(cls: type) -> tuple[tuple[str, _Convert], ...]:
    """Return the fields of a dataclass that JSON does not give back as they were, with the way back."""
    hints = get_type_hints(cls)
    found = ((field.name, _conversion(hints[field.name])) for field in fields(cls))
    return tuple((name, convert) for name, convert in found if convert is not None)


def _conversion(hint: Any) -> _Convert | None:
    origin = get_origin(hint)
    if origin in (Union, UnionType) and NoneType in get_args(hint):
        (inner,) = (arm for arm in get_args(hint) if arm is not NoneType)
        return _unless_none(_conversion(inner))
    if origin is tuple and get_args(hint) == (str, ...):
        return tuple
    if origin is Mapping:
        return _for_each(_conversion(get_args(hint)[1]))
    if is_dataclass(hint) and isinstance(hint, type):
        return _maker(hint)
    if hint in (str, int, bool, Any) or origin is Literal:
        return None
    raise TypeError(f"the codec does not know how to read a field of type {hint!r}")


def _unless_none(convert: _Convert | None) -> _Convert | None:
    return convert and (lambda value: None if value is None else convert(value))


def _for_each(convert: _Convert | None) -> _Convert | None:
    return convert and (lambda value: {key: convert(item) for key, item in value.items()})


def _maker(cls: type) -> _Convert:
    conversions = _conversions(cls)
    if not conversions:
        return lambda values: cls(**values)

    def make(values: dict[str, Any]) -> Any:
        for name, convert in conversions:
            if name in values:
                values[name] = convert(values[name])
        return cls(**values)

    return make


_MARK_TEXT = f'"{VERSION_KEY}"'
_MARK = _MARK_TEXT.encode()
_CLASSES: dict[str, type] = {cls.__name__: cls for cls in get_args(Event)}
_DECODERS = {name: (cls, _conversions(cls)) for name, cls in _CLASSES.items()}
_READERS: dict[str, Callable[[bytes | str], Event]] = {
    name: msgspec.json.Decoder(cls).decode for name, cls in _CLASSES.items()
}
