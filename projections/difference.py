"""What differs between two states, down to the places inside stored values.

Pure, and independent of programs: values are compared in their stored form, in which two are the same if they have the
same type and content; the order of a dict's items counts for nothing. An object that several variables share is
written with the first of them, so a change inside it stands there alone.

The law: whoever makes the changes to the first state, one after the other as they come, has the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import orjson

from holdfast.events.types import Json
from holdfast.projections.instance import InstanceState
from holdfast.projections.ledger import read
from holdfast.schemas.errors import UnreadableValue

Section = Literal[
    "instance",
    "status",
    "place",
    "variable",
    "bookmark",
    "call",
    "subflow",
    "compensation",
    "value",
    "promoted",
    "internal",
]
"""What a change is about; ``internal`` are values that only the interpreter or a model's own workings need."""

Path = tuple[str | int, ...]

_MAPPINGS: Mapping[str, Section] = {
    "bookmarks": "bookmark",
    "calls": "call",
    "subflows": "subflow",
    "compensations": "compensation",
}
_VALUES: Mapping[str, Section] = {"values": "value", "promoted": "promoted"}
_STATUS = (
    "execution_status",
    "outcome",
    "is_suspended",
    "suspension_reason",
    "suspension_exception_name",
    "suspension_detail",
    "is_cancelling",
    "result",
    "error",
)
_INSTANCE = tuple(
    it.name for it in fields(InstanceState) if it.name not in {"version", "frames", *_STATUS, *_VALUES, *_MAPPINGS}
)
"""All that is not of a kind of its own."""

_CLASSES = ("$object", "$exception")
_SEQUENCES = ("$tuple", "$set", "$frozenset", "$dict")
_INTERNAL = frozenset({"$fields_set", "$is"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One place that differs.

    ``name`` is the place as a person reads it, such as ``order.lines[2].amount``; for variables and places, ``frame``
    is the path of their frame. ``path`` is the place in the tree that ``tree`` makes of a state; indexes are those
    that hold once all changes before this one are made. ``before`` and ``after`` are stored values, None where
    something was added or removed.
    """

    section: Section
    name: str
    kind: Literal["added", "removed", "changed"]
    path: Path
    frame: str | None = None
    before: Json = None
    after: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two states and all that differs between them; ``changes`` is empty if nothing does but the versions."""

    before: InstanceState
    after: InstanceState
    changes: tuple[Change, ...]


def tree(state: InstanceState) -> dict[str, Any]:
    """Return a state as one JSON tree: its fields but the version, and the ``compensations`` that it has registered."""
    made: dict[str, Any] = dict(vars(state))
    del made["version"]
    for name in ("frames", "bookmarks", "calls", "subflows"):
        made[name] = {key: vars(each) for key, each in made[name].items()}
    made["compensations"] = _compensations(state)
    return made


def difference(before: InstanceState, after: InstanceState) -> tuple[Change, ...]:
    """Return what differs between two states but their versions; nothing if they are the same."""
    return tuple(_changes(before, after))


def _changes(before: InstanceState, after: InstanceState) -> Iterator[Change]:
    a, b = vars(before), vars(after)
    for name in (*_INSTANCE, *_STATUS):
        yield from _Walk("status" if name in _STATUS else "instance").value((name,), name, a[name], b[name])
    # States that follow from each other share what did not change, so that this is found without looking inside.
    if before.frames is not after.frames:
        yield from _frames(before, after)
        yield from _records("compensations", _compensations(before), _compensations(after))
    for name in ("bookmarks", "calls", "subflows"):
        if a[name] is not b[name]:
            yield from _records(name, *({key: vars(each) for key, each in it[name].items()} for it in (a, b)))
    for name, section in _VALUES.items():
        yield from _named(_Walk(section), (name,), a[name], b[name])


def _compensations(state: InstanceState) -> dict[str, Any]:
    """Return the actions that are registered and were not called or dropped, by number."""
    try:
        ledger = read(state)
        return {
            str(number): {
                "kind": action.kind,
                "name": action.name,
                "arguments": list(action.arguments),
                "keywords": dict(action.keywords),
                "status": action.status,
            }
            for number, action in sorted(ledger.actions.items())
            if number in ledger.open or number in ledger.under_way
        }
    except (UnreadableValue, LookupError, TypeError):  # Then the variables alone tell.
        return {}


def _frames(before: InstanceState, after: InstanceState) -> Iterator[Change]:
    for path in sorted({*before.frames, *after.frames}):
        a, b = before.frames.get(path), after.frames.get(path)
        if a is b:
            continue
        where: Path = ("frames", path)
        if a is None and b is not None:
            yield Change(
                section="place", name="", kind="added", path=where, frame=path, after={**vars(b), "variables": {}}
            )
        if a is not None and b is not None:
            for name in ("program", "step", "line", "visits"):
                walk = _Walk("internal" if name == "visits" else "place", path)
                yield from walk.value((*where, name), name, vars(a)[name], vars(b)[name])
        yield from _named(
            _Walk("variable", path), (*where, "variables"), a.variables if a else {}, b.variables if b else {}
        )
        if a is not None and b is None:
            yield Change(
                section="place", name="", kind="removed", path=where, frame=path, before={**vars(a), "variables": {}}
            )


def _records(
    field: str, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[Change]:
    """Yield what differs among named records, one inside the other."""
    walk = _Walk(_MAPPINGS[field])
    for key in [*before, *(key for key in after if key not in before)]:
        a, b = before.get(key), after.get(key)
        if a is None or b is None:
            yield walk.one((field, key), key, a, b)
        else:
            for name in a:
                yield from walk.value((field, key, name), f"{key}.{name}", a[name], b[name])


def _named(walk: _Walk, path: Path, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Change]:
    for name in [*before, *(name for name in after if name not in before)]:
        inner = _Walk("internal", walk.frame) if name.startswith("$") else walk
        yield from inner.item((*path, name), name, before, after, name)


class _Walk:
    """A walk through two values at the same place of a section."""

    def __init__(self, section: Section, frame: str | None = None) -> None:
        self.section = section
        self.frame = frame

    def item(self, path: Path, name: str, a: Mapping[str, Json], b: Mapping[str, Json], key: str) -> Iterator[Change]:
        """Compare what two mappings hold under a key, if they do."""
        if key in a and key in b:
            yield from self.value(path, name, a[key], b[key])
        elif key in a:
            yield self._change(path, name, "removed", before=a[key])
        else:
            yield self._change(path, name, "added", after=b[key])

    def one(self, path: Path, name: str, before: Any, after: Any) -> Change:
        """Return the change of something that only one of both has."""
        kind: Any = "added" if before is None else "removed"
        return self._change(path, name, kind, before=before, after=after)

    def value(self, path: Path, name: str, a: Json, b: Json) -> Iterator[Change]:
        """Compare two values."""
        if a is b:
            return
        shape = _shape(a)
        if shape is None or shape != _shape(b):
            if not _same(a, b):
                yield self._change(path, name, "changed", before=a, after=b)
        elif isinstance(a, list):
            yield from self._list(path, name, a, b, pairs=True)
        else:
            for key in [*a, *(key for key in b if key not in a)]:
                if key in _SEQUENCES and key in a and key in b:
                    yield from self._sequence((*path, key), name, key, a[key], b[key])
                else:
                    inside = name if key in ("$attributes", "$extra", "$private") else name + _member(shape, key)
                    yield from self.item((*path, key), inside, a, b, key)

    def _sequence(self, path: Path, name: str, tag: str, a: list[Json], b: list[Json]) -> Iterator[Change]:
        if tag == "$dict":
            yield from self._list(path, name, a, b, pairs=False, alike=lambda x, y: _same(x[0], y[0]))
        else:
            yield from self._list(path, name, a, b, pairs=tag == "$tuple")

    def _list(
        self,
        path: Path,
        name: str,
        a: Sequence[Json],
        b: Sequence[Json],
        *,
        pairs: bool,
        alike: Callable[[Json, Json], bool] | None = None,
    ) -> Iterator[Change]:
        """Compare two lists: what they begin and end with alike, then what is in between, in ``pairs`` or as a whole.

        ``alike`` tells of items that are pairs themselves, of a key and a value, whether they go together.
        """
        fits = alike or _same
        shorter = min(len(a), len(b))
        start = next((i for i in range(shorter) if not fits(a[i], b[i])), shorter)
        end = next((i for i in range(shorter - start) if not fits(a[-1 - i], b[-1 - i])), shorter - start)
        stop_a, stop_b = len(a) - end, len(b) - end
        if alike is not None:
            together = [(i, i) for i in range(start)] + [(stop_a + i, stop_b + i) for i in range(end)]
            for i, j in together:
                yield from self.value((*path, i, 1), f"{name}[{_key(a[i][0])}]", a[i][1], b[j][1])
        paired = min(stop_a, stop_b) - start if pairs else 0
        for i in range(start, start + paired):
            yield from self.value((*path, i), f"{name}[{i}]", a[i], b[i])
        for i in reversed(range(start + paired, stop_a)):
            yield self._change((*path, i), _item(name, i, a[i], alike), "removed", before=a[i])
        for i in range(start + paired, stop_b):
            yield self._change((*path, i), _item(name, i, b[i], alike), "added", after=b[i])

    def _change(self, path: Path, name: str, kind: Any, *, before: Json = None, after: Json = None) -> Change:
        section: Section = "internal" if _INTERNAL.intersection(path) else self.section
        return Change(section=section, name=name, kind=kind, path=path, frame=self.frame, before=before, after=after)


def _shape(value: Json) -> object:
    """Return what two values must have in common to be compared part by part; None for what has no parts."""
    if isinstance(value, list):
        return list
    if not isinstance(value, dict):
        return None
    for tag in _CLASSES:
        if tag in value:
            return tag, value[tag]
    for tag in _SEQUENCES:
        if tag in value:
            return tag
    return None if any(name.startswith("$") for name in value) else dict


def _member(shape: object, key: str) -> str:
    return f"[{key!r}]" if shape is dict else f".{key}"


def _item(name: str, index: int, item: Json, alike: object) -> str:
    return f"{name}[{index if alike is None else _key(item[0])}]"


def _key(value: Json) -> str:
    return repr(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _same(a: Json, b: Json) -> bool:
    if a is b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    # Of the floats, 0.0 and -0.0 are equal and yet written differently.
    return type(a) is type(b) and repr(a) == repr(b)
