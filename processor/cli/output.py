"""How commands print: tables and text for people, JSON for scripts."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000
"""Columns of what is no terminal: a pipe or a file gets each row in one line, and nothing shortened."""

_SHOWN = 60
"""Characters of a value that are shown among other things."""


def emit(value: object) -> None:
    """Print a value as JSON, in one line."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n")
    sys.stdout.buffer.flush()


@cache
def console() -> Console:
    """Return the terminal, or what stands in for it."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE, soft_wrap=not sys.stdout.isatty())


def say(text: str, style: str | None = None) -> None:
    """Print a line of text as it is, without markup."""
    console().print(text, style=style, markup=False)


def hint(text: str) -> None:
    """Tell a person something beside the result."""
    sys.stderr.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; None is left blank."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        grid.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        grid.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console().print(grid)


def details(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line; pairs whose value is None or empty are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        say(f"{name:<{width}}  {value}")


def local(moment: datetime | None, *, precise: bool = False) -> str:
    """Return a moment in the zone of whoever looks; to the millisecond if ``precise``."""
    if moment is None:
        return ""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") + (f".{moment.microsecond // 1000:03}" if precise else "")


def brief(value: object) -> str:
    """Return a JSON tree in one line, shortened if it is long."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def body_as_json(body: bytes | None) -> dict[str, Any]:
    """Return a body for a JSON document, and how it is to be read: ``json``, ``text`` or ``base64``."""
    if body is None:
        return {"body": None, "body_encoding": None}
    try:
        return {"body": orjson.loads(body), "body_encoding": "json"}
    except orjson.JSONDecodeError:
        pass
    try:
        return {"body": body.decode(), "body_encoding": "text"}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "body_encoding": "base64"}
