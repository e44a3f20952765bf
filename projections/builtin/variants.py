"""Which ways instances went through their workflow, and how many went each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceStarted,
    InstanceTerminated,
    MessageReceived,
    SubflowEnded,
    TimerFired,
)
from holdfast.projections.definition import Projection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

Step = (
    InstanceStarted | InstanceForked | MessageReceived | ActivityCompleted | ActivityFailed | TimerFired | SubflowEnded
)
"""An event that may be a step of a variant."""

_SEPARATOR = "\x1f"
_OUTCOMES = {
    InstanceCompleted: "completed",
    InstanceContinued: "completed",
    InstanceFaulted: "faulted",
    InstanceCancelled: "cancelled",
    InstanceTerminated: "terminated",
}


class Variants(Projection):
    """Counts the ended instances by the sequence of steps that they took: table ``variants``.

    A step is a message that came in (its type), an activity that ended (its name), a timer or a subflow; a subclass
    may say otherwise with ``label``. Of a path the first ``longest`` steps are kept.
    """

    create = _SQL["create_variants"].decode()
    longest: ClassVar[int] = 1000

    def label(self, event: Step) -> str | None:
        """Return what a step is called; None leaves it out."""
        match event:
            case InstanceStarted() | MessageReceived():
                return event.message_type
            case InstanceForked():
                return "forked"
            case ActivityCompleted():
                return event.activity
            case ActivityFailed():
                return f"{event.activity} failed"
            case SubflowEnded():
                return event.workflow
            case TimerFired():
                return "timer"

    async def went_on(
        self,
        tx: Any,
        events: Sequence[
            InstanceStarted
            | InstanceForked
            | MessageReceived
            | ActivityCompleted
            | ActivityFailed
            | TimerFired
            | SubflowEnded
        ],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        """Add steps to the paths of the instances."""
        workflows: dict[UUID, str] = {}
        paths: dict[UUID, list[str]] = {}
        for event, it in zip(events, recorded, strict=True):
            path = paths.setdefault(it.instance_id, [])
            if isinstance(event, InstanceStarted | InstanceForked):
                workflows[it.instance_id] = event.workflow
            label = self.label(event)
            if label is not None:
                path.append(label.replace(_SEPARATOR, " "))
        await tx.execute(
            _SQL["extend_paths"],
            {
                "instance_ids": [*paths],
                "workflows": [workflows.get(instance_id) for instance_id in paths],
                "steps": [_SEPARATOR.join(path) for path in paths.values()],
                "longest": self.longest,
            },
        )

    async def ended(
        self,
        tx: Any,
        events: Sequence[
            InstanceCompleted | InstanceContinued | InstanceFaulted | InstanceCancelled | InstanceTerminated
        ],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        """Count the paths of the instances that have ended."""
        await tx.execute(
            _SQL["count_paths"],
            {
                "instance_ids": [it.instance_id for it in recorded],
                "outcomes": [_OUTCOMES[type(event)] for event in events],
            },
        )
