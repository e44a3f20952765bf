"""The streams of subflows that run within the transactions of an instance (``run``).

Such a subflow is frames of the instance's own machine, so what it keeps and waits for is part of the instance. What it
did is its own: the events of its activities and sends stand in a stream of its own, which each commit of the instance
goes on with. Its snapshot has neither frames nor bookmarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from holdfast.events.types import (
    ActivityCompleted,
    ActivityDelayed,
    ActivityFailed,
    ActivityIntended,
    ActivityRequested,
    Event,
    InstanceCancelled,
    InstanceCompleted,
    InstanceFaulted,
    InstanceStarted,
    InstanceTerminated,
    MessageSent,
    Persisted,
    Reason,
    SubflowEnded,
    SubflowStarted,
    TransactionRolledBack,
)
from holdfast.processor.engine.provider import InnerBatch
from holdfast.projections.instance import InstanceState, fold, initial

Ending = InstanceCompleted | InstanceFaulted | InstanceCancelled | InstanceTerminated

_REASONS: Mapping[type[Ending], Reason] = {
    InstanceCompleted: "completed",
    InstanceFaulted: "faulted",
    InstanceCancelled: "cancelled",
    InstanceTerminated: "terminated",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """A subflow at the frame ``path``, called by ``holder``: the instance or another inner subflow.

    ``state`` is as of the last persistence point. ``started`` and ``ended`` are the events with which it began and
    ended since then.
    """

    instance_id: UUID
    holder: UUID
    path: str
    state: InstanceState = initial
    started: InstanceStarted | None = None
    ended: Ending | None = None


@dataclass(slots=True)
class InnerStreams:
    """The inner subflows of the instance ``root`` that live, or ended since the last persistence point."""

    root: UUID
    _all: dict[UUID, Inner] = field(default_factory=dict)
    _committed: dict[UUID, Inner] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._all)

    def __contains__(self, instance_id: UUID) -> bool:
        return instance_id in self._all

    @property
    def running(self) -> list[Inner]:
        """Those that have not ended."""
        return [inner for inner in self._all.values() if inner.ended is None]

    def add(self, inner: Inner) -> None:
        """Take in a subflow that begins, or that was restored."""
        self._all[inner.instance_id] = inner
        if inner.started is None:
            self._committed[inner.instance_id] = inner

    def end(self, instance_id: UUID, ending: Ending) -> Inner:
        """Note how a subflow ended, and return it."""
        inner = self._all[instance_id] = replace(self._all[instance_id], ended=ending)
        return inner

    def drop(self) -> None:
        """Go back to the last persistence point."""
        self._all = dict(self._committed)

    def around(self, path: str) -> Inner | None:
        """Return the innermost subflow that a frame or branch belongs to."""
        if not self._all:
            return None
        inside = [inner for inner in self.running if is_within(path, inner.path)]
        return max(inside, key=lambda inner: len(inner.path), default=None)

    def split(
        self, events: Sequence[Event], state: InstanceState, metadata: dict[str, Any]
    ) -> tuple[list[Event], list[InnerBatch]]:
        """Return which events of a batch are the instance's own, and the batches of its inner subflows.

        ``state`` is the instance's as of the last persistence point.
        """
        if not self._all:
            return list(events), []
        own: list[Event] = []
        theirs: dict[UUID, list[Event]] = {instance_id: [] for instance_id in self._all}
        waiting = {*state.calls, *(e.idempotency_key for e in events if isinstance(e, _CALLS))}
        for event in events:
            owner = self._owner(event, waiting)
            (own if owner is None else theirs[owner]).append(event)
        persisted = next(event for event in reversed(own) if isinstance(event, Persisted))
        is_closed = fold(own, state).execution_status == "closed"
        batches = []
        for instance_id, events_of in theirs.items():
            if is_closed and self._all[instance_id].ended is None:
                self.end(instance_id, InstanceTerminated(by=str(self.root), why="its parent ended"))
            batches += _batch(self._all[instance_id], events_of, persisted, metadata)
        return own, batches

    def committed(self, batches: Iterable[InnerBatch]) -> None:
        """Go on from a persistence point."""
        for batch in batches:
            if batch.state.execution_status == "closed":
                self._committed.pop(batch.instance_id, None)
            else:
                inner = self._all[batch.instance_id]
                self._committed[batch.instance_id] = replace(inner, state=batch.state, started=None)
        self._all = dict(self._committed)

    def _owner(self, event: Event, waiting: set[str]) -> UUID | None:
        """Return the subflow in whose stream an event belongs; None if it is the instance's own.

        A call that waits, for its next attempt or a worker, waits at a bookmark of the instance; so its end is told
        there too.
        """
        match event:
            case SubflowStarted(mode="run") | SubflowEnded():
                found = self._all.get(UUID(event.instance_id))
                return None if found is None or found.holder == self.root else found.holder
            case ActivityCompleted() | ActivityFailed():
                if event.idempotency_key in waiting:
                    return None
            case MessageSent() | TransactionRolledBack():
                pass
            case _:
                return None
        inside = [inner for inner in self._all.values() if is_within(event.where.frame, inner.path)]
        return max(inside, key=lambda inner: len(inner.path)).instance_id if inside else None


_CALLS = (ActivityIntended, ActivityDelayed, ActivityRequested)


def _batch(inner: Inner, events: list[Event], around: Persisted, metadata: dict[str, Any]) -> list[InnerBatch]:
    """Return what is to be written of a subflow with ``around``, the persistence point of its instance; or nothing."""
    was_idle = inner.state.execution_status == "idle"
    is_idle = around.idle or around.reason == "idle"
    if not is_idle and around.reason in ("suspended", "unload", "requested"):
        is_idle = was_idle
    if inner.started is not None:
        events.insert(0, inner.started)
    if inner.ended is not None:
        events.append(inner.ended)
        events.append(Persisted(reason=_REASONS[type(inner.ended)]))
    elif events or is_idle != was_idle:
        events.append(Persisted(reason="subflow", idle=is_idle))
    if not events:
        return []
    state = fold(events, inner.state)
    return [
        InnerBatch(
            instance_id=inner.instance_id,
            workflow=state.workflow,
            program_hash=state.program_hash,
            correlation_key=state.correlation_key,
            start_message_id=start_message_id(inner.instance_id),
            expected_version=inner.state.version,
            events=events,
            metadata=metadata,
            state=state,
        )
    ]


def start_message_id(instance_id: UUID) -> str:
    """Return the id of the message that starts a subflow."""
    return f"{instance_id}:start"


def is_within(path: str, frame: str) -> bool:
    """Whether a path is that of a frame, or of a frame or branch below it."""
    return path == frame or path.startswith(f"{frame}.")
