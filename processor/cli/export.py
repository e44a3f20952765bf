"""``holdfast export``."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonDocument, bound, open_client, run_long
from holdfast.processor.cli.where import Where, criteria_of

if TYPE_CHECKING:
    from holdfast.processor.exporting.exports import Exported


class Format(StrEnum):
    """What ``--format`` selects."""

    parquet = "parquet"
    jsonl = "jsonl"
    xes = "xes"


class Case(StrEnum):
    """What ``--case`` selects."""

    instance = "instance"
    key = "key"


def export(
    *,
    format: Annotated[Format, typer.Option(help="What to write.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, or to replace; without it, stdout, but for Parquet.", metavar="FILE"),
    ] = None,
    app: AppName = None,
    where: Where = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Begin behind this cursor, or with what was recorded at this moment.",
            metavar="CURSOR|MOMENT",
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", help="End with this cursor, or before this moment.", metavar="CURSOR|MOMENT"),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Export the instance store, not the log: Parquet or JSON Lines.")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            help="XES: what steps are called, by a projection of the class Variants, or a function.",
            metavar="MODULE:NAME",
        ),
    ] = None,
    case: Annotated[Case, typer.Option(help="XES: what traces are named by.")] = Case.instance,
    all_events: Annotated[
        bool, typer.Option("--all-events", help="XES: export all events, and not only the steps.")
    ] = False,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Export the event log, or the instances, for analysis elsewhere.

    Parquet and JSON Lines have a row for each event, with the instance that it belongs to. XES, for process mining,
    has a trace for each instance, with the steps that it took: messages, activities, timers and subflows.

        holdfast export --format parquet --out log.parquet
        holdfast export --format jsonl --app orders --where key=order-17 | jq .type
        holdfast export --format xes --out permits.xes --label examples.permits.app:Traces --case key
        holdfast export --format parquet --instances --out instances.parquet

    Workers may run meanwhile: what is exported is the log as it was complete when the export began. At the end the
    cursor is told up to which that was; with --from, the next export goes on from there. The file is there once it is
    whole. With --where, events come instance by instance, else in the order of the log; a status is that at the
    beginning.

    With --json one document about the file: file, format, cursor, and how many events and instances it has.
    """
    if format is not Format.xes and (label or all_events or case is not Case.instance):
        raise typer.BadParameter("--label, --case and --all-events are about traces, which only --format xes has.")
    if instances and format is Format.xes:
        raise typer.BadParameter("XES has traces, and no table of instances: use parquet or jsonl.")
    if instances and (first or last):
        raise typer.BadParameter("--instances exports how instances are now: leave out --from and --to.")
    if out is None and format is Format.parquet:
        raise typer.BadParameter("Parquet is written to a file: say which with --out.")
    if out is None and as_json:
        raise typer.BadParameter("--json tells about a file: say which with --out.")
    ends: dict[str, Any] = {"first": bound("--from", first), "last": bound("--to", last)}
    criteria = criteria_of(where, also_ended=True) if where else None

    async def work(to: Path | BinaryIO) -> Exported:
        from holdfast.processor.cli.load_app import load_label
        from holdfast.processor.cli.progress import bar

        how: dict[str, Any] = {"where": criteria}
        with bar("export", "instances" if instances else "events") as how["told"]:
            async with open_client(database_url, app) as client:
                if format is Format.xes:
                    how |= {"label": load_label(label) if label else None, "case": case.value, "with_all": all_events}
                    return await client.export.traces(to, **ends, **how)
                rows = client.export.instances if instances else client.export.events
                kind: Literal["parquet", "jsonl"] = "parquet" if format is Format.parquet else "jsonl"
                return await rows(to, kind, **({} if instances else ends), **how)

    try:
        found = run_long(work(out or sys.stdout.buffer))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has had enough. What Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    _tell(found, format, out, as_json=as_json)


def _tell(found: Exported, format: Format, out: Path | None, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, hint

    if as_json:
        emit(
            {
                "file": str(out),
                "format": format.value,
                "events": found.events,
                "instances": found.instances,
                "cursor": found.cursor,
            }
        )
        return
    counts = [(found.events, "events"), (found.instances, "instances")]
    what = " of ".join(f"{count:,} {name}" for count, name in counts if count is not None)
    hint(f"{what}{f' in {out}' if out else ''}, up to the cursor {found.cursor}")
