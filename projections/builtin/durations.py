"""How long the steps of workflows take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    BookmarkClosed,
    BookmarkOpened,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceStarted,
    InstanceTerminated,
    MessageReceived,
    Persisted,
    SubflowEnded,
    TimerCancelled,
    TimerFired,
    Where,
)
from holdfast.projections.definition import Projection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

_GROWTH = 1.1
"""Each bucket is so many times as wide as the one before it; the view that reads them knows it, too."""
_SHORTEST = 1e-4

Kind = Literal["activity", "message", "timer", "subflow", "instance"]
_Key = tuple[str, int, Kind, str, int]
"""Workflow, line, kind, name and bucket."""


@dataclass(slots=True)
class _Clock:
    """Of one instance: when it began, when it was last heard of, and since when it waits where."""

    workflow: str
    began: datetime
    last: datetime
    waits: dict[str, datetime] = field(default_factory=dict)
    has_ended: bool = False


class Durations(Projection):
    """Keeps how long each step of a workflow takes, with percentiles: view ``durations``.

    A wait takes from its bookmark to the event that ends it, a whole instance from its first event to its last. An
    activity takes from what its instance recorded before it to its result: where several commit together, as in
    ``in_memory`` workflows, the log does not tell them apart. Percentiles are right to 5 %.
    """

    create = _SQL["create_durations"].decode()

    async def went_on(
        self,
        tx: Any,
        events: Sequence[
            InstanceStarted
            | InstanceForked
            | ActivityCompleted
            | ActivityFailed
            | BookmarkOpened
            | BookmarkClosed
            | TimerCancelled
            | MessageReceived
            | TimerFired
            | SubflowEnded
            | Persisted
            | InstanceCompleted
            | InstanceContinued
            | InstanceFaulted
            | InstanceCancelled
            | InstanceTerminated
        ],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        """Measure what has ended, and remember what has begun."""
        clocks = await _load(tx, recorded)
        counts: dict[_Key, tuple[int, float]] = {}

        def measure(clock: _Clock, since: datetime, where: Where | None, kind: Kind, name: str) -> None:
            seconds = max(_SHORTEST, (clock.last - since).total_seconds())
            bucket = math.ceil(math.log(seconds, _GROWTH))
            key = (clock.workflow, where.line if where else 0, kind, name, bucket)
            count, total = counts.get(key, (0, 0.0))
            counts[key] = count + 1, total + seconds

        for event, it in zip(events, recorded, strict=True):
            at = it.recorded_at
            clock = clocks.setdefault(it.instance_id, _Clock("unknown", at, at))
            before, clock.last = clock.last, at
            match event:
                case InstanceStarted() | InstanceForked():
                    clock.workflow, clock.began = event.workflow, at
                case ActivityCompleted() | ActivityFailed():
                    measure(clock, before, event.where, "activity", event.activity)
                case BookmarkOpened():
                    clock.waits[event.bookmark] = at
                case BookmarkClosed() | TimerCancelled():
                    clock.waits.pop(event.bookmark, None)
                case MessageReceived() | TimerFired() | SubflowEnded():
                    kind, name, bookmark = _wait(event)
                    measure(clock, clock.waits.get(bookmark, before), event.where, kind, name)
                    for closed in event.closes:
                        clock.waits.pop(closed, None)
                case Persisted():
                    pass
                case _:
                    measure(clock, clock.began, None, "instance", clock.workflow)
                    clock.has_ended = True
        await _save(tx, clocks)
        await _count(tx, counts)


def _wait(event: MessageReceived | TimerFired | SubflowEnded) -> tuple[Kind, str, str]:
    """Return what kind of wait has ended, for what, and at which bookmark."""
    match event:
        case MessageReceived():
            return "message", event.message_type, event.bookmark
        case TimerFired():
            return "timer", "", event.bookmark
        case SubflowEnded():
            return "subflow", event.workflow, event.closes[0] if event.closes else ""


async def _load(tx: Any, recorded: Sequence[RecordedEvent]) -> dict[UUID, _Clock]:
    instance_ids = list({it.instance_id for it in recorded})
    cursor = await tx.execute(_SQL["clocks"], {"instance_ids": instance_ids})
    return {
        instance_id: _Clock(workflow, began, last, dict(zip(bookmarks, since, strict=True)))
        for instance_id, workflow, began, last, bookmarks, since in await cursor.fetchall()
    }


async def _save(tx: Any, clocks: dict[UUID, _Clock]) -> None:
    living = {instance_id: clock for instance_id, clock in clocks.items() if not clock.has_ended}
    await tx.execute(
        _SQL["save_clocks"],
        {
            "instance_ids": [*living],
            "workflows": [clock.workflow for clock in living.values()],
            "began": [clock.began for clock in living.values()],
            "last": [clock.last for clock in living.values()],
        },
    )
    waits = [(instance_id, name, at) for instance_id, clock in living.items() for name, at in clock.waits.items()]
    await tx.execute(_SQL["forget_waits"], {"instance_ids": [*clocks]})
    await tx.execute(
        _SQL["save_waits"],
        {
            "instance_ids": [instance_id for instance_id, _, _ in waits],
            "bookmarks": [name for _, name, _ in waits],
            "since": [at for _, _, at in waits],
        },
    )
    await tx.execute(_SQL["forget_clocks"], {"instance_ids": [*(clocks.keys() - living.keys())]})


async def _count(tx: Any, counts: dict[_Key, tuple[int, float]]) -> None:
    workflows, lines, kinds, names, buckets = zip(*counts, strict=True) if counts else ((), (), (), (), ())
    await tx.execute(
        _SQL["count_durations"],
        {
            "workflows": list(workflows),
            "lines": list(lines),
            "kinds": list(kinds),
            "names": list(names),
            "buckets": list(buckets),
            "counts": [count for count, _ in counts.values()],
            "seconds": [total for _, total in counts.values()],
        },
    )
