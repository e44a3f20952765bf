"""What can be told of a tree that somebody wrote by hand, without the code of the app whose values it stands for."""

from __future__ import annotations

import math
from typing import Any

import orjson

from holdfast.schemas.errors import HoldfastError, NotPersistable, UnreadableValue
from holdfast.schemas.values.atoms import writable
from holdfast.schemas.values.codec import TAGS, encode
from holdfast.schemas.values.passes import MAX_DEPTH, Decode, Decoding
from holdfast.schemas.values.types import Types

_BITS = 64
_NOT_OF_TEXT = {"$timedelta", "$timezone", "$tzinfo", "$range", "$slice", "$tuple", "$set", "$frozenset", "$dict"}


def objection(tree: object, depth: int = 0) -> str | None:
    """Return why a tree, which stands so many levels deep, cannot be stored or read again; None if it can.

    Names of classes and modules are taken as they are: what is behind them, only the app knows.
    """
    return _not_json(tree, depth) or _unreadable(tree)


def _not_json(tree: object, depth: int) -> str | None:
    waiting = [(tree, depth)]
    while waiting:
        node, above = waiting.pop()
        if type(node) in (dict, list) and above >= MAX_DEPTH:
            return f"it is nested more than {MAX_DEPTH} levels deep"
        if type(node) is list:
            waiting += [(item, above + 1) for item in node]
        elif type(node) is dict:
            if odd := [key for key in node if type(key) is not str or not writable(key)]:
                return f"{odd[0]!r} is no key that can be stored as it is"
            waiting += [(item, above + 1) for item in node.values()]
        elif not _is_plain(node):
            return _mend(node)
    return None


def _is_plain(value: object) -> bool:
    """Tell whether a value without parts stands for itself."""
    if type(value) is str:
        return writable(value)
    if type(value) is int:
        return value.bit_length() < _BITS
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) is bool


def _mend(value: object) -> str:
    """Say how a value is to be written that JSON does not have."""
    try:
        stored = orjson.dumps(encode({"value": value}, Types())["value"]).decode()
    except NotPersistable:
        return f"{value!r} is no JSON"
    return f"{value!r} is stored as {stored}: write that"


def _unreadable(tree: Any) -> str | None:
    decoding = Decoding({"value": tree}, Types(), _TAGS)
    try:
        decoding.variable("value")
    except HoldfastError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  Whatever a damaged tree may lead to.
        return f"it cannot be read: {type(error).__name__}: {error}"
    return None


def _named(decoding: Decoding, node: Any) -> object:
    """Read what is in something whose class only the app knows."""
    for key, item in node.items():
        if key in ("$attributes", "$private"):
            for part in item.values():
                decoding.value(part)
        elif key[0:1] != "$" or key == "$extra":
            decoding.value(item)
    return object()


def _of_text(tag: str, decode: Decode) -> Decode:
    def read(decoding: Decoding, node: Any) -> Any:
        if type(node[tag]) is not str:
            raise UnreadableValue(f"{tag} takes text, not {node[tag]!r}")
        return decode(decoding, node)

    return read


_NAMED: dict[str, Decode] = dict.fromkeys(("$object", "$enum", "$class", "$module"), _named)
_TAGS: dict[str, Decode] = {
    tag: decode if tag in _NOT_OF_TEXT else _of_text(tag, decode) for tag, decode in {**TAGS, **_NAMED}.items()
}
