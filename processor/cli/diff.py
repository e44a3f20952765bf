"""``holdfast diff``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.options import DatabaseUrl, JsonDocument, open_client, run, version_or_moment

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.projections.difference import Change, Comparison
    from holdfast.projections.instance import InstanceState

_STATE = "INSTANCE[@WHEN]"


def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(help="A state.", metavar=_STATE, show_default=False)],
    after: Annotated[
        str, typer.Argument(help="Another one; @WHEN is of the same.", metavar="[INSTANCE]@WHEN", show_default=False)
    ],
    *,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Show what differs between two states, of one instance or of two, down to the places inside variables.

    A state is that of an instance as it is now, or, behind an @, at a version or a moment, or "now". A
    moment is one in ISO 8601; without an offset from UTC it is local time.

        holdfast diff 0199c1a2-…@5 @now
        holdfast diff 0199c1a2-…@2026-01-31T12:00 @2026-01-31T13:00
        holdfast diff 0199c1a2-… 0199c1b7-…

    The exit code is 0 if they are the same, 1 if they differ and 2 if something is wrong, as that of the command
    diff of your system. Versions count for nothing.

    With --json one document: "before" and "after", each with instance_id and version, and "changes", each with
    section, frame, name, kind (added, removed or changed), path, before and after as they are stored.
    """
    from holdfast.processor.cli.application import MISTAKE

    context.obj.failed = MISTAKE
    one, when_one = _state("the first state", before, None)
    two, when_two = _state("the second state", after, one)

    async def work() -> bool:
        from holdfast.processor.cli.output import emit

        async with open_client(database_url) as client:
            found = await client.diff(one, when_one, when_two, other=two)
            if as_json:
                emit(
                    {
                        "before": {"instance_id": one, "version": found.before.version},
                        "after": {"instance_id": two, "version": found.after.version},
                        "changes": [asdict(change) for change in found.changes],
                    }
                )
            else:
                await _print(client, (one, two), found)
        return bool(found.changes)

    if run(work()):
        raise typer.Exit(1)


def _state(what: str, text: str, default: UUID | None) -> tuple[UUID, int | datetime | None]:
    name, has_when, when = text.partition("@")
    if not name and default is not None and has_when:
        instance_id = default
    else:
        try:
            instance_id = UUID(name)
        except ValueError:
            raise typer.BadParameter(
                f"{what} is {text!r}: write INSTANCE or INSTANCE@WHEN with the instance's id."
            ) from None
    if not has_when or when == "now":
        return instance_id, None
    return instance_id, version_or_moment(f"{what} {text!r}: @", when)


async def _print(client: Client, ids: tuple[UUID, UUID], found: Comparison) -> None:
    from holdfast.processor.cli.describe import change
    from holdfast.processor.cli.output import say

    for sign, instance_id, state in zip("-+", ids, (found.before, found.after), strict=True):
        say(f"{sign * 3} {instance_id} at version {state.version}", style="bold")
    titles: dict[str, list[Change]] = {}
    for each in found.changes:
        titles.setdefault(_TITLES[each.section], []).append(each)
    internal = titles.pop(_TITLES["internal"], [])
    for title, changes in titles.items():
        say(f"\n{title}", style="bold")
        if title == _TITLES["place"]:
            for line in await _places(client, ids, found, changes):
                say(f"  {line}")
            continue
        for each in changes:
            say(f"  {change(each)}", style=_STYLES[each.kind])
    if internal:
        say(f"\n{len(internal)} more of what only the interpreter needs: see --json", style="dim")


_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}
_TITLES = {
    "instance": "instance",
    "status": "status",
    "place": "place",
    "variable": "variables",
    "compensation": "compensations",
    "bookmark": "waits",
    "call": "activity calls",
    "subflow": "subflows",
    "value": "values of participants",
    "promoted": "promoted",
    "internal": "internal",
}


async def _places(client: Client, ids: tuple[UUID, UUID], found: Comparison, changes: list[Change]) -> list[str]:
    lines = []
    for frame in dict.fromkeys(change.frame or "" for change in changes):
        before = await _place(client, ids[0], found.before, frame)
        after = await _place(client, ids[1], found.after, frame)
        lines.append(f"frame {frame}: {before} -> {after}")
    return lines


async def _place(client: Client, instance_id: UUID, state: InstanceState, path: str) -> str:
    from holdfast.events.types import Where
    from holdfast.processor.cli.describe import source_line
    from holdfast.processor.source import Source

    frame = state.frames.get(path)
    if frame is None:
        return "none"
    instance, _ = await client.instance(instance_id)
    source = Source(await client.program(instance.app, frame.program))
    return source_line(source.at(Where(path, frame.step, frame.line)), frame.line)
