"""``holdfast compensation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.compensation import Compensation
    from holdfast.projections.ledger import Registered


def compensation(instance_id: InstanceId, *, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Preview what would be undone if an instance were cancelled now, in order, and show what can no longer be.

    It is read from the log, without the code of the workflow: what its compensable scopes registered up
    to the last persistence point. What was registered since is in the worker's memory only, and
    `except` and `finally` blocks may do more.

        holdfast compensation 0199c1a2-…

    With --json one document: version, outcome, and lists of actions: under_way (being called, ended
    first), due (what a cancel then calls, in order), kept (registered, not for a cancel), gone (each
    an action and its fate: called, dropped, or unknown where the log does not tell).
    """

    async def work() -> None:
        from holdfast.processor.cli.output import emit, say

        async with open_client(database_url) as client:
            found = await client.compensation(instance_id)
        if as_json:
            emit({"instance_id": instance_id, **asdict(found)})
        else:
            for line in lines(found):
                say(line, style=None if line.startswith(" ") else "bold")

    run(work())


def lines(found: Compensation) -> list[str]:
    """Return what a person reads of a preview."""
    if found.outcome is not None:
        shown = [f"Nothing can be undone any more: the instance is {found.outcome}."]
    elif found.version == 0:
        shown = ["Nothing is known: the instance is not persisted."]
    else:
        shown = [f"As of version {found.version}; what was registered since is known to the worker alone."]
        if not found.under_way and not found.due:
            shown.append("A cancel would undo nothing.")
    shown += _list("being called", found.under_way)
    shown += _list("what a cancel would call, in order", found.due)
    shown += _list("not called by a cancel", found.kept)
    told = {"called": "called", "dropped": "not called", "unknown": "the log does not tell whether it was called"}
    shown += ["can no longer be called"] if found.gone else []
    return [*shown, *(f"{_line(each.action)}: {told[each.fate]}" for each in found.gone)]


def _list(title: str, actions: Sequence[Registered]) -> list[str]:
    return [title, *map(_line, actions)] if actions else []


def _line(action: Registered) -> str:
    from holdfast.processor.cli.readable import readable, shortened

    arguments = [readable(each) for each in action.arguments]
    arguments += [f"{name}={readable(each)}" for name, each in action.keywords.items()]
    scope = f", scope {action.scope} of frame {action.frame} ({action.status})" if action.scope is not None else ""
    return f"  {action.number} {action.kind} {action.name}({shortened(', '.join(arguments))}){scope}"
