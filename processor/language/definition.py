"""A function in the user's file beside the program that was made of it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

from holdfast.processor.language import awaitables
from holdfast.processor.language.program import Program
from holdfast.schemas.message import Message


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A compiled function, under the name by which the app knows it; ``kind`` is what an error calls it."""

    kind: ClassVar[str] = "routine"

    name: str
    function: Callable[..., Any]
    program: Program

    @cached_property
    def module(self) -> ModuleType:
        """The module whose names the program's blocks resolve."""
        return sys.modules[self.function.__module__]

    @property
    def imports(self) -> frozenset[str]:
        """The modules that the function itself imports, by name."""
        return frozenset(
            alias.name for node in ast.walk(self._tree) if isinstance(node, ast.Import) for alias in node.names
        )

    @property
    def place(self) -> str:
        """File and line at which the function begins."""
        code = self.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def named(self) -> Iterator[object]:
        """Yield what the program's global names stand for in the module as it is now.

        So are names in other modules, such as ``billing.charge``, if the other one is a global name here.
        """
        for name in self.program.names:
            if hasattr(self.module, name):
                yield getattr(self.module, name)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute) and isinstance(owner := self._value(node.value), ModuleType):
                yield getattr(owner, node.attr, None)

    @property
    def receives(self) -> frozenset[str]:
        """The message types that the function itself waits for."""
        return frozenset(message.message_type for message in self.received())

    def received(self) -> Iterator[type[Message]]:
        """Yield the types awaited by ``receive``; all message types named, if one is not a plain name."""
        for call in ast.walk(self._tree):
            if not isinstance(call, ast.Call) or self._value(call.func) is not awaitables.receive:
                continue
            wanted = self._value(call.args[0]) if call.args else None
            if isinstance(wanted, type) and issubclass(wanted, Message):
                yield wanted
            else:
                yield from (m for m in self.named() if isinstance(m, type) and issubclass(m, Message))

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(textwrap.dedent(inspect.getsource(self.function)))

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name):
            return getattr(self.module, node.id, None)
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return None
