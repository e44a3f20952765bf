"""How many instances of each workflow are in which state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import (
    CancelRequested,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    Persisted,
)
from holdfast.projections.definition import Projection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

_OUTCOMES = {
    InstanceCompleted: "completed",
    InstanceContinued: "completed",
    InstanceFaulted: "faulted",
    InstanceCancelled: "cancelled",
    InstanceTerminated: "terminated",
}


@dataclass(slots=True)
class _Change:
    """What a page says of an instance; None where it says nothing."""

    workflow: str | None = None
    is_suspended: bool | None = None
    is_idle: bool | None = None
    outcome: str | None = None


class Overview(Projection):
    """Counts instances by workflow and status, ever since the first: table ``overview``.

    A status is ``executing``, ``idle``, ``suspended``, ``completed``, ``faulted``, ``cancelled`` or ``terminated``.
    The counts are kept, so that looking at them costs the same however many instances there are.
    """

    create = _SQL["create_overview"].decode()

    async def changed(
        self,
        tx: Any,
        events: Sequence[
            InstanceStarted
            | InstanceForked
            | Persisted
            | InstanceSuspended
            | InstanceResumed
            | CancelRequested
            | InstanceCompleted
            | InstanceContinued
            | InstanceFaulted
            | InstanceCancelled
            | InstanceTerminated
        ],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        """Bring the rows of the instances up to date, and the counts with them."""
        changes: dict[UUID, _Change] = {}
        for event, it in zip(events, recorded, strict=True):
            change = changes.setdefault(it.instance_id, _Change())
            match event:
                case InstanceStarted() | InstanceForked():
                    change.workflow, change.is_idle = event.workflow, False
                case Persisted() if event.reason == "idle" or event.idle:
                    change.is_idle = True
                case Persisted():
                    if event.reason not in ("suspended", "unload", "requested"):
                        change.is_idle = False
                case InstanceSuspended():
                    change.is_suspended = True
                case InstanceResumed() | CancelRequested():
                    change.is_suspended = False
                case _:
                    change.outcome = _OUTCOMES[type(event)]
        found = changes.values()
        await tx.execute(
            _SQL["change_overview"],
            {
                "instance_ids": [*changes],
                "workflows": [change.workflow for change in found],
                "suspended": [change.is_suspended for change in found],
                "idle": [change.is_idle for change in found],
                "outcomes": [change.outcome for change in found],
            },
        )
