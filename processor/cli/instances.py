"""``holdfast instances``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.options import After, AppName, DatabaseUrl, JsonLines, Limit, json_or_text, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.queries import Instance, Tally


class Status(StrEnum):
    """What ``--status`` selects."""

    executing = "executing"
    idle = "idle"
    suspended = "suspended"
    completed = "completed"
    nonpersisted = "nonpersisted"


CRITERIA: dict[Status, dict[str, Any]] = {
    Status.executing: {"execution_status": "executing", "is_suspended": False, "is_initialized": True},
    Status.idle: {"execution_status": "idle", "is_suspended": False},
    Status.suspended: {"is_suspended": True},
    Status.completed: {"outcome": "completed"},
    Status.nonpersisted: {"is_initialized": False},
}
"""What each status means for a query."""


def instances(
    *,
    app: AppName = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.", metavar="NAME")] = None,
    key: Annotated[str | None, typer.Option(help="Only those with this correlation key.", metavar="KEY")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that are so.")] = None,
    promoted: Annotated[
        list[str] | None,
        typer.Option("--promoted", help="Only those with this value for queries.", metavar="NAME=VALUE"),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are of each status.")] = False,
    limit: Limit = 50,
    after: After = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List instances, the newest first.

    An instance is one run of a workflow. It is executing, idle (it waits for a message or a timer),
    suspended (it waits for `holdfast resume`), completed, or nonpersisted (started, and nothing of it
    was committed yet).

        holdfast instances --count
        holdfast instances --app orders --status suspended
        holdfast instances --key order-17 --json
        holdfast instances --promoted stage=waiting --promoted items=3

    A promoted value is JSON where it is JSON, and text where it is not: items=3 finds the number, items='"3"'
    the text. `holdfast show` prints those of an instance.

    Instances that are discarded are not listed: of these the history is all that is kept, for `holdfast show`.

    With --json one line for each instance, with the columns of the view holdfast.instances except state;
    with --count one for each workflow and status.
    """
    from holdfast.processor.cli.output import tell_of_more

    criteria = {
        "workflow": workflow,
        "correlation_key": key,
        "promoted": dict(map(_value, promoted)) if promoted else None,
        **(CRITERIA[status] if status else {}),
    }

    async def work() -> None:
        async with open_client(database_url, app) as client:
            if count:
                _print_tally(await client.tally(), as_json=as_json)
                return
            found = await client.instances(**criteria, after=after, limit=limit)
        _print_instances(found, as_json=as_json)
        tell_of_more(found, limit)

    if count and (workflow or key or status or promoted):
        raise typer.BadParameter("--count counts all instances: give it --app at most.")
    run(work())


def _value(given: str) -> tuple[str, Any]:
    """Return the name and the value that ``NAME=VALUE`` stands for."""
    name, is_given, text = given.partition("=")
    if not name or not is_given:
        raise typer.BadParameter(f"--promoted takes NAME=VALUE, not {given!r}.")
    return name, json_or_text(text)


def _print_tally(found: list[Tally], *, as_json: bool) -> None:
    from holdfast.processor.cli.describe import condition
    from holdfast.processor.cli.output import emit, table

    if as_json:
        for tally in found:
            emit(tally)
    else:
        table(
            ["app", "workflow", "status", "instances"],
            [(t.app, t.workflow, condition(t), t.instances) for t in found],
        )


def _print_instances(found: list[Instance], *, as_json: bool) -> None:
    from holdfast.processor.cli.describe import condition, reason
    from holdfast.processor.cli.output import emit, lately, table

    if as_json:
        for instance in found:
            emit(instance)
    else:
        table(
            ["instance", "workflow", "key", "status", "version", "updated", "waits for, or why"],
            [
                (
                    i.instance_id,
                    i.workflow,
                    i.correlation_key,
                    condition(i),
                    i.version,
                    lately(i.last_updated_time),
                    reason(i) or ", ".join(i.active_bookmarks),
                )
                for i in found
            ],
        )
