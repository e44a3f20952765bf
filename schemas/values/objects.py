"""Instances of declared classes: enums, named tuples, dataclasses and pydantic models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from functools import cached_property, partial
from types import MemberDescriptorType
from typing import Any, NamedTuple

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from holdfast.schemas.errors import UnreadableValue
from holdfast.schemas.values.containers import finished
from holdfast.schemas.values.passes import PLAIN, Decode, Decoding, Encode, Encoding, Json, Place, pointer

_HEAP_TYPE = 1 << 9
_assign = object.__setattr__


class Codec(NamedTuple):
    """How the instances of one class are written and read."""

    encode: Encode
    decode: Decode


def codec_of(cls: type, name: str) -> Codec | None:
    """Make the codec of a class under its name; ``None`` if its instances are no plain data."""
    if issubclass(cls, Enum):
        return _enum(cls, name)
    if issubclass(cls, BaseModel):
        return _model(cls, name)
    if issubclass(cls, tuple):
        return _named_tuple(cls, name) if hasattr(cls, "_fields") else None
    if dataclasses.is_dataclass(cls) and not _has_native_part(cls):
        return _dataclass(cls, name)
    return None


def slots_of(cls: type) -> list[str]:
    """Name the attributes that instances keep outside their ``__dict__``."""
    return [name for base in cls.__mro__ for name, slot in vars(base).items() if type(slot) is MemberDescriptorType]


def _has_native_part(cls: type) -> bool:
    """Tell whether instances carry, like those of a subclass of ``list``, data that are no attributes."""
    return any(base is not object and not base.__flags__ & _HEAP_TYPE for base in cls.__mro__)


def _enum(cls: type[Enum], name: str) -> Codec:
    # The members of a flag are combined freely, so that not every value has a name.
    part = "value" if issubclass(cls, Flag) else "name"

    def encode(encoding: Encoding, value: Any, parent: Place, key: str | int) -> Json:
        told = value.value if part == "value" else value.name
        return {"$enum": name, part: encoding.encoders[type(told)](encoding, told, parent, key)}

    def decode(decoding: Decoding, node: Any) -> Any:
        told = decoding.value(node[part])
        return cls(told) if part == "value" else cls[told]

    return Codec(encode, decode)


def _named_tuple(cls: Any, name: str) -> Codec:
    fields: tuple[str, ...] = cls._fields
    defaults: dict[str, Any] = cls._field_defaults

    def encode(encoding: Encoding, value: Any, parent: Place, key: str | int) -> Json:
        known = encoding.places.get(id(value))
        if known is not None:
            return {"$ref": pointer(known)}
        place = encoding.below(value, parent, key)
        tree: dict[str, Json] = {"$object": name}
        for field, item in zip(fields, value, strict=True):
            tree[field] = encoding.encoders[type(item)](encoding, item, place, field)
        if more := getattr(value, "__dict__", None):  # Only a subclass of a named tuple has one.
            tree["$attributes"] = write_mapping(encoding, more, place, "$attributes")
        return encoding.leave(value, place, tree)

    def decode(decoding: Decoding, node: Any) -> Any:
        items = {field: decoding.value(item) for field, item in node.items() if field[0] != "$"}
        value = tuple.__new__(cls, [items[field] if field in items else defaults[field] for field in fields])
        if "$attributes" in node:
            value.__dict__.update(read_mapping(decoding, node["$attributes"]))
        return finished(decoding, node, value)

    return Codec(encode, decode)


def _dataclass(cls: Any, name: str) -> Codec:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    slots = slots_of(cls)
    has_dict = cls.__dictoffset__ != 0
    defaults = _defaults(fields)

    def encode(encoding: Encoding, value: Any, parent: Place, key: str | int) -> Json:
        known = encoding.places.get(id(value))
        if known is not None:
            return {"$ref": pointer(known)}
        place = encoding.enter(value, parent, key)
        encoders = encoding.encoders
        tree: dict[str, Json] = {"$object": name}
        if slots:
            for slot in slots:
                # A slot that was never set has no value.
                item = getattr(value, slot, dataclasses.MISSING)
                if item is not dataclasses.MISSING:
                    tree[slot] = encoders[type(item)](encoding, item, place, slot)
        if has_dict:
            more: dict[str, Any] = {}
            for field, item in value.__dict__.items():
                if field in fields:
                    tree[field] = encoders[type(item)](encoding, item, place, field)
                elif not isinstance(getattr(cls, field, None), cached_property):  # Those are computed anew.
                    more[field] = item
            if more:
                tree["$attributes"] = write_mapping(encoding, more, place, "$attributes")
        return tree

    def decode(decoding: Decoding, node: Any) -> Any:
        value: Any = object.__new__(cls)
        decoding.built[id(node)] = value
        state = value.__dict__ if has_dict else {}
        for field, item in node.items():
            if field in slots:
                _assign(value, field, decoding.value(item))
            elif field in fields:
                state[field] = item if type(item) in PLAIN else decoding.value(item)
            elif field == "$attributes":
                state.update(read_mapping(decoding, item))
            elif field[0] != "$":
                # The class has lost this field, but others may refer to what is in it.
                decoding.value(item)
        for field, make in defaults.items():
            if field not in node:
                _assign(value, field, make())
        return value

    return Codec(encode, decode)


def _defaults(fields: Mapping[str, dataclasses.Field[Any]]) -> dict[str, Callable[[], Any]]:
    """Give, for each field that has one, a function that makes its default."""
    made: dict[str, Callable[[], Any]] = {}
    for name, field in fields.items():
        if field.default_factory is not dataclasses.MISSING:
            made[name] = field.default_factory
        elif field.default is not dataclasses.MISSING:
            made[name] = partial(getattr, field, "default")
    return made


def _model(cls: type[BaseModel], name: str) -> Codec:
    fields = cls.model_fields
    names = frozenset(fields)
    privates = cls.__private_attributes__
    # A root model has None for these on the class, and no place for them in its instances.
    is_root = issubclass(cls, RootModel)
    takes_extra = cls.model_config.get("extra") == "allow"

    def encode(encoding: Encoding, value: Any, parent: Place, key: str | int) -> Json:
        known = encoding.places.get(id(value))
        if known is not None:
            return {"$ref": pointer(known)}
        place = encoding.enter(value, parent, key)
        encoders = encoding.encoders
        tree: dict[str, Json] = {"$object": name}
        for field, item in value.__dict__.items():
            if field in names:  # All else in there are cached properties.
                tree[field] = encoders[type(item)](encoding, item, place, field)
        given = value.__pydantic_fields_set__
        if given != names:
            tree["$fields_set"] = [encoders[str](encoding, field, place, "") for field in sorted(given)]
        if extra := value.__pydantic_extra__:
            tree["$extra"] = encoders[dict](encoding, extra, place, "$extra")
        if private := value.__pydantic_private__:
            tree["$private"] = write_mapping(encoding, private, place, "$private")
        return tree

    def decode(decoding: Decoding, node: Any) -> Any:
        value = cls.__new__(cls)
        decoding.built[id(node)] = value
        state: dict[str, Any] = {}
        given: set[str] | None = None
        extra: dict[str, Any] = {}
        private: dict[str, Any] = {}
        # Set first, so that a model met again inside itself can be hashed by the fields that it has by then.
        _assign(value, "__dict__", state)
        for field, item in node.items():
            if field in names:
                state[field] = item if type(item) in PLAIN else decoding.value(item)
            elif field == "$fields_set":
                given = {decoding.value(part) for part in item}
            elif field == "$extra":
                extra = decoding.value(item)
            elif field == "$private":
                private = read_mapping(decoding, item)
            elif field[0] != "$":
                # The class has lost this field, but others may refer to what is in it.
                decoding.value(item)
        _assign(value, "__pydantic_fields_set__", set(state) if given is None else given)
        if len(state) != len(names):
            _fill(state, fields)
        if privates:
            private = {key: part for key, part in private.items() if key in privates}
            _fill(private, privates)
            _assign(value, "__pydantic_private__", private)
        elif not is_root:
            _assign(value, "__pydantic_private__", None)
        if not is_root:
            _assign(value, "__pydantic_extra__", extra if takes_extra else None)
        return value

    return Codec(encode, decode)


def _fill(state: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Give what the class has gained since its default, where it has one."""
    for name, field in fields.items():
        if name not in state:
            if isinstance(field, FieldInfo):
                default = field.get_default(call_default_factory=True, validated_data=state)
            else:
                default = field.get_default()
            if default is not PydanticUndefined:
                state[name] = default


def write_mapping(encoding: Encoding, mapping: Mapping[str, Any], parent: Place, tag: str) -> dict[str, Json]:
    """Write attributes by name, under a key of their owner's tree."""
    place = (parent, tag, parent[2] + 1)
    return {key: encoding.encoders[type(item)](encoding, item, place, key) for key, item in mapping.items()}


def read_mapping(decoding: Decoding, node: Any) -> dict[str, Any]:
    """Read attributes by name."""
    return {key: decoding.value(item) for key, item in node.items()}


def _decode_enum(decoding: Decoding, node: Any) -> Any:
    return _decoder(decoding, node["$enum"])(decoding, node)


def _decode_object(decoding: Decoding, node: Any) -> Any:
    return _decoder(decoding, node["$object"])(decoding, node)


def _decoder(decoding: Decoding, name: str) -> Decode:
    decode = decoding.types.objects.get(name)
    if decode is None:
        raise UnreadableValue(f"the class {name!r} is not among the types that the app declares")
    return decode


TAGS: dict[str, Decode] = {"$enum": _decode_enum, "$object": _decode_object}
