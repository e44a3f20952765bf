"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from holdfast.processor.cli.output import hint

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from holdfast.projections.lag import Progress

P = TypeVar("P", bound="Progress")

_SPOKEN = 5.0
"""Seconds between two lines where there is no terminal."""


Told = Callable[[int, int | None], None]
"""Is told how far it is, and how far it goes, where that is known."""


async def watch(name: str, progress: AsyncIterator[P]) -> P | None:
    """Show how far a rebuild or a replay is, how fast it goes and how long it still takes; return where it ended."""
    it = None
    with bar(name, "events") as told:
        async for it in progress:
            told(it.position, it.end)
    return it


@contextmanager
def can_be_continued() -> Iterator[None]:
    """Say, where what stands in the block is interrupted, that nothing of it is lost."""
    try:
        yield
    except KeyboardInterrupt:
        hint("interrupted: the same command goes on where it was")
        raise


@contextmanager
def bar(name: str, unit: str) -> Iterator[Told]:
    """Show how far something is that is told within the block; where results go to the same terminal, in lines too."""
    if not sys.stderr.isatty():
        yield _lines(name, unit)
        return
    with _bars(unit) as bars:
        task = bars.add_task(name, total=None, start=False)

        def told(position: int, end: int | None) -> None:
            if not bars.tasks[task].started:
                bars.reset(task, completed=position, total=end)
            bars.update(task, completed=position, total=end)

        yield told


def _bars(unit: str) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} {unit}/s")

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total is not None else ""))

    columns = (TextColumn("{task.description}"), BarColumn(), Count(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _lines(name: str, unit: str) -> Told:
    first: int | None = None
    began = spoken = time.monotonic()

    def told(position: int, end: int | None) -> None:
        nonlocal first, spoken
        now = time.monotonic()
        if first is None:
            first = position
        if now - spoken >= _SPOKEN:
            spoken = now
            rate = (position - first) / (now - began)
            of = "" if end is None else f" of {end:,}"
            left = f", {(end - position) / rate:,.0f} s left" if rate and end is not None else ""
            hint(f"{name}: {position:,}{of} {unit}, {rate:,.0f} {unit}/s{left}")

    return told
