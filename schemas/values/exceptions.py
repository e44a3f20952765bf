"""Exceptions: type, arguments, attributes, notes and chain. An exception always has a stored form."""

from __future__ import annotations

from contextlib import suppress
from types import MemberDescriptorType
from typing import Any

from holdfast.schemas.errors import NotPersistable, RemoteError
from holdfast.schemas.values.containers import finished
from holdfast.schemas.values.objects import read_mapping
from holdfast.schemas.values.passes import Decode, Decoding, Encoding, Json, Place, pointer

# What the interpreter keeps in an exception besides its arguments, and what is not kept here: the object that lacked
# an attribute may be anything at all; the rest is written under names of its own.
_NOT_MEMBERS = {
    (BaseException, "__suppress_context__"),
    (BaseExceptionGroup, "message"),
    (BaseExceptionGroup, "exceptions"),
    (AttributeError, "obj"),
}


def encode_exception(encoding: Encoding, value: BaseException, parent: Place, key: str | int) -> Json:
    """Write an exception of any class, declared or not."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    tree: dict[str, Json] = {"$exception": _name(encoding, type(value))}
    if isinstance(value, BaseExceptionGroup):
        # A group can only be made from the exceptions in it, so it can be referred to from here on and not before.
        place = encoding.below(value, parent, key)
        tree["title"] = encoding.encoders[str](encoding, value.message, place, "title")
        inside = place, "exceptions", place[2] + 1
        tree["exceptions"] = [_linked(encoding, each, inside, at) for at, each in enumerate(value.exceptions)]
        encoding.leave(value, place, tree)
    else:
        place = encoding.enter(value, parent, key)
    inside = place, "args", place[2] + 1
    tree["args"] = [encoding.attempt(arg, inside, at) for at, arg in enumerate(value.args)]
    if _has_own_words(type(value)):
        # For RemoteError, should the class be gone by the time it is read.
        tree["message"] = encoding.encoders[str](encoding, _said(value), place, "message")
    for part, attributes in (("members", _members(value)), ("attributes", value.__dict__)):
        if attributes:
            inside = place, part, place[2] + 1
            tree[part] = {name: encoding.attempt(item, inside, name) for name, item in attributes.items()}
    for part, linked in (("cause", value.__cause__), ("context", value.__context__)):
        if linked is not None:
            tree[part] = _linked(encoding, linked, place, part)
    if value.__suppress_context__:
        tree["suppress_context"] = True
    return tree


def _linked(encoding: Encoding, value: BaseException, place: Place, part: str | int) -> Json:
    """Write the next exception of a chain or group, or its gist where they become too deep."""
    try:
        return encoding.encoders[type(value)](encoding, value, place, part)
    except NotPersistable:
        message = encoding.encoders[str](encoding, _said(value), place, part)
        return {"$exception": _name(encoding, type(value)), "args": [message]}


def _name(encoding: Encoding, cls: type) -> str:
    return encoding.types.names.get(cls) or f"{cls.__module__}:{cls.__qualname__}"


def _has_own_words(cls: type[BaseException]) -> bool:
    """Tell whether what an exception says cannot be found from its arguments without its class."""
    always_there = cls.__module__ == "builtins" or cls is RemoteError
    return not always_there and cls.__str__ is not BaseException.__str__


def _said(value: BaseException) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything, and its exception must be stored nevertheless
        return ""


def _members(value: BaseException) -> dict[str, Any]:
    """Give what slots hold, such as the ``errno`` of an ``OSError``."""
    held: dict[str, Any] = {}
    for base in type(value).__mro__:
        for name, slot in vars(base).items():
            if type(slot) is MemberDescriptorType and (base, name) not in _NOT_MEMBERS:
                item = getattr(value, name, None)
                if item is not None:
                    held[name] = item
    return held


def decode_exception(decoding: Decoding, node: Any) -> BaseException:
    """Read an exception without calling its class; ``RemoteError`` if that is not declared or cannot be made."""
    cls = decoding.types.classes.get(node["$exception"])
    exceptions = [decoding.value(each) for each in node.get("exceptions", ())]
    made = _made(decoding, node, cls, exceptions) if cls is not None and issubclass(cls, BaseException) else None
    stands_in = made is None
    value: BaseException = finished(decoding, node, RemoteError.__new__(RemoteError) if made is None else made)
    args = tuple([decoding.value(arg) for arg in node["args"]])
    if not stands_in:
        with suppress(Exception):
            # It fills the slots that the interpreter derives from the arguments, where they are the usual ones.
            _native(type(value)).__init__(value, *args)
    value.args = args
    for name, item in node.get("members", {}).items():
        # Another version of Python may have no such slot, or one that cannot be set.
        held = decoding.value(item)
        with suppress(AttributeError, TypeError):
            object.__setattr__(value, name, held)
    value.__dict__.update(read_mapping(decoding, node.get("attributes", {})))
    if stands_in and isinstance(value, RemoteError):
        value.type_name = node["$exception"]
        value.message = decoding.value(node["message"]) if "message" in node else str(BaseException(*args))
    if "cause" in node:
        value.__cause__ = decoding.value(node["cause"])
    if "context" in node:
        value.__context__ = decoding.value(node["context"])
    value.__suppress_context__ = "suppress_context" in node
    return value


def _made(
    decoding: Decoding, node: Any, cls: type[BaseException], exceptions: list[BaseException]
) -> BaseException | None:
    """Make the bare exception; ``None`` if only the class itself knows how to."""
    with suppress(KeyError, TypeError, ValueError):
        if issubclass(cls, BaseExceptionGroup):
            group: BaseException = BaseExceptionGroup.__new__(cls, decoding.value(node["title"]), exceptions)
            return group
        value: BaseException = _native(cls).__new__(cls)
        return value
    return None


def _native(cls: type[BaseException]) -> Any:
    """Give the builtin exception that a class derives from."""
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


TAGS: dict[str, Decode] = {"$exception": decode_exception}
