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

from holdfast.processor.language import awaitables, scopes
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.program import Program
from holdfast.schemas.message import Message

_TITLE = "__workflow_title__"


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
            if isinstance(node, ast.Attribute) and isinstance(owner := self.value(node.value), ModuleType):
                yield getattr(owner, node.attr, None)

    @property
    def receives(self) -> frozenset[str]:
        """The message types that the function itself waits for."""
        return frozenset(message.message_type for message in self.received())

    def received(self) -> Iterator[type[Message]]:
        """Yield the types that it waits for; all message types named, if one is not a plain name."""
        for call, function in self.calls():
            if function is not awaitables.receive and function is not scopes.transacted_receive:
                continue
            wanted = self.value(call.args[0]) if call.args else None
            if isinstance(wanted, type) and issubclass(wanted, Message):
                yield wanted
            else:
                yield from (m for m in self.named() if isinstance(m, type) and issubclass(m, Message))

    @property
    def uses_persistence(self) -> bool:
        """Whether the function itself needs a store: for a scope, or for an activity with ``persist_on_close``."""
        needing = (scopes.transaction, scopes.transacted_receive, scopes.compensable)
        return any(
            value.persist_on_close if isinstance(value, Activity) else any(value is scope for scope in needing)
            for _, value in self.calls()
        )

    def calls(self) -> Iterator[tuple[ast.Call, Any]]:
        """Yield the calls in the function, each with what its callee stands for now, if that is a global name."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and (value := self.value(node.func)) is not None:
                yield node, value

    def place_of(self, node: ast.expr) -> str:
        """File and line of a part of the function."""
        code = self.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno + node.lineno - 1}"

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(textwrap.dedent(inspect.getsource(self.function)))

    def value(self, node: ast.expr) -> object:
        """Return what a global or dotted name stands for in the module as it is now."""
        if isinstance(node, ast.Name):
            return getattr(self.module, node.id, None)
        if isinstance(node, ast.Attribute):
            return getattr(self.value(node.value), node.attr, None)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """As what a function that is a workflow was registered last: its definition and the type that starts it."""

    definition: Definition
    start: type[Message]

    @property
    def name(self) -> str:
        """The name by which the app knows it."""
        return self.definition.name


def entitle(function: Callable[..., Any], title: Title) -> None:
    """Let a function be known as a workflow."""
    setattr(function, _TITLE, title)


def title_of(value: object) -> Title | None:
    """Return the title of a function that is a workflow."""
    title = getattr(value, _TITLE, None)
    return title if isinstance(title, Title) else None
