"""JSON Schema of message types: of single ones, and of many that share their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import models_json_schema

from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Mode = Literal["validation", "serialization"]
"""Whether a body is read by the app (``validation``) or written by it; the two differ, as more is read than written."""


def message_schema(kind: type[Message], mode: Mode = "validation") -> dict[str, Any]:
    """Return the schema of a type's body; ``AppError`` if a field has no form in JSON Schema."""
    try:
        return {"$schema": DIALECT, **kind.model_json_schema(mode=mode)}
    except PydanticInvalidForJsonSchema as error:
        raise _no_schema(kind.message_type, error) from None


def message_schemas(
    kinds: Sequence[tuple[type[Message], Mode]], template: str
) -> tuple[dict[tuple[type[Message], Mode], dict[str, Any]], dict[str, Any]]:
    """Return a reference to each type's schema, and the definitions by name.

    ``template`` is where a definition stands, with ``{model}`` for its name. Raises as ``message_schema``.
    """
    try:
        references, definitions = models_json_schema(list(kinds), ref_template=template)
    except PydanticInvalidForJsonSchema as error:
        raise _no_schema(", ".join(kind.message_type for kind, _ in kinds), error) from None
    found = {(kind, mode): references[kind, mode] for kind, mode in kinds}
    return found, definitions.get("$defs", {})


def _no_schema(types: str, error: PydanticInvalidForJsonSchema) -> AppError:
    return AppError(f"no JSON Schema can be made of {types}: {error.message}")
