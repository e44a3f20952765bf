"""What a client exports: ``Client.export``.

An export is read in one transaction that only reads and sees everything as it was when it began, as ``pg_dump`` does;
workers may run meanwhile. Of the log it holds what was complete then, up to the cursor that it tells: exported later
from that cursor on, nothing is missed and nothing is there twice. That holds of instances that are chosen by what they
always were (workflow and key); by what they come to be, there is no going on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

from psycopg import IsolationLevel

from holdfast.events.recorded import Cursor
from holdfast.processor.exporting import parquet, xes
from holdfast.processor.exporting.destination import destination
from holdfast.processor.exporting.json_lines import JsonLines
from holdfast.processor.exporting.parquet import Parquet
from holdfast.processor.exporting.rows import Row, event_row, instance_row
from holdfast.processor.exporting.xes import Case, Label, Xes
from holdfast.processor.store.connections import Connection
from holdfast.projections import export
from holdfast.projections.builtin.variants import Variants
from holdfast.projections.criteria import Criteria
from holdfast.projections.export import Place, Range
from holdfast.schemas.errors import ExportRefused

Format = Literal["parquet", "jsonl"]
Told = Callable[[int, int | None], None]
"""Is told how many rows were read so far, and of about how many, if that can be told."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported, as far as it applies, and the cursor up to which the log was complete."""

    events: int | None = None
    instances: int | None = None
    cursor: str


class _Writer(Protocol[T_contra]):
    def write(self, rows: Sequence[T_contra], /) -> None: ...

    def close(self) -> None: ...


class Exports:
    """Writes files with events and instances of a client's app, or of all apps.

    Each method takes the file, or a binary stream, that it writes ``to``. A file is there under its name once it is
    whole, and replaces one that was there before. ``where`` says of which instances. ``told`` is called after each
    page. Each raises ``ExportRefused`` for what cannot be exported or written.
    """

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]], app: str | None) -> None:
        self._connect = connect
        self._app = app

    async def events(
        self,
        to: Path | BinaryIO,
        format: Format,
        *,
        where: Criteria | None = None,
        first: str | datetime | None = None,
        last: str | datetime | None = None,
        told: Told | None = None,
    ) -> Exported:
        """Export events: in the order of the log, or, with ``where``, instance by instance.

        ``first`` is the cursor behind which they begin, or the moment from which on they were recorded; ``last`` is the
        cursor of the last one, or the moment before which they were recorded. Behind a cursor, ``where`` may have what
        never changes alone: ``workflow``, ``correlation_key``, ``created_since`` and ``created_before``.
        """
        async with self._snapshot() as connection:
            within = await export.complete_range(connection, _place(first), _place(last), where)
            pages = (
                export.log(connection, within, self._app)
                if where is None
                else export.streams(connection, within, self._app, criteria=where)
            )
            with destination(to) as file, _rows_to(file, format, parquet.EVENTS, within) as writer:
                count = await _write(writer, _rows(pages, event_row), told, None if where else _about(within))
        return Exported(events=count, cursor=str(within.end))

    async def instances(
        self, to: Path | BinaryIO, format: Format, *, where: Criteria | None = None, told: Told | None = None
    ) -> Exported:
        """Export the instance store without the states: one row an instance, newest first."""
        async with self._snapshot() as connection:
            within = await export.complete_range(connection, None, None)
            pages = export.instances(connection, self._app, where)
            with destination(to) as file, _rows_to(file, format, parquet.INSTANCES, within) as writer:
                count = await _write(writer, _rows(pages, instance_row), told, None)
        return Exported(instances=count, cursor=str(within.end))

    async def traces(
        self,
        to: Path | BinaryIO,
        *,
        where: Criteria | None = None,
        first: str | datetime | None = None,
        last: str | datetime | None = None,
        label: Label | None = None,
        case: Case = "instance",
        with_all: bool = False,
        told: Told | None = None,
    ) -> Exported:
        """Export instances as traces of their steps, in XES.

        ``label`` says what a step is called and which are left out; by default it is that of ``Variants``. ``case``
        says what a trace is named by. ``with_all`` has every event exported, not only the steps. ``first`` and
        ``last`` are those of ``events``, and may cut traces.
        """
        async with self._snapshot() as connection:
            within = await export.complete_range(connection, _place(first), _place(last), where)
            types = None if with_all else xes.STEP_TYPES
            pages = export.streams(connection, within, self._app, criteria=where, types=types)
            with destination(to) as file:
                writer = Xes(file, str(within.end), label=label or Variants().label, case=case, with_all=with_all)
                await _write(writer, pages, told, _about(within) if with_all and not where else None)
        return Exported(events=writer.events, instances=writer.traces, cursor=str(within.end))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """Give a connection in a transaction that only reads, whose statements all see the same."""
        async with self._connect() as connection:
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            async with connection.transaction():
                yield connection


def _place(given: str | datetime | None) -> Place | None:
    if not isinstance(given, str):
        return given
    try:
        return Cursor.parse(given)
    except ValueError as error:
        raise ExportRefused(str(error)) from None


def _about(within: Range) -> int:
    """Return how many events a range has, or a few more: some numbers were never committed."""
    return max(0, within.end.position - within.after.position)


@contextmanager
def _rows_to(file: BinaryIO, format: Format, columns: Mapping[str, str], within: Range) -> Iterator[_Writer[Row]]:
    if format == "jsonl":
        yield JsonLines(file)
        return
    writer = Parquet(file, columns, str(within.end))
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise


async def _rows(pages: AsyncIterator[Sequence[T]], row: Callable[[T], Row]) -> AsyncIterator[Sequence[Row]]:
    async for page in pages:
        yield [row(each) for each in page]


async def _write(writer: _Writer[T], pages: AsyncIterator[Sequence[T]], told: Told | None, about: int | None) -> int:
    """Write all pages and return how many rows they had; the caller's event loop goes on meanwhile."""
    count = 0
    async for page in pages:
        await asyncio.to_thread(writer.write, page)
        count += len(page)
        if told is not None:
            told(count, about)
    await asyncio.to_thread(writer.close)
    return count
