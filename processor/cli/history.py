"""``holdfast history``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonLines, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.cli.source import Source
    from holdfast.projections.history import Entry


def history(
    instance_id: InstanceId,
    *,
    first: Annotated[int, typer.Option("--from", min=1, help="First version to show.", metavar="VERSION")] = 1,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Last version to show.", metavar="VERSION")] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Show all that happened to an instance, with the source lines at which it happened.

    Each event has its version, its time, the transaction that wrote it, and the frame, step and line
    at which it found the instance. Events of one transaction are one persistence point: they became
    durable together. The text of a line is shown where the workflow's file is here and unchanged.

        holdfast history 0199c1a2-…
        holdfast history 0199c1a2-… --json | jq -r .type

    With --json one line for each event: version, recorded_at, xid (the transaction), cursor (its place
    in the whole log), type, frame, step, line, source (the line's text), data (the event itself).
    """

    async def work() -> None:
        from holdfast.processor.cli.source import Source

        async with open_client(database_url) as client:
            instance, _ = await client.instance(instance_id)
            source = Source(await client.program(instance.app, instance.program_hash))
            if not as_json:
                _print_head(instance.app, instance.workflow, instance.correlation_key, source)
            xid = None
            async for entry in client.history(instance_id, first, last):
                if as_json:
                    _emit(entry, source)
                else:
                    _print(entry, source, begins=entry.recorded.cursor.xid != xid)
                xid = entry.recorded.cursor.xid
            if xid is None and not as_json:
                from holdfast.processor.cli.output import hint

                hint("No such versions." if instance.is_initialized else "No events: the instance is not persisted.")

    run(work())


def _step(entry: Entry) -> int | None:
    from holdfast.events.types import Persisted

    event: Any = entry.recorded.event
    if isinstance(event, Persisted):
        return event.frames[entry.frame].step if entry.frame is not None else None
    where = getattr(event, "where", None)
    return where.step if where is not None else None


def _emit(entry: Entry, source: Source) -> None:
    from holdfast.events.codec import encode
    from holdfast.processor.cli.output import emit

    recorded = entry.recorded
    name, data = encode(recorded.event)
    emit(
        {
            "version": recorded.version,
            "recorded_at": recorded.recorded_at,
            "xid": recorded.cursor.xid,
            "cursor": str(recorded.cursor),
            "type": name,
            "frame": entry.frame,
            "step": _step(entry),
            "line": entry.line,
            "source": source.of_frame(entry.frame).line(entry.line),
            "data": orjson.loads(data),
        }
    )


def _print_head(app: str, workflow: str, key: str, source: Source) -> None:
    from holdfast.processor.cli.output import say

    say(f"{workflow} of {app}, key {key}" + (f", in {source.file}" if source.file else ""), style="bold")


def _print(entry: Entry, source: Source, *, begins: bool) -> None:
    from holdfast.processor.cli.describe import what
    from holdfast.processor.cli.output import local, say

    recorded = entry.recorded
    if begins:
        say("")
        say(f"transaction {recorded.cursor.xid}, {local(recorded.recorded_at, precise=True)}", style="dim")
    place = f"  frame {entry.frame}, step {_step(entry)}, " if entry.frame is not None else ""
    text = source.of_frame(entry.frame).place(entry.line)
    say(f"{recorded.version:>4}  {type(recorded.event).__name__:<17}{place}{text}".rstrip())
    for line in what(recorded.event):
        say(f"      {line}", style="cyan")
