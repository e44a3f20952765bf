"""``holdfast history``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from holdfast.processor.cli.options import (
    DatabaseUrl,
    InstanceId,
    JsonLines,
    open_client,
    run_long,
    version_or_moment,
)

if TYPE_CHECKING:
    from holdfast.projections.difference import Change
    from holdfast.projections.history import Entry

_END = "VERSION|TIME"


def history(
    instance_id: InstanceId,
    *,
    first: Annotated[
        str | None, typer.Option("--from", help="Show what happened from this version or moment on.", metavar=_END)
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Show what happened up to this version or moment.", metavar=_END)
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Show all that happened to an instance: at which source lines, and what it changed.

    Each event has its version, its time, the transaction that wrote it, and the frame, step and line
    at which it found the instance. Events of one transaction are one persistence point: they became
    durable together, and variables change with the last of them. Where the workflow's file is not here,
    or has changed since, the await is shown as the stored program has it, in parentheses.

    A moment is one in ISO 8601, such as 2026-01-31T12:00:00+01:00; without an offset from UTC it is local time.

        holdfast history 0199c1a2-…
        holdfast history 0199c1a2-… --from 2026-01-31T12:00 --to 2026-01-31T13:00
        holdfast history 0199c1a2-… --json | jq -r .type

    With --json one line for each event: version, recorded_at, xid (the transaction), cursor (its place
    in the whole log), type, frame, step, file, line, source (the line's text), source_is_stored (it is
    from the stored program), changes (each with section, frame, name, kind, before and after), data (the
    event itself).
    """
    start, end = version_or_moment("--from", first), version_or_moment("--to", last)

    async def work() -> None:
        from holdfast.processor.cli.output import hint, say

        async with open_client(database_url) as client:
            instance, _ = await client.instance(instance_id)
            if not as_json:
                say(f"{instance.workflow} of {instance.app}, key {instance.correlation_key}", style="bold")
            xid = None
            async for entry in client.history(instance_id, start or 1, end):
                if as_json:
                    _emit(entry)
                else:
                    _print(entry, begins=entry.recorded.cursor.xid != xid)
                xid = entry.recorded.cursor.xid
            if xid is None and not as_json:
                hint("No such versions." if instance.is_initialized else "No events: the instance is not persisted.")

    run_long(work())


def _emit(entry: Entry) -> None:
    from dataclasses import asdict

    from holdfast.events.codec import encode
    from holdfast.processor.cli.output import emit

    recorded, where, source = entry.recorded, entry.where, entry.source
    name, data = encode(recorded.event)
    emit(
        {
            "version": recorded.version,
            "recorded_at": recorded.recorded_at,
            "xid": recorded.cursor.xid,
            "cursor": str(recorded.cursor),
            "type": name,
            "frame": where and where.frame,
            "step": where and where.step,
            "file": (source and source.file) or None,
            "line": where and where.line,
            "source": source and source.text,
            "source_is_stored": source is not None and source.is_stored,
            "changes": [asdict(change) for change in entry.changes],
            "data": orjson.loads(data),
        }
    )


def _print(entry: Entry, *, begins: bool) -> None:
    from holdfast.processor.cli.describe import change, source_line, what
    from holdfast.processor.cli.output import local, say

    recorded, where = entry.recorded, entry.where
    if begins:
        say("")
        say(f"transaction {recorded.cursor.xid}, {local(recorded.recorded_at, precise=True)}", style="dim")
    head = f"{recorded.version:>4}  {type(recorded.event).__name__:<17}"
    if where is not None:
        head += f"  frame {where.frame}, step {where.step}, {source_line(entry.source, where.line)}"
    say(head.rstrip())
    for line in (*what(recorded.event), *map(change, _untold(entry.changes))):
        say(f"      {line}", style="cyan")


def _untold(changes: Iterable[Change]) -> Iterator[Change]:
    """Yield the changes that the event itself does not tell."""
    over = {change.frame for change in changes if change.section == "place" and change.kind == "removed"}
    for change in changes:
        match change.section:
            case "variable":
                if change.frame not in over:
                    yield change
            case "place":
                if change.kind != "changed" and change.frame != "0":
                    yield change
            case "bookmark":
                if change.kind == "removed":
                    yield change
            case "status":
                if change.name in ("execution_status", "outcome"):
                    yield change
            case "value" | "promoted" | "compensation":
                yield change
