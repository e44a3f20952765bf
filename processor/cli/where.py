"""``--where``: which instances, or which events, a command means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args
from uuid import UUID

import typer

from holdfast.processor.cli.instances import CRITERIA, Status
from holdfast.processor.cli.options import duration, json_or_text

if TYPE_CHECKING:
    from holdfast.projections.criteria import Criteria
    from holdfast.projections.selection import EventCriteria

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Which instances are meant: workflow, key, status (as in `holdfast instances`), older (a duration such "
        "as 2h) or promoted.NAME; give it several times for those that fit all.",
        metavar="NAME=VALUE",
    ),
]
WhereEvents = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="Which events are meant: workflow, key or instance, type (of the event) or promoted.NAME; give it several "
        "times for those that fit all.",
        metavar="NAME=VALUE",
    ),
]

_OF_INSTANCES = "workflow=NAME, key=KEY, older=2h, promoted.NAME=VALUE or status=" + "|".join(Status)
_OF_EVENTS = "workflow=NAME, key=KEY, instance=INSTANCE, type=EVENT or promoted.NAME=VALUE"


def criteria_of(conditions: Sequence[str], *, also_ended: bool = False) -> Criteria:
    """Return what ``NAME=VALUE`` conditions mean together, of instances that have not ended, or of all.

    Raises ``typer.BadParameter`` if one means nothing.
    """
    among = {} if also_ended else {"is_completed": False}
    criteria: Criteria = _together(conditions, _of_instance, _OF_INSTANCES, among)
    return criteria


def event_criteria_of(conditions: Sequence[str]) -> EventCriteria:
    """Return what ``NAME=VALUE`` conditions mean together, of events; raises as ``criteria_of``."""
    criteria: EventCriteria = _together(conditions, _of_event, _OF_EVENTS, {})
    return criteria


def _together(
    conditions: Sequence[str], meaning_of: Callable[[str, str], dict[str, Any]], known: str, criteria: Any
) -> Any:
    for condition in conditions:
        name, is_given, value = condition.partition("=")
        meaning = meaning_of(name, value) if is_given and value else {}
        if not meaning:
            raise typer.BadParameter(f"--where {condition!r} means nothing: write {known}")
        if "promoted" in meaning:
            meaning["promoted"] |= criteria.get("promoted", {})
        if any(key in criteria and criteria[key] != each for key, each in meaning.items() if key != "promoted"):
            raise typer.BadParameter(f"nothing fits both {condition!r} and what was said before it")
        criteria |= meaning
    return criteria


def _of_instance(name: str, value: str) -> dict[str, Any]:
    match name:
        case "older":
            return {"older_than": duration(value)}
        case "status" if value in Status.__members__:
            return CRITERIA[Status(value)]
    return _of_either(name, value)


def _of_event(name: str, value: str) -> dict[str, Any]:
    match name:
        case "type":
            return {"type": _event_type(value)}
        case "instance":
            try:
                return {"instance_id": UUID(value)}
            except ValueError:
                raise typer.BadParameter(f"{value!r} is no id of an instance") from None
    return _of_either(name, value)


def _of_either(name: str, value: str) -> dict[str, Any]:
    match name.split("."):
        case ["workflow"]:
            return {"workflow": value}
        case ["key"]:
            return {"correlation_key": value}
        case ["promoted", *path] if "".join(path):
            return {"promoted": {".".join(path): json_or_text(value)}}
    return {}


def _event_type(name: str) -> str:
    from holdfast.events.types import Event

    known = sorted(kind.__name__ for kind in get_args(Event))
    if name not in known:
        raise typer.BadParameter(f"there are no events of type {name!r}: types are {', '.join(known)}")
    return name
