"""``--where``: which instances a command means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.instances import CRITERIA, Status
from holdfast.processor.cli.options import duration, json_or_text

if TYPE_CHECKING:
    from holdfast.projections.criteria import Criteria

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Which instances are meant: workflow, key, status (as in `holdfast instances`), older (a duration such "
        "as 2h) or promoted.NAME; give it several times for those that fit all.",
        metavar="NAME=VALUE",
    ),
]


def criteria_of(conditions: list[str], *, also_ended: bool = False) -> Criteria:
    """Return what ``NAME=VALUE`` conditions mean together, of instances that have not ended, or of all.

    Raises ``typer.BadParameter`` if one means nothing.
    """
    criteria: Any = {} if also_ended else {"is_completed": False}
    for condition in conditions:
        name, is_given, value = condition.partition("=")
        if not is_given or not value:
            raise _meaningless(condition)
        meaning = _meaning(name, value, condition)
        if "promoted" in meaning:
            meaning["promoted"] |= criteria.get("promoted", {})
        if any(key in criteria and criteria[key] != each for key, each in meaning.items() if key != "promoted"):
            raise typer.BadParameter(f"nothing fits both {condition!r} and what was said before it")
        criteria |= meaning
    found: Criteria = criteria
    return found


def _meaning(name: str, value: str, condition: str) -> dict[str, Any]:
    match name.split("."):
        case ["workflow"]:
            return {"workflow": value}
        case ["key"]:
            return {"correlation_key": value}
        case ["older"]:
            return {"older_than": duration(value)}
        case ["status"] if value in Status.__members__:
            return CRITERIA[Status(value)]
        case ["promoted", *path] if "".join(path):
            return {"promoted": {".".join(path): json_or_text(value)}}
    raise _meaningless(condition)


def _meaningless(condition: str) -> typer.BadParameter:
    names = "workflow=NAME, key=KEY, older=2h, promoted.NAME=VALUE or status=" + "|".join(Status)
    return typer.BadParameter(f"--where {condition!r} means nothing: write {names}")
