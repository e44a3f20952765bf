"""Look at the instances of which nothing is persisted yet, and remove those that nobody needs any more.

An instance is registered before it runs for the first time, and persisted at its first persistence point. In between
it is one of these:

    live          a worker runs it now
    suspended     it stands still; `holdfast resume` runs it from the start
    orphan        no worker holds it; its start message is in the inbox
    message_lost  no worker holds it; its start message is gone, most likely

A start message of which the inbox knows nothing may still wait in RabbitMQ.

    holdfast nonpersisted
    holdfast nonpersisted list --overdue
    holdfast nonpersisted remove --class message_lost --older-than 7d

Without a subcommand it lists them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.options import (
    After,
    AppName,
    DatabaseUrl,
    JsonLines,
    Limit,
    duration,
    open_client,
    run,
)

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.projections.queries import NonPersisted

_PAGE = 500


class Class(StrEnum):
    """What ``--class`` selects."""

    live = "live"
    suspended = "suspended"
    orphan = "orphan"
    message_lost = "message_lost"


OlderThan = Annotated[
    timedelta | None,
    typer.Option(parser=duration, help="Only those older than this: 90s, 30m, 2h, 7d.", metavar="AGE"),
]


def list_(
    *,
    app: AppName = None,
    class_: Annotated[Class | None, typer.Option("--class", help="Only those of this class.")] = None,
    older_than: OlderThan = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only those older than their workflow's expected_lifetime.")
    ] = False,
    limit: Limit = 50,
    after: After = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List the instances of which nothing is persisted yet, the newest first.

    Beside the age stands the lifetime that the workflow expects, if it says so; an instance that is older
    is marked as overdue. A start message is shown with its verdict, if the inbox has it.

        holdfast nonpersisted list --app orders
        holdfast nonpersisted list --class orphan --older-than 2h

    With --json one line for each instance, with the columns of the view holdfast.non_persisted; times are
    in seconds.
    """
    from holdfast.processor.cli.output import tell_of_more

    async def work() -> None:
        async with open_client(database_url, app) as client:
            found = await client.non_persisted(
                class_=class_.value if class_ else None,
                older_than=older_than,
                is_overdue=True if overdue else None,
                after=after,
                limit=limit,
            )
        _print(found, as_json=as_json)
        tell_of_more(found, limit)

    run(work())


def remove(
    instance_ids: Annotated[
        list[UUID] | None, typer.Argument(help="Ids of instances.", metavar="INSTANCE…", show_default=False)
    ] = None,
    *,
    app: AppName = None,
    class_: Annotated[Class | None, typer.Option("--class", help="All of this class; not live ones.")] = None,
    older_than: OlderThan = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try it, and leave everything as it is.")] = False,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Remove instances of which nothing is persisted and that no worker holds, and give up their start messages.

    Name them, or give a class and an age. One after the other is looked at once more and removed; what
    is not fit for it, or is no longer, is left alone, with the reason. The database refuses what is
    persisted, what a worker holds and what is younger than an hour (or what holdfast.settings says).

        holdfast nonpersisted remove 0199c1a2-…
        holdfast nonpersisted remove --class orphan --older-than 2d --dry-run

    The start message gets the verdict "rejected: removed". An instance that waits for the end of a removed
    one, its subflow, is told that it was terminated. With --json one line for each instance: "removed", and
    if that is false, "obstacle" and "why". The exit code is 1 if one was left alone.
    """
    if bool(instance_ids) == (class_ is not None):
        raise typer.BadParameter("Name instances, or give a --class.")
    if class_ is not None and older_than is None:
        raise typer.BadParameter("--class needs an --older-than.")
    if class_ is Class.live:
        raise typer.BadParameter("What a worker holds is not removed: --class suspended, orphan or message_lost.")

    async def work() -> int:
        left = 0
        async with open_client(database_url, app) as client:
            chosen = _named(instance_ids or []) if class_ is None else _of_class(client, class_, older_than)
            async for instance_id in chosen:
                left += not await _remove(client, instance_id, class_, older_than, dry_run=dry_run, as_json=as_json)
        return left

    if run(work()):
        raise typer.Exit(1)


async def _named(instance_ids: list[UUID]) -> AsyncIterator[UUID]:
    for instance_id in instance_ids:
        yield instance_id


async def _of_class(client: Client, class_: Class, older_than: timedelta | None) -> AsyncIterator[UUID]:
    after = None
    while found := await client.non_persisted(class_=class_.value, older_than=older_than, after=after, limit=_PAGE):
        for each in found:
            yield each.instance_id
        after = found[-1].instance_id


async def _remove(
    client: Client,
    instance_id: UUID,
    class_: Class | None,
    older_than: timedelta | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Remove an instance and say so; False if it was left alone."""
    from holdfast.processor.cli.output import emit, hint, say
    from holdfast.schemas.errors import InstanceNotFound, NotRemovable

    about: dict[str, object] = {"instance_id": instance_id, "dry_run": dry_run, "removed": True}
    try:
        await client.remove(
            instance_id, class_=class_.value if class_ else None, older_than=older_than, dry_run=dry_run
        )
    except (NotRemovable, InstanceNotFound) as error:
        obstacle = error.obstacle if isinstance(error, NotRemovable) else "not_found"
        about |= {"removed": False, "obstacle": obstacle, "why": str(error)}
        if as_json:
            emit(about)
        else:
            hint(str(error))
        return False
    if as_json:
        emit(about)
    else:
        say(f"{'would remove' if dry_run else 'removed'} {instance_id}")
    return True


def _print(found: list[NonPersisted], *, as_json: bool) -> None:
    from holdfast.processor.cli.condition import reason
    from holdfast.processor.cli.output import emit, rounded, table

    if as_json:
        for instance in found:
            emit(_as_json(instance))
        return
    table(
        ["instance", "workflow", "key", "class", "age", "expected", "start message", "verdict", "reason"],
        [
            (
                i.instance_id,
                i.workflow,
                i.correlation_key,
                i.class_,
                rounded(i.age),
                rounded(i.expected_lifetime) + (", overdue" if i.is_overdue else ""),
                i.start_message_id,
                i.start_message_verdict,
                reason(i),
            )
            for i in found
        ],
    )


def _as_json(instance: NonPersisted) -> dict[str, object]:
    values = {name.rstrip("_"): value for name, value in asdict(instance).items()}
    return {name: value.total_seconds() if isinstance(value, timedelta) else value for name, value in values.items()}
