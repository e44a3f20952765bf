"""Lists, dicts, tuples, sets and their like: what holds other values and can be shared or lead back to itself."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import orjson

from holdfast.schemas.errors import NotPersistable
from holdfast.schemas.values.atoms import SCALARS, writable
from holdfast.schemas.values.passes import ROOT, Decode, Decoding, Encode, Encoding, Json, Place, pointer

# Of these any two of the same type compare, and always alike.
_SORTABLE = frozenset({str, int, bytes, UUID, date, timedelta})


def encode_list(encoding: Encoding, value: list[Any], parent: Place, key: str | int) -> Json:
    """Write a list."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    return _items(encoding, value, encoding.enter(value, parent, key))


def encode_dict(encoding: Encoding, value: dict[Any, Any], parent: Place, key: str | int) -> Json:
    """Write a dict as an object, or as pairs if not every key is one that an object can have."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    place = encoding.enter(value, parent, key)
    for name in value:
        if type(name) is not str or name[:1] == "$" or not (name.isprintable() or writable(name)):
            return _pairs(encoding, value, place)
    encoders = encoding.encoders
    return {name: encoders[type(item)](encoding, item, place, name) for name, item in value.items()}


def encode_bytearray(encoding: Encoding, value: bytearray, parent: Place, key: str | int) -> Json:
    """Write bytes that can change."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    encoding.enter(value, parent, key)
    return {"$bytearray": b64encode(value).decode("ascii")}


def encode_set(encoding: Encoding, value: set[Any], parent: Place, key: str | int) -> Json:
    """Write a set."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    return {"$set": _members(encoding, value, _inside(encoding.enter(value, parent, key), "$set"))}


def encode_frozenset(encoding: Encoding, value: frozenset[Any], parent: Place, key: str | int) -> Json:
    """Write a frozenset."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    place = encoding.below(value, parent, key)
    tree: dict[str, Json] = {"$frozenset": _members(encoding, value, _inside(place, "$frozenset"))}
    return tree if _scalar(value) else encoding.leave(value, place, tree)


def encode_tuple(encoding: Encoding, value: tuple[Any, ...], parent: Place, key: str | int) -> Json:
    """Write a tuple."""
    known = encoding.places.get(id(value))
    if known is not None:
        return {"$ref": pointer(known)}
    place = encoding.below(value, parent, key)
    tree: dict[str, Json] = {"$tuple": _items(encoding, value, _inside(place, "$tuple"))}
    return tree if _scalar(value) else encoding.leave(value, place, tree)


def encode_slice(encoding: Encoding, value: slice, parent: Place, key: str | int) -> Json:
    """Write a slice."""
    place = _inside(encoding.below(value, parent, key), "$slice")
    return {"$slice": _items(encoding, (value.start, value.stop, value.step), place)}


def _inside(place: Place, tag: str) -> Place:
    """Give the place of the array under a tag."""
    return place, tag, place[2] + 1


def _scalar(items: Collection[Any]) -> bool:
    """Tell whether there is nothing in ``items`` that an alias could show."""
    return SCALARS.issuperset(map(type, items))


def _items(encoding: Encoding, items: Collection[Any], place: Place) -> list[Json]:
    encoders = encoding.encoders
    tree: list[Json] = []
    for index, item in enumerate(items):
        # No comprehension: before Python 3.12 that is one frame more on each level.
        tree.append(encoders[type(item)](encoding, item, place, index))
    return tree


def _pairs(encoding: Encoding, value: dict[Any, Any], place: Place) -> Json:
    outer = _inside(place, "$dict")
    return {"$dict": [_items(encoding, pair, (outer, at, outer[2] + 1)) for at, pair in enumerate(value.items())]}


def _members(encoding: Encoding, value: Collection[Any], place: Place) -> list[Json]:
    """Write the members of a set in an order that every process finds again."""
    if encoding.draft:
        return sorted(_items(encoding, value, place), key=orjson.dumps)
    if len(value) > 1:
        kinds = set(map(type, value))
        value = sorted(value) if len(kinds) == 1 and kinds <= _SORTABLE else _by_tree(encoding, value)
    return _items(encoding, value, place)


def _by_tree(encoding: Encoding, members: Collection[Any]) -> Collection[Any]:
    """Sort by the trees that the members have when each is written alone."""

    def tree(member: Any) -> bytes:
        draft = Encoding(encoding.types, draft=True)
        return orjson.dumps(draft.encoders[type(member)](draft, member, ROOT, ""))

    try:
        return sorted(members, key=tree)
    except NotPersistable:
        # The pass itself meets the same member and knows where it is.
        return members


def decode_tuple(decoding: Decoding, node: Any) -> Any:
    """Read a tuple; items first, for it may be one of those that are found again inside."""
    items = tuple([decoding.value(item) for item in node["$tuple"]])
    return finished(decoding, node, items)


def decode_frozenset(decoding: Decoding, node: Any) -> Any:
    """Read a frozenset."""
    items = frozenset([decoding.value(item) for item in node["$frozenset"]])
    return finished(decoding, node, items)


def finished(decoding: Decoding, node: Any, value: Any) -> Any:
    """Note a value that could only be made after its items, unless it was met inside them already."""
    if "$is" in node:
        value = decoding.resolve(node["$is"])
    decoding.built[id(node)] = value
    return value


def decode_set(decoding: Decoding, node: Any) -> set[Any]:
    """Read a set."""
    value: set[Any] = set()
    decoding.built[id(node)] = value
    value.update([decoding.value(item) for item in node["$set"]])
    return value


def decode_dict(decoding: Decoding, node: Any) -> dict[Any, Any]:
    """Read a dict that is written as pairs."""
    value: dict[Any, Any] = {}
    decoding.built[id(node)] = value
    for key, item in node["$dict"]:
        name = decoding.value(key)
        value[name] = decoding.value(item)
    return value


def decode_bytearray(decoding: Decoding, node: Any) -> bytearray:
    """Read bytes that can change."""
    value = decoding.built[id(node)] = bytearray(b64decode(node["$bytearray"]))
    return value


def decode_slice(decoding: Decoding, node: Any) -> slice:
    """Read a slice."""
    return slice(*[decoding.value(part) for part in node["$slice"]])


def decode_ref(decoding: Decoding, node: Any) -> Any:
    """Find the object that is written elsewhere."""
    return decoding.resolve(node["$ref"])


ENCODERS: dict[type, Encode] = {
    list: encode_list,
    dict: encode_dict,
    tuple: encode_tuple,
    set: encode_set,
    frozenset: encode_frozenset,
    bytearray: encode_bytearray,
    slice: encode_slice,
}

TAGS: dict[str, Decode] = {
    "$ref": decode_ref,
    "$tuple": decode_tuple,
    "$set": decode_set,
    "$frozenset": decode_frozenset,
    "$dict": decode_dict,
    "$bytearray": decode_bytearray,
    "$slice": decode_slice,
}
