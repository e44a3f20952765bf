"""``holdfast fork``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.control import By, Why, login
from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.forking import Done, Fork


def fork(
    instance_id: InstanceId,
    *,
    at: Annotated[
        int, typer.Option(min=1, help="The version to begin at: the end of a transaction.", metavar="VERSION")
    ],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Give a variable, or a field of one, another value, as JSON in the form in which it is stored: "
            "[FRAME/]NAME[.FIELD]=JSON.",
            metavar="NAME=JSON",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The fork's correlation key, if the original lives.", metavar="KEY")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Begin a new instance where another one stood at an earlier version; that one stays as it is.

    Versions are those that `holdfast history` shows. The fork runs on the same program, has an id of its own and
    a history that needs nothing of the original's. Before it is made, this says what the original sent and did
    after that version: the fork may do the same again. With another key, each text in a variable that is just the
    old key becomes the new one. A reply of the fork goes to who asked the original.

        holdfast fork 0199c1a2-… --at 7 --set placed.item='"chair"' --key A-1-again --why 'what if'

    With --json one document: "instance_id" of the fork (null with --dry-run), "origin", "at", "app", "changed"
    variables, the "state" that it begins in, and what the original "sent" and has "done" since. It is printed once
    the fork is made; to read it before, give --dry-run.
    """
    variables = _variables(values or [])

    async def work() -> None:
        from holdfast.processor.cli.output import emit, say

        who = by or login()
        async with open_client(database_url) as client:
            if not as_json:
                _print(await client.fork(instance_id, at, by=who, why=why, key=key, variables=variables, dry_run=True))
            if dry_run and not as_json:
                return
            made = await client.fork(instance_id, at, by=who, why=why, key=key, variables=variables, dry_run=dry_run)
        if as_json:
            emit(asdict(made))
        else:
            say(f"forked as {made.instance_id}")

    run(work())


def _variables(values: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for each in values:
        name, is_given, text = each.partition("=")
        if name in given:
            raise typer.BadParameter(f"--set gives {name} twice")
        try:
            given[name] = json.loads(text if is_given and name else "")
        except (ValueError, RecursionError):
            raise typer.BadParameter(f"--set {each!r}: write NAME=JSON, such as amount=5 or name='\"Ann\"'") from None
    return given


def _print(planned: Fork) -> None:
    from holdfast.processor.cli.output import details, say, table
    from holdfast.processor.cli.readable import readable

    state = planned.state
    say(f"{state.workflow} as {planned.origin} stood at version {planned.at}", style="bold")
    condition = "suspended" if state.is_suspended else state.execution_status
    details({"  correlation key": state.correlation_key, "  status": condition, "  program": state.program_hash})
    for name in planned.changed:
        path, _, variable = name.rpartition(".")
        say(f"  {name} = {readable(state.frames[path].variables[variable])}")
    if planned.sent:
        say("\nwhat the original sent after that", style="bold")
        table(
            ["version", "message", "type", "key"],
            [(each.version, each.message_id, each.type, each.correlation_key) for each in planned.sent],
        )
    if planned.done:
        say("\nwhat it did after that", style="bold")
        rows = [(each.version, each.kind, each.name, _detail(each)) for each in planned.done]
        table(["version", "what", "name", ""], rows)


def _detail(done: Done) -> str:
    """Return what became of something; without an outcome, what there is to know of it."""
    match done.detail:
        case "requested":
            return f"asked of queue {done.queue} by {done.request}, not answered"
        case "intended":
            return "may have run, and must not run twice"
        case "delayed":
            return "failed, and was not tried again so far"
        case outcome:
            return outcome
