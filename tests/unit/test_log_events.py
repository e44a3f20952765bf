"""What is logged is documented: each event with its level and its fields, and nothing that is not logged."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.house import PARTS, ROOT, python_files

ROW = re.compile(r"^\| `([^`|]+)` \| (info|warning|error) \| (.*?) ?\| .+ \|$", re.MULTILINE)
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
SPREAD = {"ids_of": {"message_id", "trace_id"}, "_about": {"activity", "instance_id", "idempotency_key", "attempt"}}
"""The fields that come out of functions."""


def logged() -> Iterator[tuple[str, str, set[str]]]:
    """Give event, level and fields of each call that logs."""
    for file in python_files(*PARTS):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[event, *_]):
                    fields = {name for keyword in node.keywords for name in names(keyword)}
                    for each in ast.walk(event):
                        if isinstance(each, ast.Constant) and isinstance(each.value, str):
                            yield each.value, LEVELS[level], fields


def names(keyword: ast.keyword) -> set[str]:
    if keyword.arg is not None:
        return {"exception"} if keyword.arg == "exc_info" else {keyword.arg}
    assert isinstance(keyword.value, ast.Call)
    assert isinstance(keyword.value.func, ast.Name)
    return SPREAD[keyword.value.func.id]


def test_the_table_of_events_is_what_is_logged() -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for event, level, fields in logged():
        found.setdefault((event, level), set()).update(fields)
    documented = {
        (event, level): set(re.findall(r"`(\w+)`", fields))
        for event, level, fields in ROW.findall((ROOT / "docs" / "observability.md").read_text())
    }
    assert documented == found
