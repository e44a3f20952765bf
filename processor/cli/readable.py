"""Stored values as a person reads them: much as Python would print them.

This only shows trees. Types are not looked up, so it works where the user's classes are not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

_SHOWN = 80
"""Characters of a value that are shown among other things."""


def readable(tree: Any) -> str:
    """Return a stored value in one line."""
    if isinstance(tree, list):
        return f"[{_all(tree)}]"
    if not isinstance(tree, dict):
        return repr(tree)
    for tag, show in _TAGS.items():
        if tag in tree:
            return show(tree)
    tags = [name for name in tree if name.startswith("$")]
    if len(tags) == 1:
        return f"{tags[0][1:]}({readable(tree[tags[0]])})"
    return f"{{{', '.join(f'{name!r}: {readable(value)}' for name, value in tree.items())}}}"


def shortened(text: str) -> str:
    """Return a text in one line, without its end if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _all(trees: Iterable[Any]) -> str:
    return ", ".join(map(readable, trees))


def _object(tree: dict[str, Any]) -> str:
    fields = (f"{name}={readable(value)}" for name, value in tree.items() if not name.startswith("$"))
    return f"{_class(tree['$object'])}({', '.join(fields)})"


def _exception(tree: dict[str, Any]) -> str:
    arguments = tree.get("args", [])
    return f"{_class(tree['$exception'])}({_all(arguments) if isinstance(arguments, list) else readable(arguments)})"


def _enum(tree: dict[str, Any]) -> str:
    told = next((readable(value) for name, value in tree.items() if name != "$enum"), "")
    return f"{_class(tree['$enum'])}({told})"


def _tuple(tree: dict[str, Any]) -> str:
    items = tree["$tuple"]
    return f"({_all(items)}{',' if len(items) == 1 else ''})"


def _class(name: str) -> str:
    return name.rpartition(":")[2]


_TAGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "$object": _object,
    "$exception": _exception,
    "$enum": _enum,
    "$tuple": _tuple,
    "$set": lambda tree: f"{{{_all(tree['$set'])}}}" if tree["$set"] else "set()",
    "$dict": lambda tree: f"{{{', '.join(f'{readable(k)}: {readable(v)}' for k, v in tree['$dict'])}}}",
    "$int": lambda tree: str(int(tree["$int"], 16)),
    "$float": lambda tree: str(tree["$float"]),
    "$decimal": lambda tree: f"Decimal({tree['$decimal']!r})",
    "$uuid": lambda tree: f"UUID({tree['$uuid']!r})",
    "$timedelta": lambda tree: repr(timedelta(*tree["$timedelta"])).removeprefix("datetime."),
    "$ref": lambda tree: f"the same as {tree['$ref']}",
}
