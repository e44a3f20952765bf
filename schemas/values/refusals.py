"""What to say to whoever keeps something in a variable that has no stored form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from inspect import isawaitable, isroutine
from typing import Any, NoReturn

from pydantic import BaseModel

from holdfast.schemas.values.passes import Encoding, Place, refuse

_BUILTIN_BASES = (dict, list, tuple, set, frozenset, bytearray, bytes, str, int, float)


def encode_refused(_encoding: Encoding, value: object, parent: Place, key: str | int) -> NoReturn:
    """Raise ``NotPersistable``: this is the encoder of all that has no other."""
    refuse(value, parent, key, mend_of(value))


def mend_of(value: Any) -> str:
    """Say what to do instead of keeping ``value`` in a variable."""
    cls = type(value)
    if isinstance(value, BaseModel | Enum) or dataclasses.is_dataclass(value) or hasattr(cls, "_fields"):
        return f"Declare {cls.__qualname__} among the app's types"
    base = next((base for base in _BUILTIN_BASES if isinstance(value, base)), None)
    if base is not None:
        return f"Keep a plain {base.__name__} instead: {base.__name__}(…)"
    if isroutine(value):
        return (
            "Define the function at the top of its module and call it by its name, instead of keeping it in a variable"
        )
    if isawaitable(value):
        return "Await it at once, and keep its result"
    if isinstance(value, Iterator):
        return "Keep a list of its items instead: list(…)"
    return (
        "Keep what finds it again, such as an id, instead of the object, or make its class a dataclass and declare it"
    )
