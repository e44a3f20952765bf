"""How commands print: tables and text for people, JSON for scripts."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson


def be_quiet() -> None:
    """Keep the log of connections off the terminal: what fails is said in one line, at the end."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.basicConfig(level=logging.CRITICAL)


def emit(value: object) -> None:
    """Print a value as JSON, in one line."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str, style: str | None = None) -> None:
    """Print a line of text as it is, in a style if this is a terminal."""
    if style is None or not sys.stdout.isatty():
        sys.stdout.write(f"{text}\n")
        return
    from rich.console import Console

    Console(highlight=False).print(text, style=style, markup=False, soft_wrap=True)


def hint(text: str) -> None:
    """Tell a person something beside the result."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings, each in one line; None is left blank.

    A terminal that is too narrow gets cells of several lines.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        grid.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    Console().print(grid)


def details(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line; pairs whose value is None or empty are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        say(f"{name:<{width}}  {value}")


def tell_of_more(found: Sequence[Any], limit: int) -> None:
    """Tell a person how to get what is behind a full page of instances."""
    if len(found) == limit:
        hint(f"There may be more: --after {found[-1].instance_id}, or a larger --limit.")


def rounded(time: timedelta | None) -> str:
    """Return a time in the largest unit that it fills, such as ``3d`` or ``15m``; empty for none."""
    if time is None:
        return ""
    seconds = int(time.total_seconds())
    unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("m", 60)) if seconds >= s), ("s", 1))
    return f"{seconds // size}{unit}"


def local(moment: datetime | None, *, precise: bool = False) -> str:
    """Return a moment in the zone of whoever looks; to the millisecond if ``precise``."""
    if moment is None:
        return ""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") + (f".{moment.microsecond // 1000:03}" if precise else "")


def lately(moment: datetime) -> str:
    """Return a moment for a narrow column: only the time if it is of today."""
    here = moment.astimezone()
    today = datetime.now(UTC).astimezone().date()
    return here.strftime("%H:%M:%S" if here.date() == today else "%Y-%m-%d %H:%M")


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
