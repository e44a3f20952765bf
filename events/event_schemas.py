"""JSON Schema of event types, as the log stores them."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from holdfast.events.types import Event
from holdfast.schemas.message_schemas import DIALECT

MODE: Literal["serialization"] = "serialization"


def shared_event_schemas(template: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return a reference to each event type's schema, and the definitions by name.

    ``template`` is where a definition stands, with ``{model}`` for its name.
    """
    kinds = [(kind.__name__, MODE, TypeAdapter[Any](kind)) for kind in get_args(Event)]
    references, definitions = TypeAdapter.json_schemas(kinds, ref_template=template)
    return {name: reference for (name, _), reference in references.items()}, definitions.get("$defs", {})


def event_schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each event type's data, by the name of the type."""
    return {kind.__name__: {"$schema": DIALECT, **TypeAdapter(kind).json_schema(mode=MODE)} for kind in get_args(Event)}
