"""``holdfast projections scratches``, ``drop`` and ``diff``: projections as of places in the log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import (
    AppName,
    AppPath,
    DatabaseUrl,
    JsonDocument,
    JsonLines,
    load_settings,
    open_client,
    place,
    run,
    run_long,
)

if TYPE_CHECKING:
    from holdfast.events.recorded import Cursor
    from holdfast.projections.rows import RowChange

_SIDE = "live|SCHEMA|CURSOR|TIME"


def scratches(*, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonLines = False) -> None:
    """List the projections that were rebuilt as of a place in the log, with the schemas in which their tables stand.

        holdfast projections scratches

    With --json one line for each: schema, app, name, version, as_of (what was asked for), until (the
    cursor that it stands for), cursor (how far it is built), handled, skipped, is_complete, created_at,
    updated_at.
    """
    from holdfast.processor.cli.output import emit, lately, table

    async def work() -> None:
        async with open_client(database_url, app) as client:
            found = await client.projections.scratches()
        if as_json:
            for each in found:
                emit(asdict(each))
            return
        table(
            ["schema", "app", "projection", "version", "as of", "until", "status", "handled", "skipped", "created"],
            [
                (
                    each.schema,
                    each.app,
                    each.name,
                    each.version,
                    each.as_of,
                    each.until,
                    "complete" if each.is_complete else f"built up to {each.cursor}",
                    each.handled,
                    each.skipped or "",
                    lately(each.created_at),
                )
                for each in found
            ],
        )

    run(work())


def drop(
    schema: Annotated[str, typer.Argument(help="Its schema.", metavar="SCHEMA", show_default=False)],
    *,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Drop a projection that was rebuilt as of a place in the log, with its schema.

    A schema that was not made by such a rebuild is left alone. With __next behind the name of a projection's
    schema, a rebuild of it that is not wanted any more is given up.

        holdfast projections drop past
        holdfast projections drop shop_sales__next

    With --json one document: "schema", and "dropped", always true.
    """
    from holdfast.processor.cli.output import emit, say
    from holdfast.schemas.errors import ProjectionError

    async def work() -> bool:
        async with open_client(database_url) as client:
            return await client.projections.drop(schema)

    if not run(work()):
        raise ProjectionError(schema, f"{schema} is no scratch, nor a rebuild: see `holdfast projections scratches`")
    if as_json:
        emit({"schema": schema, "dropped": True})
    else:
        say(f"schema {schema} is dropped")


def diff(
    context: typer.Context,
    app: AppPath,
    name: Annotated[str, typer.Argument(help="Name of the projection.", metavar="NAME", show_default=False)],
    before: Annotated[str, typer.Argument(help="One state of its tables.", metavar=_SIDE, show_default=False)],
    after: Annotated[str, typer.Argument(help="Another one.", metavar=_SIDE, show_default=False)],
    *,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Show the rows in which a projection's tables differ between two places in the log, by primary key.

    Each place is "live", for what readers see now, the schema of a scratch that was built before, or a
    cursor or a moment, for which one is built and dropped afterwards. A table without a primary key has
    rows that were added or removed.

        holdfast projections diff shop.workflows:app sales 2026-01-31T12:00 live

    The exit code is 0 if they are the same, 1 if they differ and 2 if something is wrong.

    With --json one line for each row that differs: table, kind (added, removed or changed), key, before,
    after, and copies, how many rows alike.
    """
    from holdfast.processor import projecting
    from holdfast.processor.cli.application import MISTAKE
    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.cli.output import emit
    from holdfast.processor.cli.progress import watch
    from holdfast.processor.process import configure_logging

    context.obj.failed = MISTAKE
    sides = [_side(text) for text in (before, after)]
    settings = load_settings(database_url=database_url).require("database_url")
    configure_logging()

    async def work() -> bool:
        table = None
        found = projecting.diff(load_app(app), name, settings, *sides, watch=lambda progress: watch(name, progress))
        async for change in found:
            if as_json:
                emit(asdict(change))
            else:
                _print(change, is_new=change.table != table)
            table = change.table
        return table is not None

    if run_long(work()):
        raise typer.Exit(1)


def _side(text: str) -> str | Cursor | datetime:
    return place("a side", text) if text[:1].isdecimal() else text


def _print(change: RowChange, *, is_new: bool) -> None:
    import orjson

    from holdfast.processor.cli.output import say

    if is_new:
        say(f"table {change.table}", style="bold")
    copies = "" if change.copies == 1 else f" ({change.copies} times)"
    if change.kind == "changed":
        before, after = change.before or {}, change.after or {}
        key = ", ".join(f"{name}={_text(value)}" for name, value in (change.key or {}).items())
        columns = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        what = ", ".join(f"{name} {_text(before.get(name))} -> {_text(after.get(name))}" for name in columns)
        say(f"  ~ {key}: {what}", style="yellow")
    elif change.kind == "added":
        say(f"  + {orjson.dumps(change.after).decode()}{copies}", style="green")
    else:
        say(f"  - {orjson.dumps(change.before).decode()}{copies}", style="red")


def _text(value: object) -> str:
    import orjson

    return orjson.dumps(value).decode()
