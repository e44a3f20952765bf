"""Compare two graphs of Python objects: same types, same values, same aliases."""

import dataclasses
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from holdfast.processor.language.compensable import Compensable

_NO_IDENTITY = (type(None), bool, int, float, str, bytes, complex, Decimal, range, slice, Enum, ModuleType, type)


def difference(left: object, right: object) -> str | None:
    """Say where two graphs differ first, or ``None``. Aliases count of all but scalars and tuples of scalars."""
    try:
        _Walk().same(left, right, "")
    except _DifferError as error:
        return str(error)
    return None


def label(value: Any) -> Any:
    """Give what identifies a member of a set: itself, unless it is compared by identity and so has a label."""
    return ("label", value.label) if hasattr(value, "label") else value


def shown(value: object) -> str:
    """Write a value as text that says nothing of aliases and of the order of sets, and is never long."""
    return _shown(value, [200])


def _shown(value: Any, left: list[int]) -> str:
    left[0] -= 1
    if left[0] < 0:
        return "…"
    parts = _parts(value, value)
    if parts is None:
        return repr(value)
    if isinstance(value, set | frozenset):
        items = sorted(_shown(item, left) for item in value)
    elif isinstance(value, list | tuple):
        items = [_shown(item, left) for item in value]
    else:
        items = [f"{name}={_shown(part, left)}" for name, part in parts]
    return f"{type(value).__name__}({', '.join(items)})"


class _DifferError(Exception):
    pass


class _Walk:
    def __init__(self) -> None:
        self.rights: dict[int, int] = {}
        self.lefts: dict[int, int] = {}

    def same(self, left: Any, right: Any, path: str) -> None:
        if type(left) is not type(right):
            raise _DifferError(f"{path}: {type(left)} and {type(right)}")
        if isinstance(left, float):
            self.equal(repr(left), repr(right), path)
        elif isinstance(left, Decimal):
            self.equal(left.as_tuple(), right.as_tuple(), path)
        elif isinstance(left, datetime | time):
            self.equal((left.replace(tzinfo=None), left.fold), (right.replace(tzinfo=None), right.fold), path)
            self.same(left.tzinfo, right.tzinfo, f"{path}.tzinfo")
            if left.tzinfo is not None:
                self.equal(left.tzname(), right.tzname(), path)
        else:
            lefts, rights = _parts(left, left), _parts(right, left)
            if lefts is None or rights is None:
                self.equal(left, right, path)
                return
            if not _plain_tuple(left):
                first = id(left) in self.rights or id(right) in self.lefts
                self.equal(self.rights.setdefault(id(left), id(right)), id(right), f"{path} (alias)")
                self.equal(self.lefts.setdefault(id(right), id(left)), id(left), f"{path} (alias)")
                if first:
                    return
            self.equal([name for name, _ in lefts], [name for name, _ in rights], path)
            for (name, a), (_, b) in zip(lefts, rights, strict=True):
                self.same(a, b, f"{path}/{name}")

    def equal(self, left: object, right: object, path: str) -> None:
        if left != right:
            raise _DifferError(f"{path}: {left!r} and {right!r}")


def _plain_tuple(value: Any) -> bool:
    """Tell whether nothing shows if a tuple or frozenset is another one with the same items."""
    if type(value) not in (tuple, frozenset):
        return False
    return all(_parts(item, item) is None or _plain_tuple(item) for item in value)


def _parts(value: Any, like: Any) -> list[tuple[Any, Any]] | None:
    """Give the named parts of a value, a set in the order of another; ``None`` if it is compared as a whole."""
    if isinstance(value, _NO_IDENTITY):
        return None
    if isinstance(value, bytearray):
        return [("bytes", bytes(value))]
    if isinstance(value, dict):
        # A key is a part too, in its order; NaN would differ from itself as a name.
        return [
            (f"{at}{side}", part)
            for at, pair in enumerate(value.items())
            for side, part in zip("kv", pair, strict=True)
        ]
    if isinstance(value, set | frozenset):
        places = {label(item): at for at, item in enumerate(like)}
        return sorted(((places.get(label(item), -1), item) for item in value), key=lambda part: part[0])
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, BaseException):
        chain = value.__cause__, value.__context__, value.__suppress_context__
        named = {name: getattr(value, name, None) for name in ("errno", "filename", "name", "value", "code")}
        return [
            *((f"args{at}", arg) for at, arg in enumerate(value.args)),
            *sorted(vars(value).items()),
            *named.items(),
            *zip(("cause", "context", "suppress"), chain, strict=True),
        ]
    if isinstance(value, Compensable):
        # The rest is how a machine finds its way.
        return [("status", value.status), ("actions", value.actions)]
    if isinstance(value, BaseModel):
        inner = {"fields": value.model_fields_set, "extra": value.model_extra, "private": value.__pydantic_private__}
        state = {**vars(value), **inner}
        return [(name, state[name]) for name in sorted(state)]
    if dataclasses.is_dataclass(value):
        slots = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        state = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
        return [(name, state[name]) for name in sorted(state)]
    return None
