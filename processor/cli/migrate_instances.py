"""``holdfast migrate-instances``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.control import By, Why, login
from holdfast.processor.cli.options import AppPath, DatabaseUrl, JsonLines, load_settings, open_client, run_long
from holdfast.processor.cli.where import Where, criteria_of

if TYPE_CHECKING:
    from holdfast.processor.migrating import Verdict


def migrate_instances(
    app: AppPath,
    instance_ids: Annotated[
        list[UUID] | None,
        typer.Argument(help="Only these instances.", metavar="[INSTANCE]…", show_default=False),
    ] = None,
    *,
    where: Where = None,
    unload: Annotated[
        bool, typer.Option("--unload", help="Have workers let go of those that they have loaded, and wait for it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be moved, and move nothing.")] = False,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Move living instances to the programs of the code as it is here, those that can be moved.

    All of the app, or those that are named, or that --where finds. Each is moved in a transaction of its own, and
    goes on from the same place in the new program, with the variables that it has. What cannot be moved stays as
    it is, and the reason is given; so it is with one that a worker has loaded, unless --unload. To do it again does
    no harm.

    The exit code is 1 if there is one that was not moved though it runs on an older program. What is suspended is
    moved too, and stays suspended until `holdfast resume`.

        holdfast migrate-instances shop.workflows:app --where workflow=order --unload --why 'the new prices'

    With --json one line for each instance that is not up to date: as `holdfast preflight` gives it, with "moved" and,
    for one at which something failed, such as the lock or the database, "refusal".
    """
    if instance_ids and where:
        raise typer.BadParameter("name instances or give --where, not both")
    criteria = criteria_of(where or [])

    async def work() -> bool:
        from holdfast.processor.cli.load_app import load_app
        from holdfast.processor.cli.output import hint, say
        from holdfast.schemas.errors import HoldfastError, InstanceError

        loaded = load_app(app)
        settings = load_settings()
        moved = left = current = 0
        async with open_client(database_url, loaded.name) as client:

            async def wanted() -> AsyncIterator[UUID]:
                for instance_id in instance_ids or ():
                    yield instance_id
                if not instance_ids:
                    async for found in client.every_instance(**criteria):
                        if found.is_initialized and found.subflow != "run":
                            yield found.instance_id

            who = by or login()

            async def move(instance_id: UUID) -> Verdict:
                # Only what can be moved is to be locked, or to be let go of.
                verdict = await client.migrate(loaded, instance_id, by=who, dry_run=True)
                if dry_run or not verdict.can_move:
                    return verdict
                if unload:
                    with suppress(InstanceError):
                        await client.unload(instance_id, by=who, why=why)
                return await client.migrate(
                    loaded,
                    instance_id,
                    by=who,
                    why=why,
                    on_locked="aggressive_retry" if unload else "no_retry",
                    program_key=settings.program_key,
                    state_encoding=settings.state_encoding,
                )

            async for instance_id in wanted():
                try:
                    verdict = await move(instance_id)
                except HoldfastError as error:
                    left += 1
                    _refused(instance_id, str(error), as_json=as_json)
                    continue
                current += verdict.is_current
                moved += verdict.can_move
                left += bool(verdict.obstacles)
                _told(verdict, as_json=as_json, dry_run=dry_run)
        if not as_json:
            (hint if dry_run else say)(
                f"{moved} {'would be moved' if dry_run else 'moved'}, {left} left as they are, {current} up to date"
            )
        return left > 0

    if run_long(work()):
        raise typer.Exit(1)


def _refused(instance_id: UUID, refusal: str, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, hint

    if as_json:
        emit({"instance_id": instance_id, "moved": False, "refusal": refusal})
    else:
        hint(f"{instance_id}  refused: {refusal}")


def _told(verdict: Verdict, *, as_json: bool, dry_run: bool) -> None:
    from holdfast.processor.cli.output import emit, say
    from holdfast.processor.cli.preflight import document, tell, tell_suspended

    if verdict.is_current:
        return
    if as_json:
        emit({**document(verdict), "moved": verdict.can_move and not dry_run, "refusal": None})
    elif verdict.can_move:
        done = "can be moved" if dry_run else "moved"
        say(f"{verdict.instance_id}  {verdict.workflow}/{verdict.correlation_key}: {done}")
        tell_suspended(verdict)
    else:
        tell(verdict)
