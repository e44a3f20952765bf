"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from holdfast.processor.cli.output import hint

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from holdfast.projections.lag import Progress

_SPOKEN = 5.0
"""Seconds between two lines where there is no terminal."""


async def watch(name: str, progress: AsyncIterator[Progress]) -> None:
    """Show how far a rebuild is, how fast it goes and how long it still takes."""
    if not sys.stderr.isatty():
        await _tell(name, progress)
        return
    with _bars() as bars:
        bar = None
        async for it in progress:
            if bar is None:
                bar = bars.add_task(name, completed=it.position, total=it.end)
            bars.update(bar, completed=it.position, total=it.end)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} events/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


async def _tell(name: str, progress: AsyncIterator[Progress]) -> None:

    first: Progress | None = None
    began = told = time.monotonic()
    async for it in progress:
        now = time.monotonic()
        if first is None:
            first = it
        if now - told >= _SPOKEN:
            told = now
            rate = (it.position - first.position) / (now - began)
            left = f", {(it.end - it.position) / rate:,.0f} s left" if rate else ""
            hint(f"{name}: {it.position:,} of {it.end:,} events, {rate:,.0f} events/s{left}")
