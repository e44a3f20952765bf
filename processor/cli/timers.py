"""Look at the timers at which instances wait, and change them.

    holdfast timers list
    holdfast timers list --before 2026-02-01
    holdfast timers reschedule 0199c1a2-… 0.2/late --in 2d --why "they asked for more time"
    holdfast timers fire 0199c1a2-… 0.2/late

A worker of the app fires a timer that is due, unless its instance is suspended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.control import By, Why, command_of, give_one
from holdfast.processor.cli.options import (
    AppName,
    DatabaseUrl,
    InstanceId,
    JsonDocument,
    JsonLines,
    Limit,
    duration,
    moment,
    open_client,
    run,
)

TimerName = Annotated[
    str | None, typer.Argument(help="Its bookmark; may be left out if there is one.", metavar="BOOKMARK")
]

if TYPE_CHECKING:
    from holdfast.projections.timers import Timer
    from holdfast.schemas.control import Command


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


def reschedule(
    instance_id: InstanceId,
    timer: TimerName = None,
    *,
    to: Annotated[str | None, typer.Option(help="The moment at which it is to be due.", metavar="MOMENT")] = None,
    in_: Annotated[
        str | None, typer.Option("--in", help="How long from now, such as 90s, 30m, 2h or 3d.", metavar="DURATION")
    ] = None,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Have a timer be due at another time.

    A delay, the timeout of a receive, and the wait for an activity's next attempt can be moved; of an
    activity on a queue the worker was told the deadline, so that cannot. A moment without an offset from
    UTC is taken as local time.

        holdfast timers reschedule 0199c1a2-… 0.2/late --to 2026-02-01T12:00 --why "they asked for more time"

    With --json one document: "instance_id", "command", the id that the inbox keeps it under, and its "verdict".
    """
    if (to is None) == (in_ is None):
        raise typer.BadParameter("say either --to MOMENT or --in DURATION")
    due = moment("--to", to) if to is not None else datetime.now(UTC) + duration(in_ or "")
    command = partial(command_of, "reschedule_timer", by, why, due=due.isoformat())
    _give(instance_id, timer, command, f"to have it due at {due.isoformat(sep=' ')}", database_url, as_json=as_json)


def fire(
    instance_id: InstanceId,
    timer: TimerName = None,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Have a timer fire as though it were due now.

    A delay ends, a receive times out, an activity is tried again, an attempt on a queue is given up.

        holdfast timers fire 0199c1a2-… --why "the bank is back"

    With --json one document: "instance_id", "command", the id that the inbox keeps it under, and its "verdict".
    """
    _give(instance_id, timer, partial(command_of, "fire_timer", by, why), "to fire it", database_url, as_json=as_json)


def cancel(
    instance_id: InstanceId,
    timer: TimerName = None,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Close a timer for good: it does not fire, and its instance waits on for what else would end the wait.

    A receive then waits without a limit, and a branch of first_of never comes first. Where nothing else
    would end the wait, as for a delay alone, it is refused.

        holdfast timers cancel 0199c1a2-… 0.2/late --why "they may take their time"

    With --json one document: "instance_id", "command", the id that the inbox keeps it under, and its "verdict".
    """
    command = partial(command_of, "cancel_timer", by, why)
    _give(instance_id, timer, command, "to close it", database_url, as_json=as_json)


def _give(
    instance_id: UUID,
    timer: str | None,
    command: Callable[..., Command],
    what: str,
    database_url: str | None,
    *,
    as_json: bool,
) -> None:
    name = timer or run(_only_timer(instance_id, database_url))
    give_one(instance_id, command(timer=name), f"about timer {name} {what}", database_url, as_json=as_json)


async def _only_timer(instance_id: UUID, database_url: str | None) -> str:
    async with open_client(database_url) as client:
        found = [each.bookmark for each in await client.timers(instance_id=instance_id)]
    if len(found) != 1:
        raise typer.BadParameter(f"the instance waits at {len(found)} timers, name one: {', '.join(found) or 'none'}")
    return found[0]


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
