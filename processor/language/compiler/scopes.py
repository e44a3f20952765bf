"""Which scopes ``async with`` may open, and what may not be awaited inside of them.

Names are looked up in the globals of the function when the decorator runs. What is reached in other ways, through
routines for instance, is refused when it is awaited.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

# What they are is told by where they were defined: the compiler needs nothing but Python.
_HOME = "holdfast.processor.language"
_OPAQUE = ("transaction", "transacted_receive", "no_persist")
_SCOPES = {f"{_HOME}.scopes.{name}": name for name in (*_OPAQUE, "compensable")}
_WAITING = {
    f"{_HOME}.{home}.{name}": name
    for home, names in (
        ("awaitables", ("receive", "delay", "first_of", "suspend", "checkpoint")),
        ("subflows", ("start", "spawn", "continue_as_new")),
    )
    for name in names
}
_ACTIVITY = f"{_HOME}.activity.Activity"
_OUTSIDE = "Await it before the scope begins or after it has ended."


class ScopeRules:
    """What the names of one function mean, and what the scopes around a place forbid there.

    ``local`` are the variables of the function, which hide global names.
    """

    def __init__(self, namespace: Mapping[str, Any], local: frozenset[str]) -> None:
        self._namespace = namespace
        self._local = local

    def scope(self, context: ast.expr) -> str | None:
        """Return the name of the function whose call opens a scope, or ``None`` if it is none of Holdfast's."""
        return _SCOPES.get(_home(self._value(context.func))) if isinstance(context, ast.Call) else None

    def misplaced_scope(self, scope: str, around: list[str]) -> tuple[str, str] | None:
        """Say what is wrong with opening a scope inside of others, and the mend."""
        wrong: tuple[str, ...] = ()
        mend = _OUTSIDE
        match scope:
            case "compensable":
                wrong, mend = _OPAQUE[:2], "Put the transaction inside the compensable scope."
            case "transacted_receive":
                wrong = _OPAQUE
            case "transaction":
                wrong, mend = ("no_persist",), "Its end is a persistence point, so end no_persist() first."
        outer = _innermost(around, wrong)
        return None if outer is None else (f"{scope}() inside {outer}()", mend)

    def misplaced_await(self, awaited: ast.expr, around: list[str]) -> tuple[ast.Call, str, str] | None:
        """Find a call in what is awaited that must not be inside of these scopes; say what is wrong, and the mend."""
        outer = _innermost(around, _OPAQUE)
        if outer is None:
            return None
        for call, value in self._calls(awaited):
            if _home(type(value)) == _ACTIVITY:
                if not value.repeatable:
                    return call, f"activity {value.name} (repeatable=False) inside {outer}()", _OUTSIDE
                if value.queue is not None:
                    return call, f"activity {value.name} (on a queue) inside {outer}()", _OUTSIDE
            elif waiting := _WAITING.get(_home(value)):
                return call, f"{waiting}() inside {outer}()", _OUTSIDE
        return None

    def _calls(self, node: ast.expr) -> Iterator[tuple[ast.Call, Any]]:
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                yield part, self._value(part.func)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return None if node.id in self._local else self._namespace.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(owner := self._value(node.value), ModuleType):
            return getattr(owner, node.attr, None)
        return None


def _innermost(around: list[str], kinds: tuple[str, ...]) -> str | None:
    return next((scope for scope in reversed(around) if scope in kinds), None)


def _home(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
