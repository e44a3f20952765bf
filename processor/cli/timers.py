"""Look at the timers at which instances wait.

    holdfast timers list
    holdfast timers list --before 2026-02-01

A worker of the app fires a timer that is due, unless its instance is suspended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonLines, Limit, moment, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.timers import Timer


def list_(
    *,
    app: AppName = None,
    instance: Annotated[UUID | None, typer.Option(help="Only those of this instance.", metavar="INSTANCE")] = None,
    before: Annotated[str | None, typer.Option(help="Only those due before this moment.", metavar="MOMENT")] = None,
    limit: Limit = 50,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List the open timers, the next one first.

    A moment without an offset from UTC is taken as local time.

        holdfast timers list --app orders --before 2026-02-01T12:00

    With --json one line for each timer.
    """
    until = None if before is None else moment("--before", before)

    async def work() -> None:
        async with open_client(database_url, app) as client:
            found = await client.timers(instance_id=instance, before=until, limit=limit)
        _print(found, limit, as_json=as_json)

    run(work())


def _print(found: list[Timer], limit: int, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, hint, local, table

    if as_json:
        for timer in found:
            emit(timer)
    else:
        table(
            ["due", "instance", "workflow", "key", "bookmark", "line", "state"],
            [
                (
                    local(t.due),
                    t.instance_id,
                    t.workflow,
                    t.correlation_key,
                    t.bookmark,
                    t.line,
                    "held back, suspended" if t.is_suspended else "due" if t.is_due else None,
                )
                for t in found
            ],
        )
    if len(found) == limit:
        hint("There may be more: a larger --limit shows them.")
