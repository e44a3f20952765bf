"""Syntax trees as JSON, in one form for every version of Python.

A node is an object with its class under ``_``, its place in the source under ``at`` (line, column, end
line, end column) and its fields. What some versions lack, and others leave empty, is left out, and the
texts of an f-string, which versions cut differently, are joined; so the same function gives the
same JSON everywhere, apart from places. Constants are tagged, so that every one of them comes back exactly.
"""

from __future__ import annotations

import ast
import json
from typing import Any, TypeAlias

Json: TypeAlias = Any

PLACE = ("lineno", "col_offset", "end_lineno", "end_col_offset")

_LEFT_OUT = frozenset({"kind", "type_comment"})
_CONSTANTS = frozenset({("Constant", "value"), ("MatchSingleton", "value")})


def dump(tree: ast.AST | list[Any]) -> Json:
    """Return the JSON form of a node or of a list of nodes."""
    return _dump(tree)


def load(data: Json) -> Any:
    """Return the node, or list of nodes, whose JSON form ``data`` is.

    Raises ``ValueError`` for a kind of node that this Python does not have.
    """
    if isinstance(data, list):
        return [load(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind = getattr(ast, data["_"], None)
    if not (isinstance(kind, type) and issubclass(kind, ast.AST)):
        raise ValueError(f"this Python has no syntax node {data['_']!r}")  # noqa: TRY004 - The value is to blame.
    fields = {}
    for name in kind._fields:
        if (data["_"], name) in _CONSTANTS:
            fields[name] = _load_constant(data[name])
        elif name in data:
            fields[name] = load(data[name])
        elif name == "ctx":
            fields[name] = ast.Load()
        else:
            fields[name] = [] if name == "type_params" else None
    return kind(**fields, **dict(zip(PLACE, data.get("at", ()), strict=False)))


def has_place(node: ast.AST) -> bool:
    """Tell whether nodes of this kind have a place in the source."""
    return "lineno" in type(node)._attributes  # noqa: SLF001 - The underscore only keeps it apart from the fields.


def without_places(data: Json) -> Json:
    """Return JSON that holds trees without the places of their nodes."""
    if isinstance(data, list):
        return [without_places(item) for item in data]
    if isinstance(data, dict):
        return {name: without_places(value) for name, value in data.items() if name != "at"}
    return data


def depth(data: Json) -> int:
    """Return how many levels of arrays and objects JSON has."""
    if isinstance(data, dict | list):
        return 1 + max(map(depth, data.values() if isinstance(data, dict) else data), default=0)
    return 0


def _dump(value: Any) -> Json:
    if isinstance(value, list):
        return [_dump(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    kind = type(value).__name__
    data: dict[str, Json] = {"_": kind}
    if has_place(value):
        data["at"] = [getattr(value, name) for name in PLACE]
    left_out = _LEFT_OUT if getattr(value, "type_params", None) else _LEFT_OUT | {"type_params"}
    for name in value._fields:
        field = getattr(value, name, None)
        if (kind, name) in _CONSTANTS:
            data[name] = _dump_constant(field)
        elif field is None or isinstance(field, ast.Load) or name in left_out:
            continue
        elif kind == "JoinedStr":
            data[name] = _dump(_joined(field))
        elif (kind, name) == ("FormattedValue", "format_spec") and not _joined(field.values):
            continue
        else:
            data[name] = _dump(field)
    return data


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with neighbouring texts joined and empty ones left out."""
    joined: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant):
            if joined and isinstance(last := joined[-1], ast.Constant):
                text = ast.Constant(f"{last.value!s}{part.value!s}")
                joined[-1] = ast.copy_location(text, last)
                continue
            if part.value == "":
                continue
        joined.append(part)
    return joined


def _dump_constant(value: Any) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if value is ...:
        return {"ellipsis": True}
    if isinstance(value, str):
        plain = value.isprintable() or not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
        return value if plain else {"text": json.dumps(value)}
    if isinstance(value, int):
        return {"int": hex(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise ValueError(f"a constant of type {type(value).__name__} has no JSON form")


def _load_constant(data: Json) -> Any:
    if not isinstance(data, dict):
        return data
    ((tag, value),) = data.items()
    match tag:
        case "ellipsis":
            return ...
        case "text":
            return json.loads(value)
        case "int":
            return int(value, 16)
        case "float":
            return float.fromhex(value)
        case "complex":
            return complex(*map(float.fromhex, value))
        case "bytes":
            return bytes.fromhex(value)
    raise ValueError(f"no constant is tagged {tag!r}")
