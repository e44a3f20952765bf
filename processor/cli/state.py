"""``holdfast state``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run, version_or_moment


def state(
    instance_id: InstanceId,
    *,
    at: Annotated[
        str | None,
        typer.Option(help="A version, or a moment such as 2026-01-31T12:00:00+01:00; now otherwise.", metavar="WHEN"),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Show an instance's state, as it is now or was at any earlier version or moment.

    It is computed from the events alone, without the code of the workflow. Versions are those that
    `holdfast history` shows. A moment stands for the last event recorded by then; without an offset
    from UTC it is taken as local time.

        holdfast state 0199c1a2-… --at 5

    With --json one document with all fields, variables in the form in which they are stored.
    """
    when = version_or_moment("--at", at)

    async def work() -> None:
        from holdfast.processor.cli.condition import wait
        from holdfast.processor.cli.describe import variables
        from holdfast.processor.cli.output import details, emit, say
        from holdfast.processor.cli.readable import readable
        from holdfast.processor.source import Source

        async with open_client(database_url) as client:
            found = await client.state(instance_id, when)
            if as_json:
                emit({"instance_id": instance_id, **asdict(found)})
                return
            instance, _ = await client.instance(instance_id)
            sources = {
                path: Source(await client.program(instance.app, frame.program)) for path, frame in found.frames.items()
            }
        details(
            {
                "version": found.version,
                "workflow": found.workflow,
                "correlation key": found.correlation_key,
                "forked from": found.origin and f"{found.origin} at version {found.origin_version}",
                "status": found.outcome or found.execution_status,
                "suspended": found.suspension_reason,
                "because of": found.suspension_detail,
                "result": None if found.outcome is None else readable(found.result),
            }
        )
        for path, frame in found.frames.items():
            say(f"\nframe {path}, step {frame.step}, {sources[path].place(frame.line)}", style="bold")
            details({f"  {name}": readable(value) for name, value in variables(dict(frame.variables)).items()})
        for title, given in (("values of participants", found.values), ("promoted", found.promoted)):
            if given:
                say(f"\n{title}", style="bold")
                details({f"  {name}": readable(value) for name, value in given.items()})
        if found.bookmarks:
            say("\nwaits for", style="bold")
            for name, bookmark in found.bookmarks.items():
                # A branch of a gather that is no routine stands where its caller does.
                path = bookmark.frame if bookmark.frame in sources else bookmark.frame.rpartition(".")[0]
                place = sources[path].place(bookmark.line) if path in sources else f"line {bookmark.line}"
                say(f"  {name}: {wait(bookmark)}, {place}")

    run(work())
