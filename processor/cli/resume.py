"""``holdfast resume``."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run
from holdfast.processor.cli.output import emit, say


def resume(
    instance_id: InstanceId,
    *,
    by: Annotated[str | None, typer.Option(help="Who says so; your login name otherwise.", metavar="NAME")] = None,
    why: Annotated[str | None, typer.Option(help="Why, for the history.", metavar="TEXT")] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Let a suspended instance go on from its last persistence point.

    A worker of its app takes the command up; if none runs, the next one that starts. What the
    instance did since its last persistence point runs again.

        holdfast resume 0199c1a2-… --why "the bank is back"

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """

    async def work() -> str:
        async with open_client(database_url) as client:
            return await client.resume(instance_id, by=by or _login(), why=why)

    command = run(work())
    if as_json:
        emit({"instance_id": instance_id, "command": command})
    else:
        say(f"instance {instance_id} is asked to go on: a worker of its app takes it up")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
