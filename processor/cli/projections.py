"""Look at subscribed projections and event feeds, rebuild them, and set those going that have stopped.

A projection follows the event log from its checkpoint, in a worker or in `holdfast project`. It stops at an event that
it cannot take, or passes over it, as it says itself.

    holdfast projections
    holdfast projections rebuild examples.permits.app:app traces
    holdfast projections skip traces

Without a subcommand it lists them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import (
    AppName,
    AppPath,
    DatabaseUrl,
    JsonDocument,
    JsonLines,
    Limit,
    load_settings,
    open_client,
    place,
    run,
    run_long,
)

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.projections.lag import Lag

Name = Annotated[str, typer.Argument(help="Name of the projection.", metavar="NAME", show_default=False)]


def list_(*, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonLines = False) -> None:
    """List projections and event feeds, and how far each is behind the end of the log.

    What is being built has a row of its own, marked "next", until it takes the place of the "live" one. A
    checkpoint stays behind for as long as a transaction is open, anywhere on the server, that is older than the
    events.

        holdfast projections
        holdfast projections list --app orders --json

    With --json one line for each, with the columns of the view holdfast.projection_lag; times are in seconds.
    """

    async def work() -> list[Lag]:
        async with open_client(database_url, app) as client:
            return await client.projections.lag()

    _print(run(work()), as_json=as_json)


def rebuild(
    app: AppPath,
    name: Name,
    *,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin from the start, whatever an interrupted rebuild has done.")
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Take in the log up to this cursor or moment, and leave what readers see as it is.",
            metavar="CURSOR|TIME",
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(help="With --as-of: the schema to make for it, which must not be there.", metavar="SCHEMA"),
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Compute a projection's tables anew from the log, beside those that there are, and put them in their place.

    Readers see the old tables until the new ones are complete, and then those; workers may run meanwhile.
    When they are complete it waits for transactions that began before that, and says for which.
    Interrupt it at any time: the same command goes on where it was.

        holdfast projections rebuild examples.permits.app:app traces

    With --as-of they are computed as of a place in the log, into a schema of their own, a scratch, and put in
    nobody's place. A moment stands for the last event that was recorded by then, with all that the log
    has before it; transactions are waited for that may still add to that. `holdfast projections drop`
    removes it.

        holdfast projections rebuild examples.permits.app:app traces --as-of 2026-01-31T12:00 --into past
    """
    from holdfast.processor import projecting
    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.cli.output import say
    from holdfast.processor.cli.progress import can_be_continued, watch
    from holdfast.processor.process import configure_logging

    if (as_of is None) is not (into is None):
        raise typer.BadParameter("--as-of and --into go together: a place in the log, and the schema to make for it.")
    settings = load_settings(database_url=database_url).require("database_url")
    configure_logging()
    if as_of is None or into is None:
        with can_be_continued():
            run_long(watch(name, projecting.rebuild(load_app(app), name, settings, restart=restart)))
        say(f"projection {name} is rebuilt")
        return
    when = place("--as-of", as_of)
    with can_be_continued():
        run_long(watch(name, projecting.rebuild_as_of(load_app(app), name, settings, when, into, restart=restart)))
    say(f"projection {name} as of {as_of} is in schema {into}")


def resume(name: Name, *, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Let a projection that has stopped try the same event again.

        holdfast projections resume traces

    With --json one document: "projection", and "resumed", false if it had not stopped.
    """

    async def work() -> bool:
        async with await _client_for(name, app, database_url) as client:
            return await client.projections.resume(name)

    _answer(name, "resumed", done=run(work()), as_json=as_json)


def skip(name: Name, *, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Have a projection that has stopped pass over the event that it stopped at, and go on behind it.

    `holdfast projections skipped` shows what was passed over. A rebuild takes it up again.

        holdfast projections skip traces

    With --json one document: "projection", and "skipped", false if it had not stopped.
    """

    async def work() -> bool:
        async with await _client_for(name, app, database_url) as client:
            return await client.projections.skip(name)

    _answer(name, "skipped", done=run(work()), as_json=as_json)


def skipped(
    name: Annotated[str | None, typer.Argument(help="Only of this projection.", metavar="NAME")] = None,
    *,
    app: AppName = None,
    limit: Limit = 50,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List the events that projections passed over, the newest first, each with the error.

        holdfast projections skipped traces

    With --json one line for each event.
    """
    from holdfast.processor.cli.output import emit, lately, table

    async def work() -> None:
        async with open_client(database_url, app) as client:
            found = await client.projections.skipped(name, limit)
        if as_json:
            for event in found:
                emit(event)
        else:
            table(
                ["projection", "build", "instance", "version", "type", "skipped", "error"],
                [(e.name, e.build, e.instance_id, e.version, e.type, lately(e.skipped_at), e.error) for e in found],
            )

    run(work())


def _print(found: list[Lag], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, rounded, table
    from holdfast.projections.lag import MOST_BEHIND

    if as_json:
        for lag in found:
            emit(asdict(lag) | {"time_behind": lag.time_behind.total_seconds()})
        return
    table(
        ["app", "projection", "build", "status", "behind", "for", "handled", "skipped", "checkpoint", "error"],
        [
            (
                lag.app,
                lag.name,
                lag.build,
                lag.status,
                f"{lag.events_behind}{'+' if lag.events_behind == MOST_BEHIND else ''}",
                rounded(lag.time_behind) if lag.events_behind else "",
                lag.handled,
                lag.skipped or "",
                lag.cursor,
                lag.error,
            )
            for lag in found
        ],
    )


async def _client_for(name: str, app: str | None, database_url: str | None) -> Client:
    """Return a client for the app that has the projection: the one that is given, or the only one."""
    async with open_client(database_url, app) as client:
        apps = sorted({lag.app for lag in await client.projections.lag() if lag.name == name})
    if len(apps) > 1:
        raise typer.BadParameter(f"Several apps have a projection {name}: give one of {', '.join(apps)} with --app.")
    return open_client(database_url, app or (apps[0] if apps else "?"))


def _answer(name: str, what: str, *, done: bool, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, say

    if as_json:
        emit({"projection": name, what: done})
    elif done:
        say(f"projection {name}: {what}")
    else:
        say(f"projection {name} had not stopped")
