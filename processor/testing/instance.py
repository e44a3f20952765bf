"""An instance as a test looks at it: what the store has of it, with values as the workflow knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from holdfast.processor.engine.persistence_point import decode_value, images_of
from holdfast.processor.store.memory_tables import InstanceRow
from holdfast.projections.instance import Bookmark, InstanceState, initial
from holdfast.schemas.values import Types
from holdfast.schemas.words import ExecutionStatus, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedInstance:
    """What is durable of an instance at this moment; it does not change when the instance goes on.

    ``status`` is ``executing``, ``idle`` or ``closed``; ``outcome``, once it is closed, ``completed``,
    ``faulted``, ``cancelled`` or ``terminated``. ``result`` is what the workflow returned, ``error`` the
    exception that ended it. ``variables`` are those of the workflow function itself. ``waits_for`` says in words
    at what it waits. ``version`` counts its events: 0 before its first persistence point.
    """

    instance_id: UUID
    workflow: str
    correlation_key: str
    version: int
    status: ExecutionStatus
    outcome: Outcome | None
    result: Any
    error: Any
    variables: Mapping[str, Any]
    waits_for: Sequence[str]
    is_suspended: bool
    suspension_reason: str | None
    suspension_exception_name: str | None
    suspension_detail: str | None
    state: InstanceState = field(repr=False)

    @classmethod
    def of(cls, instance_id: UUID, row: InstanceRow, types: Types) -> SimulatedInstance:
        """Return what a row of the store says."""
        state = row.read() or initial
        images = images_of(state, types)
        own = images["0"].variables if "0" in images else {}
        return cls(
            instance_id=instance_id,
            workflow=row.registration.workflow,
            correlation_key=row.registration.correlation_key,
            version=state.version,
            status=state.execution_status,
            outcome=state.outcome,
            result=decode_value(state.result, types),
            error=decode_value(state.error, types),
            variables={name: value for name, value in own.items() if not name.startswith("$")},
            waits_for=[_in_words(bookmark) for bookmark in state.bookmarks.values()],
            is_suspended=row.is_suspended,
            suspension_reason=row.suspension_reason,
            suspension_exception_name=row.suspension_exception_name,
            suspension_detail=state.suspension_detail,
            state=state,
        )


def _in_words(bookmark: Bookmark) -> str:
    if bookmark.due is not None:
        return f"{bookmark.due} (line {bookmark.line})"
    return f"{bookmark.message_type} {bookmark.correlation_key!r} (line {bookmark.line})"
