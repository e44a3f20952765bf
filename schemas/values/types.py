"""The declared types: the only names that a stored value can resolve to."""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Iterable, Iterator
from types import ModuleType, NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from holdfast.schemas import errors
from holdfast.schemas.values import atoms, containers
from holdfast.schemas.values.exceptions import encode_exception
from holdfast.schemas.values.objects import codec_of
from holdfast.schemas.values.passes import Decode, Encode
from holdfast.schemas.values.refusals import encode_refused


def default_name(cls: type) -> str:
    """Give the name that a class has in trees unless it is declared with another."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}:{cls.__qualname__}"


_NATIVE: dict[type, Encode] = {**atoms.ENCODERS, **containers.ENCODERS}
_EXCEPTIONS = {
    cls
    for module in (builtins, errors)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, BaseException)
}
_BUILTINS = {default_name(cls): cls for cls in (_NATIVE.keys() | _EXCEPTIONS | {object}) - {ModuleType, NoneType}}


class _Encoders(dict[type, Encode]):
    """Encoders by exact class, so that a value costs one look-up; rare kinds are found by what they derive from."""

    def __missing__(self, cls: type) -> Encode:
        if issubclass(cls, BaseException):
            return encode_exception
        if issubclass(cls, type):
            return atoms.encode_class
        return encode_refused


class Types:
    """Named classes, and the names of modules, that variables may hold.

    Values of Python's own types, builtin exceptions and Holdfast's own need no declaration. Declared can be pydantic
    models, dataclasses, named tuples, enums and exceptions; such classes that the fields of a declared one mention are
    declared with it. A class is written under the first name that it was declared with, ``module:qualname`` by default;
    further names are read as well, so that a class can move.
    """

    def __init__(self, *, modules: Iterable[str] = ()) -> None:
        self.modules: set[str] = set(modules)
        self.classes: dict[str, type] = dict(_BUILTINS)
        self.names: dict[type, str] = {cls: name for name, cls in _BUILTINS.items()}
        self.encoders: dict[type, Encode] = _Encoders(_NATIVE)
        self.objects: dict[str, Decode] = {}
        self._mentioned: set[type] = set()

    @classmethod
    def of(cls, *classes: type, modules: Iterable[str] = ()) -> Types:
        """Declare classes under their default names, and names of modules."""
        types = cls(modules=modules)
        for each in classes:
            types.add(each)
        return types

    def add(self, cls: type, name: str | None = None) -> None:
        """Declare a class. Raises ``TypeError`` if it is of no such kind, ``ValueError`` if the name is taken."""
        name = name or default_name(cls)
        holder = self.classes.get(name, cls)
        if holder is not cls:
            raise ValueError(f"the name {name!r} is taken by {holder!r}, so {cls!r} needs another")
        # A name given on purpose goes before the one that a class got by being mentioned.
        written = name if cls in self._mentioned else self.names.get(cls, name)
        self._mentioned.discard(cls)
        if not issubclass(cls, BaseException):
            codec = codec_of(cls, written)
            if codec is None:
                raise TypeError(
                    f"{cls!r} is no model, dataclass, named tuple, enum or exception, so it has no stored form"
                )
            self.encoders[cls] = codec.encode
            self.objects[name] = codec.decode
        self.classes[name] = cls
        self.names[cls] = written
        for other in mentioned(cls):
            if other not in self.names and declarable(other) and default_name(other) not in self.classes:
                self.add(other)
                self._mentioned.add(other)


def declarable(cls: type) -> bool:
    """Tell whether ``Types.add`` takes a class."""
    return issubclass(cls, BaseException) or codec_of(cls, "") is not None


def mentioned(cls: type) -> Iterator[type]:
    """Give the classes that the fields of a class are annotated with, at any depth of the annotation."""
    if issubclass(cls, BaseModel):
        hints = [field.annotation for field in cls.model_fields.values()]
    elif dataclasses.is_dataclass(cls) or hasattr(cls, "_fields"):
        try:
            hints = list(get_type_hints(cls).values())
        except (NameError, TypeError, AttributeError, SyntaxError):
            # Some annotation cannot be evaluated; what it means is then for the app to declare.
            hints = []
    else:
        hints = []
    while hints:
        hint: Any = hints.pop()
        origin = get_origin(hint)
        hints += [part for part in (origin, *get_args(hint)) if part is not None]
        if isinstance(hint, type) and origin is None:
            yield hint
