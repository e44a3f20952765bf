"""What an instance would undo if it were cancelled now, and what it can no longer undo.

All is read from the log, without the app: the ledger of compensable scopes is a tree among the stored variables.
So this knows what was registered up to the last persistence point, and nothing of what a worker holds in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from uuid import UUID

from psycopg import AsyncConnection

from holdfast.events.types import ActivityCompleted, ActivityFailed, ActivityResolved, Event, Persisted
from holdfast.projections.history import events_of
from holdfast.projections.instance import fold, initial
from holdfast.projections.ledger import Ledger, Registered, read
from holdfast.schemas.words import Outcome

Fate: TypeAlias = Literal["called", "dropped", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """An action that will not be called any more: it was ``called``, or ``dropped``, or the log does not tell."""

    action: Registered
    fate: Fate


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """What compensation has to do as of ``version``, the last persistence point.

    ``under_way`` is being called already and is ended first, ``due`` is what a cancel would then call, both in
    order. ``kept`` is registered, but not for a cancel. ``gone`` cannot be called any more.
    """

    version: int
    outcome: Outcome | None
    under_way: tuple[Registered, ...]
    due: tuple[Registered, ...]
    kept: tuple[Registered, ...]
    gone: tuple[Gone, ...]


async def compensation(connection: AsyncConnection[Any], instance_id: UUID) -> Compensation:
    """Return what an instance would undo if it were cancelled now; ``InstanceNotFound`` if there is none."""
    return preview([recorded.event async for recorded in events_of(connection, instance_id)])


def preview(events: Iterable[Event]) -> Compensation:
    """Return what the instance with these events would undo if it were cancelled now."""
    state, stored, batch = initial, Ledger(), list[Event]()
    known: dict[int, Registered] = {}
    fates: dict[int, Fate] = {}
    for event in events:
        batch.append(event)
        if isinstance(event, Persisted):
            state = fold(batch, state)
            before, stored = stored, read(state)
            # What is being called may be stored without its scope.
            known |= {n: a for n, a in stored.actions.items() if a.scope is not None or n not in known}
            fates |= _fates(before, stored, known, state.outcome, batch)
            batch.clear()
    left = {*stored.open, *stored.under_way}
    due = stored.due()
    kept = stored.open - {action.number for action in due}
    return Compensation(
        version=state.version,
        outcome=state.outcome,
        under_way=tuple(known[number] for number in stored.under_way),
        due=tuple(due),
        kept=tuple(known[number] for number in sorted(kept)),
        gone=tuple(
            Gone(action=action, fate=fates.get(number, "unknown"))
            for number, action in sorted(known.items())
            if number not in left
        ),
    )


def _fates(
    before: Ledger, now: Ledger, known: Mapping[int, Registered], outcome: Outcome | None, batch: Sequence[Event]
) -> dict[int, Fate]:
    """Say what became of the actions that are gone since the persistence point before, as far as the log tells."""
    left = {*before.open, *before.under_way, *(now.actions.keys() - before.actions.keys())}
    left -= {*now.open, *now.under_way}
    ran = [e for e in batch if isinstance(e, ActivityCompleted | ActivityFailed | ActivityResolved)]
    names = {event.activity for event in ran}
    # Only what undoes, confirms or cancels without being asked to runs in frames with such a path.
    unasked = Counter(e.activity for e in ran if "~" in e.where.frame and isinstance(e, ActivityCompleted))
    due = [a for a in before.due() if a.number in left and not (outcome == "completed" and a.status != "failed")]
    if outcome == "completed":
        waiting = (before.actions[number] for number in before.open)
        due += [a for a in waiting if a.kind == "confirm" and a.status == "completed"]
    calls = Counter(action.name for action in due)
    decided = {known[number].scope for number in now.taken} - {None}
    fates: dict[int, Fate] = {}
    for number in left:
        action = known[number]
        if number in now.taken:
            fates[number] = "called"
        elif number in before.under_way:
            fates[number] = "unknown" if outcome in ("terminated", "faulted") else "called"
        elif outcome == "terminated" or action.scope in decided or not (action.is_routine or action.name in names):
            fates[number] = "dropped"
        elif action in due and not action.is_routine and unasked[action.name] >= calls[action.name]:
            fates[number] = "called"
        else:
            kind = {"undone": "undo", "confirmed": "confirm"}.get(action.status)
            fates[number] = "unknown" if kind is None else "called" if action.kind == kind else "dropped"
    return fates
