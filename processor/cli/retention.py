"""Remove what is over for longer than it is to be kept.

Nothing is removed by itself: closed instances, their histories and the messages that were taken in are kept until this
command removes them, by hand or from a cron.

    holdfast retention apply --instances 30d --dry-run
    holdfast retention apply --instances 30d --streams 365d --inbox 14d

It needs the database role holdfast_retention, or the one that migrated the database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonDocument, duration, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.store.retention import Removed


def apply(
    *,
    app: AppName = None,
    instances: Annotated[
        timedelta | None,
        typer.Option(parser=duration, help="Rows and states of instances closed longer ago than this.", metavar="AGE"),
    ] = None,
    streams: Annotated[
        timedelta | None,
        typer.Option(parser=duration, help="Whole histories of instances closed longer ago.", metavar="AGE"),
    ] = None,
    inbox: Annotated[
        timedelta | None,
        typer.Option(parser=duration, help="Messages with a final verdict, received longer ago.", metavar="AGE"),
    ] = None,
    dead_letters: Annotated[
        timedelta | None, typer.Option(parser=duration, help="Dead letters older than this.", metavar="AGE")
    ] = None,
    programs: Annotated[
        timedelta | None,
        typer.Option(parser=duration, help="Unused programs with which no worker started since.", metavar="AGE"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Remove what is over for longer than it is to be kept, and say how much that was.

    Ages are durations such as 12h, 30d or 52w. What is not named is not touched; dead letters, above all, go only if
    they are. What lives, waits or is suspended stays whatever its age, and so does a subflow whose end its parent has
    not taken yet.

        holdfast retention apply --app orders --instances 30d --dry-run
        holdfast retention apply --instances 30d --streams 365d --inbox 14d --dead-letters 90d --programs 90d

    A history goes as a whole or not at all, and for good; copy what has to be kept for longer first. A message that
    is no longer in the inbox is not known again: if it comes a second time it is a new one.

    It works through the tables in many short transactions, beside running workers. If it is interrupted, the next
    run does the rest. With --json one document: how many "instances", "streams" with "events", "messages",
    "dead_letters", "attempts", "heartbeats" and "programs" went, and "dry_run".
    """
    from holdfast.processor.store.retention import Retention

    kept = Retention(instances=instances, streams=streams, inbox=inbox, dead_letters=dead_letters, programs=programs)
    if kept == Retention():
        raise typer.BadParameter("Say what is to go: --instances, --streams, --inbox, --dead-letters or --programs.")

    async def work() -> None:
        async with open_client(database_url, app) as client:
            removed = await client.apply_retention(kept, dry_run=dry_run)
        _print(removed, dry_run=dry_run, as_json=as_json)

    run(work())


def _print(removed: Removed, *, dry_run: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from holdfast.processor.cli.output import emit, table

    if as_json:
        emit({**asdict(removed), "dry_run": dry_run})
    else:
        title = "would remove" if dry_run else "removed"
        table([title, "number"], [(name.replace("_", " "), count) for name, count in asdict(removed).items()])
