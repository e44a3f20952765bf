"""What one pass over the variables carries along, in either direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, NoReturn, Protocol, TypeAlias

from holdfast.schemas.errors import NotPersistable, UnreadableValue

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# orjson writes at most 254 levels; what is left is for the envelope that the trees travel in.
MAX_DEPTH = 200
"""How many levels of JSON a variable may take."""

Place: TypeAlias = tuple["Place | None", str | int, int]
"""Where a value is written: the place that holds it, the key or index there, and the levels of JSON down to its items.

A chain of these costs one tuple a container; pointers are spelled out only when an alias or an error needs one.
"""

ROOT: Place = (None, "", 0)

PLAIN = frozenset({NoneType, bool, int, float, str})
"""The types of tree nodes that stand for themselves."""


class Declared(Protocol):
    """What the passes know about the declared types."""

    @property
    def encoders(self) -> Mapping[type, Encode]:
        """How to write an instance of exactly this class; never lacks a key."""

    @property
    def objects(self) -> Mapping[str, Decode]:
        """How to read what ``$object`` and ``$enum`` name."""

    @property
    def classes(self) -> Mapping[str, type]:
        """Every class that a name resolves to."""

    @property
    def names(self) -> Mapping[type, str]:
        """The name that each of these classes is written with."""

    @property
    def modules(self) -> set[str]:
        """The modules that may be variables."""


class Encoding:
    """One pass from values to trees. ``draft`` marks a pass whose trees only serve to compare."""

    __slots__ = ("draft", "encoders", "places", "types")

    def __init__(self, types: Declared, *, draft: bool = False) -> None:
        self.types = types
        self.encoders = types.encoders
        self.places: dict[int, Place] = {}
        self.draft = draft

    def enter(self, value: object, parent: Place, key: str | int) -> Place:
        """Note where ``value`` is written, before its items are, and give the place for them."""
        place = self.below(value, parent, key)
        self.places[id(value)] = place
        return place

    def below(self, value: object, parent: Place, key: str | int) -> Place:
        """Give the place for the items of ``value``, which is noted only when it is complete (see ``leave``)."""
        depth = parent[2] + 1
        if depth > MAX_DEPTH:
            refuse(value, parent, key, f"It is nested more than {MAX_DEPTH} levels deep: keep it flatter")
        return parent, key, depth

    def leave(self, value: object, place: Place, tree: dict[str, Json]) -> Json:
        """Note a complete value; if it met itself in its items, say where."""
        inner = self.places.setdefault(id(value), place)
        if inner is not place:
            tree["$is"] = pointer(inner)
        return tree

    def attempt(self, value: object, parent: Place, key: str | int) -> Json:
        """Write ``value``, or its ``repr`` if some of it has no stored form."""
        before = len(self.places)
        try:
            return self.encoders[type(value)](self, value, parent, key)
        except NotPersistable:
            # What was noted meanwhile points into a tree that is given up.
            while len(self.places) > before:
                self.places.popitem()
            return self.encoders[str](self, described(value), parent, key)


class Decoding:
    """One pass from trees to values."""

    __slots__ = ("built", "started", "tags", "trees", "types", "variables")

    def __init__(self, trees: Mapping[str, Json], types: Declared, tags: Mapping[str, Decode]) -> None:
        self.trees = trees
        self.types = types
        self.tags = tags
        self.built: dict[int, Any] = {}
        self.started: set[str] = set()
        self.variables: dict[str, object] = {}

    def variable(self, name: str) -> None:
        """Read one variable into ``variables``."""
        self.started.add(name)
        self.variables[name] = self.value(self.trees[name])

    def value(self, node: Any) -> Any:
        """Give the value that ``node`` stands for."""
        kind = type(node)
        if kind is dict:
            first = next(iter(node), "")
            if first[:1] == "$":
                decode = self.tags.get(first)
                if decode is None:
                    raise UnreadableValue(f"there is no tag {first}")
                return decode(self, node)
            mapping: dict[str, Any] = {}
            self.built[id(node)] = mapping
            for key, item in node.items():
                mapping[key] = item if type(item) in PLAIN else self.value(item)
            return mapping
        if kind is list:
            items: list[Any] = []
            self.built[id(node)] = items
            for item in node:
                # Before Python 3.12 a comprehension is one frame more on each level.
                items.append(item if type(item) in PLAIN else self.value(item))  # noqa: PERF401 - for the reason above
            return items
        return node

    def resolve(self, path: str) -> Any:
        """Give the object that was built at a pointer's target, reading the variable that holds it first if need be."""
        name, *rest = [segment.replace("~1", "/").replace("~0", "~") for segment in path.split("/")]
        if name not in self.started and name in self.trees:
            self.variable(name)
        node: Any = self.trees
        try:
            for segment in (name, *rest):
                node = node[int(segment)] if type(node) is list else node[segment]
            return self.built[id(node)]
        except (LookupError, TypeError, ValueError):
            raise UnreadableValue(f"the reference {path!r} leads nowhere") from None


Encode: TypeAlias = Callable[[Encoding, Any, Place, str | int], Json]
Decode: TypeAlias = Callable[[Decoding, Any], Any]


def pointer(place: Place) -> str:
    """Spell out a place as a JSON pointer without its leading slash."""
    return "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in keys(place))


def keys(place: Place) -> list[str | int]:
    """Give the variable's name and the keys and indices below it."""
    found = []
    parent, key, _ = place
    while parent is not None:
        found.append(key)
        parent, key, _ = parent
    return found[::-1]


def described(value: object) -> str:
    """Give the ``repr`` of ``value``, or what can be said without calling a broken one."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything, and an exception must be stored nevertheless
        return f"<{type_name(type(value))} object>"


def type_name(cls: type) -> str:
    """Name a class as people do, with its module unless it is built in."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def refuse(value: object, parent: Place, key: str | int, mend: str) -> NoReturn:
    """Raise ``NotPersistable`` for a value at its place. Tags are left out of the path that it shows."""
    name, *path = keys((parent, key, 0))
    shown = [str(segment) for segment in path if str(segment)[:1] != "$"]
    raise NotPersistable(variable=str(name), path="/".join(shown), type_name=type_name(type(value)), mend=mend)
