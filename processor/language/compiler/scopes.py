"""Which scopes ``async with`` may open, and what may not be awaited inside of them.

Names are looked up in the globals of the function when the decorator runs. What is reached in other ways, through
routines for instance, is refused when it is awaited.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from holdfast.processor.language import awaitables, scopes, subflows
from holdfast.processor.language.activity import Activity

_WAITING = {
    awaitables.receive,
    awaitables.delay,
    awaitables.first_of,
    awaitables.suspend,
    awaitables.checkpoint,
    subflows.start,
    subflows.spawn,
    subflows.continue_as_new,
}
_OPAQUE = (scopes.transaction, scopes.transacted_receive, scopes.no_persist)
_OUTSIDE = "Await it before the scope begins or after it has ended."


class ScopeRules:
    """What the names of one function mean, and what the scopes around a place forbid there.

    ``local`` are the variables of the function, which hide global names.
    """

    def __init__(self, namespace: Mapping[str, Any], local: frozenset[str]) -> None:
        self._namespace = namespace
        self._local = local

    def scope(self, context: ast.expr) -> Callable[..., Any] | None:
        """Return the function whose call opens a scope, or ``None`` if it is none of Holdfast's."""
        value = self._value(context.func) if isinstance(context, ast.Call) else None
        return next((scope for scope in scopes.SCOPES if scope is value), None)

    def misplaced_scope(self, scope: object, around: list[Callable[..., Any]]) -> tuple[str, str] | None:
        """Say what is wrong with opening ``scope`` inside of others, and the mend."""
        if scope is scopes.compensable:
            outer = _innermost(around, scopes.transaction, scopes.transacted_receive)
            if outer is not None:
                return f"compensable() inside {outer}()", "Put the transaction inside the compensable scope."
        elif scope is scopes.transacted_receive and (outer := _innermost(around, *_OPAQUE)) is not None:
            return f"transacted_receive() inside {outer}()", _OUTSIDE
        return None

    def misplaced_await(self, awaited: ast.expr, around: list[Callable[..., Any]]) -> tuple[ast.Call, str, str] | None:
        """Find a call in what is awaited that must not be inside of these scopes; say what is wrong, and the mend."""
        outer = _innermost(around, *_OPAQUE)
        if outer is None:
            return None
        for call, value in self._calls(awaited):
            if isinstance(value, Activity):
                if not value.repeatable:
                    return call, f"activity {value.name} (repeatable=False) inside {outer}()", _OUTSIDE
                if value.queue is not None:
                    return call, f"activity {value.name} (on a queue) inside {outer}()", _OUTSIDE
            elif any(value is waiting for waiting in _WAITING):
                return call, f"{getattr(value, '__name__', value)}() inside {outer}()", _OUTSIDE
        return None

    def _calls(self, node: ast.expr) -> Iterator[tuple[ast.Call, object]]:
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                yield part, self._value(part.func)

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name):
            return None if node.id in self._local else self._namespace.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(owner := self._value(node.value), ModuleType):
            return getattr(owner, node.attr, None)
        return None


def _innermost(around: list[Callable[..., Any]], *kinds: Callable[..., Any]) -> str | None:
    return next((scope.__name__ for scope in reversed(around) if scope in kinds), None)
