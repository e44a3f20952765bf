"""A workflow function in compiled form: data that can be stored, sent and run years later.

A program is a flat list of *steps*, which are the control flow around awaits, and of *blocks*, which are
runs of await-free statements kept as syntax trees. Its hash is taken over both, without line numbers,
so that it is the same on every Python and does not change when the function only moves in its file.

To run, a program needs the module whose global names its blocks use: ``linked`` gives it one.

Steps are JSON objects with the operation under ``op``. Common to all are ``catch``, the slot and the step
to which an exception goes, and ``handling``, the slots of the ``except`` and ``finally`` clauses around.

    run      calls a block, which answers with an index into ``to``
    await    hands out ``$await`` and puts the answer ``into`` a slot; ``live`` lists the hidden variables,
             ``dead`` the names of local functions, whose values are not or need not be kept meanwhile
    next     takes the next item of a ``loop``; when there is none, goes to ``done``
    jump     goes on at ``to``
    leave    enters a ``finally`` clause on the way to the next step; ``returns`` if a return value comes along
    resume   ends a ``finally`` clause and goes where it was to go
    raise    raises what is in a ``slot`` again
    unbind   ends an ``except … as name`` clause
    return   ends the frame, with the value in ``$return`` if there is a ``value``
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from holdfast.processor.language.linking import Code
from holdfast.processor.language.trees import Json, without_places
from holdfast.schemas.errors import ProgramUnresolvable

FORMAT = 1
"""The version of the stored form. A change of meaning takes a new number and keeps reading the old."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled workflow or routine.

    ``name`` is the workflow's or routine's and ``function`` the Python function's, defined in ``module`` at ``line``
    of ``file``. ``parameters`` are its parameters, ``names`` the global names that its blocks use, ``future``
    the ``__future__`` features that its module had switched on.
    """

    name: str
    module: str
    function: str
    file: str
    line: int
    parameters: tuple[str, ...]
    names: tuple[str, ...]
    future: tuple[str, ...]
    steps: tuple[Json, ...]
    blocks: tuple[Json, ...]
    namespace: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of all that decides what the program does, in hexadecimal."""
        meaning = without_places(self.to_json())
        for name in ("file", "line"):
            del meaning[name]
        return hashlib.sha256(_canonical(meaning)).hexdigest()

    @cached_property
    def code(self) -> Code:
        """The program in the form that the interpreter runs; made on first use."""
        if self.namespace is None:
            raise ProgramUnresolvable(f"program {self.name} is not linked to its module {self.module}")
        try:
            return Code(self, self.namespace)
        except (AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
            raise ProgramUnresolvable(f"program {self.name} cannot run on this Python: {error}") from error

    def linked(self, namespace: dict[str, Any]) -> Program:
        """Return this program with its global names resolved in ``namespace``, a module's ``__dict__``."""
        return dataclasses.replace(self, namespace=namespace)

    def unresolved(self, namespace: Mapping[str, Any]) -> list[str]:
        """Return the global names that neither ``namespace`` nor Python's builtins define, sorted.

        To be asked once the module is loaded. A program with such names would raise ``NameError`` for
        no fault of the user's, so it must not run here.
        """
        return [name for name in self.names if name not in namespace and not hasattr(builtins, name)]

    def named(self, namespace: Mapping[str, Any]) -> Iterator[object]:
        """Yield what the global names of its blocks stand for in ``namespace``, and names in modules among these."""
        for name in self.names:
            if name in namespace:
                yield namespace[name]
        waiting: list[Json] = [*self.blocks]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                owner = node.get("value")
                if node.get("_") == "Attribute" and isinstance(owner, dict) and owner.get("_") == "Name":
                    module = namespace.get(owner["id"])
                    if isinstance(module, ModuleType) and hasattr(module, node["attr"]):
                        yield getattr(module, node["attr"])
                waiting += node.values()
            elif isinstance(node, list):
                waiting += node

    def to_json(self) -> dict[str, Json]:
        """Return the stored form: strings, integers, booleans, lists and objects only."""
        return {
            "format": FORMAT,
            "name": self.name,
            "module": self.module,
            "function": self.function,
            "file": self.file,
            "line": self.line,
            "parameters": list(self.parameters),
            "names": list(self.names),
            "future": list(self.future),
            "steps": list(self.steps),
            "blocks": list(self.blocks),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json], namespace: dict[str, Any] | None = None) -> Program:
        """Return the program of a stored form; linked, if a ``namespace`` is given.

        Raises ``ProgramUnresolvable`` if the form is not one that this version of Holdfast reads.
        """
        if data.get("format") != FORMAT:
            raise ProgramUnresolvable(
                f"program {data.get('name')} has format {data.get('format')!r}, this version reads format {FORMAT}"
            )
        try:
            return cls(
                name=data["name"],
                module=data["module"],
                function=data["function"],
                file=data["file"],
                line=data["line"],
                parameters=tuple(data["parameters"]),
                names=tuple(data["names"]),
                future=tuple(data["future"]),
                steps=tuple(data["steps"]),
                blocks=tuple(data["blocks"]),
                namespace=namespace,
            )
        except (KeyError, TypeError) as error:
            raise ProgramUnresolvable(f"program {data.get('name')} cannot be read: {error!r}") from None

    def sign(self, key: bytes) -> bytes:
        """Return the HMAC-SHA256 of the stored form under ``key``."""
        return hmac.digest(key, _canonical(self.to_json()), "sha256")

    def verify(self, key: bytes, signature: bytes) -> bool:
        """Tell whether ``signature`` was made under ``key`` for exactly this program."""
        return hmac.compare_digest(self.sign(key), signature)


def _canonical(data: Json) -> bytes:
    """Return the one byte sequence that stands for a JSON value."""
    return json.dumps(data, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()
