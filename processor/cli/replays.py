"""List replays, those that go on and those that are over, and forget them.

`holdfast replay` publishes an app's history again. How far it has come is kept under its name, so that it can go on
from there.

    holdfast replays
    holdfast replay --resume july
    holdfast replays remove july

Without a subcommand it lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonDocument, JsonLines, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.store.replays import Replay


def list_(*, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonLines = False) -> None:
    """List replays, the newest first, with how far each has come.

        holdfast replays
        holdfast replays list --app orders --json

    Whether a process runs one just now is not known; "updated" is when one last got on with it.

    With --json one line for each; "cursor" is the event up to which all are confirmed, "end" the last one.
    """
    from holdfast.processor.cli.output import emit, lately, table

    async def work() -> list[Replay]:
        async with open_client(database_url, app) as client:
            return await client.replays.list()

    found = run(work())
    if as_json:
        for replay in found:
            emit(document(replay))
        return
    table(
        ["replay", "app", "to", "where", "published", "cursor", "end", "updated", "finished"],
        [
            (
                it.name,
                it.app,
                it.destination,
                ", ".join(f"{name}={value}" for name, value in _criteria(it).items()),
                it.published,
                it.selection.after,
                it.selection.end,
                lately(it.updated_at),
                "" if it.finished_at is None else lately(it.finished_at),
            )
            for it in found
        ],
    )


def remove(
    name: Annotated[str, typer.Argument(help="Name of the replay.", metavar="NAME", show_default=False)],
    *,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Forget a replay, whether it has finished or not.

    What is published stays published, and what is not yet is not. A process that runs it ends.

        holdfast replays remove july

    With --json one document: "replay", and "removed".
    """
    from holdfast.processor.cli.output import emit, say

    async def work() -> None:
        async with open_client(database_url) as client:
            await client.replays.remove(name)

    run(work())
    if as_json:
        emit({"replay": name, "removed": True})
    else:
        say(f"replay {name}: removed")


def document(replay: Replay) -> dict[str, Any]:
    """Return a replay as JSON has it."""
    return {
        "replay": replay.name,
        "app": replay.app,
        "exchange": replay.destination.exchange,
        "queue": replay.destination.queue,
        "where": _criteria(replay),
        "published": replay.published,
        "cursor": str(replay.selection.after),
        "end": str(replay.selection.end),
        "started_at": replay.started_at,
        "updated_at": replay.updated_at,
        "finished_at": replay.finished_at,
    }


def _criteria(replay: Replay) -> dict[str, Any]:
    given = {"since": replay.selection.since, "until": replay.selection.until, **replay.selection.criteria}
    return {name: value for name, value in given.items() if value is not None}
