"""``holdfast instances``."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.options import (
    After,
    AppName,
    DatabaseUrl,
    JsonLines,
    Limit,
    duration,
    json_or_text,
    moment,
    open_client,
    run,
)

if TYPE_CHECKING:
    from holdfast.projections.queries import Instance, Tally


class Status(StrEnum):
    """What ``--status`` selects."""

    executing = "executing"
    idle = "idle"
    suspended = "suspended"
    nonpersisted = "nonpersisted"
    living = "living"
    closed = "closed"
    completed = "completed"
    faulted = "faulted"
    cancelled = "cancelled"
    terminated = "terminated"


class Sort(StrEnum):
    """What ``--sort`` goes by."""

    created = "created"
    updated = "updated"


class Kind(StrEnum):
    """What ``--waits-for-kind`` selects."""

    message = "message"
    timer = "timer"
    child = "child"
    activity = "activity"


CRITERIA: dict[Status, dict[str, Any]] = {
    Status.executing: {"execution_status": "executing", "is_suspended": False, "is_initialized": True},
    Status.idle: {"execution_status": "idle", "is_suspended": False},
    Status.suspended: {"is_suspended": True},
    Status.nonpersisted: {"is_initialized": False},
    Status.living: {"is_completed": False},
    Status.closed: {"is_completed": True},
    Status.completed: {"outcome": "completed"},
    Status.faulted: {"outcome": "faulted"},
    Status.cancelled: {"outcome": "cancelled"},
    Status.terminated: {"outcome": "terminated"},
}
"""What each status means for a query."""


def _age(help_: str) -> Any:
    return typer.Option(help=f"{help_}: 90s, 30m, 2h, 7d.", parser=duration, metavar="AGE")


def _moment(help_: str) -> Any:
    return typer.Option(help=help_, metavar="MOMENT")


def instances(
    *,
    app: AppName = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.", metavar="NAME")] = None,
    program: Annotated[str | None, typer.Option(help="Only those on this program.", metavar="HASH")] = None,
    key: Annotated[str | None, typer.Option(help="Only those with this correlation key.", metavar="KEY")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that are so.")] = None,
    older_than: Annotated[timedelta | None, _age("Only those registered longer ago")] = None,
    younger_than: Annotated[timedelta | None, _age("Only those registered less long ago")] = None,
    created_since: Annotated[str | None, _moment("Only those registered from then on.")] = None,
    created_before: Annotated[str | None, _moment("Only those registered before that.")] = None,
    updated_since: Annotated[str | None, _moment("Of those that ended, only those updated from then on.")] = None,
    updated_before: Annotated[str | None, _moment("Of those that ended, only those last updated before that.")] = None,
    waits_for: Annotated[
        str | None, typer.Option(help="Only those that wait for a message of this type.", metavar="TYPE")
    ] = None,
    waits_for_key: Annotated[str | None, typer.Option(help="And for one with this key.", metavar="KEY")] = None,
    waits_for_kind: Annotated[Kind | None, typer.Option(help="Only those that wait for that.")] = None,
    waits_at: Annotated[
        str | None, typer.Option(help="Only those that wait at this bookmark.", metavar="BOOKMARK")
    ] = None,
    promoted: Annotated[
        list[str] | None,
        typer.Option("--promoted", help="Only those with this value for queries.", metavar="NAME=VALUE"),
    ] = None,
    sort: Annotated[Sort, typer.Option(help="By what to sort; updated is for those that ended.")] = Sort.created,
    ascending: Annotated[bool, typer.Option("--ascending", help="The oldest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are of each status.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Print all of them, as JSON lines, as they come.")] = False,
    limit: Limit = 50,
    after: After = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List instances, the newest first.

    An instance is one run of a workflow. It is living or closed. A living one is executing, idle (it waits for
    a message or a timer), suspended (it waits for `holdfast resume`), or nonpersisted (started, and nothing of
    it was committed yet). A closed one is completed, faulted, cancelled or terminated.

        holdfast instances --count
        holdfast instances --app orders --status suspended
        holdfast instances --key order-17 --json
        holdfast instances --workflow order --status idle --older-than 7d
        holdfast instances --waits-for PaymentReceived --all
        holdfast instances --status faulted --sort updated
        holdfast instances --promoted stage=waiting --promoted items=3

    A promoted value is JSON where it is JSON, and text where it is not: items=3 finds the number, items='"3"'
    the text. `holdfast show` prints those of an instance, and where it waits. A moment is in ISO 8601; one without
    an offset from UTC is local time.

    Instances that are discarded are not listed: of these the history is all that is kept, for `holdfast show`.
    The counts are kept with every commit, by app, workflow and program, and are exact.

    With --json or --all one line for each instance, with the columns of the view holdfast.instances except
    state; with --count one for each workflow and status.
    """
    from holdfast.processor.cli.output import emit, tell_of_more

    criteria: Any = {
        "workflow": workflow,
        "program_hash": program,
        "correlation_key": key,
        "older_than": older_than,
        "younger_than": younger_than,
        "waits_for": waits_for,
        "waits_for_key": waits_for_key,
        "waits_for_kind": waits_for_kind and waits_for_kind.value,
        "waits_at": waits_at,
        "promoted": dict(map(_value, promoted)) if promoted else None,
        **(CRITERIA[status] if status else {}),
    }
    moments = {
        "created_since": created_since,
        "created_before": created_before,
        "updated_since": updated_since,
        "updated_before": updated_before,
    }
    for name, given in moments.items():
        criteria[name] = None if given is None else moment(f"--{name.replace('_', '-')}", given)
    order: Any = {"sort": sort.value, "ascending": ascending}

    async def work() -> None:
        async with open_client(database_url, app) as client:
            if count:
                _print_tally(await client.tally(workflow=workflow, program_hash=program), as_json=as_json)
            elif all_:
                async for instance in client.every_instance(**criteria, **order):
                    emit(instance)
            else:
                found = await client.instances(**criteria, **order, after=after, limit=limit)
                _print_instances(found, as_json=as_json)
                tell_of_more(found, limit)

    others = {name for name, given in criteria.items() if given is not None} - {"workflow", "program_hash"}
    if count and (others or all_ or after):
        raise typer.BadParameter("--count counts by --app, --workflow and --program, and by nothing else.")
    if all_ and after:
        raise typer.BadParameter("--all begins with the first: leave out --after.")
    run(work())


def _value(given: str) -> tuple[str, Any]:
    """Return the name and the value that ``NAME=VALUE`` stands for."""
    name, is_given, text = given.partition("=")
    if not name or not is_given:
        raise typer.BadParameter(f"--promoted takes NAME=VALUE, not {given!r}.")
    return name, json_or_text(text)


def _print_tally(found: list[Tally], *, as_json: bool) -> None:
    from holdfast.processor.cli.condition import condition
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
    from holdfast.processor.cli.condition import condition, reason
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
