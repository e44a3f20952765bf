"""What an instance would undo if it were cancelled now, and what it can no longer undo.

All is read from the log, without the app: the ledger of compensable scopes is a tree among the stored variables.
So this knows what was registered up to the last persistence point, and nothing of what a worker holds in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias
from uuid import UUID

from psycopg import AsyncConnection

from holdfast.events.types import ActivityCompleted, ActivityFailed, ActivityResolved, Event, Json, Outcome, Persisted
from holdfast.projections.history import history
from holdfast.projections.instance import InstanceState, fold, initial
from holdfast.schemas.errors import UnreadableValue

Fate: TypeAlias = Literal["called", "dropped", "unknown"]

_LANGUAGE = "holdfast.processor.language"
_SCOPE = f"{_LANGUAGE}.compensable:Compensable"
_ACTION = f"{_LANGUAGE}.compensable:Action"
_OPEN = ("active", "completed", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An action of a compensable scope; ``number`` counts the actions of the instance as they were registered.

    ``scope`` is the number of the scope's first action, which tells scopes apart, ``frame`` the path of the frame
    that opened it and ``status`` how it was when last seen; these are empty if only the action was ever stored.
    ``name`` is that of an activity, or of a routine if ``is_routine``; arguments are stored values.
    """

    number: int
    kind: str
    name: str
    is_routine: bool
    arguments: Sequence[Json]
    keywords: Mapping[str, Json]
    scope: int | None = None
    frame: str = ""
    status: str = ""


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


@dataclass(slots=True)
class _Stored:
    """The actions in one stored state: all, those in open scopes, those that are called, and what is left of these."""

    actions: dict[int, Registered] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    under_way: list[int] = field(default_factory=list)
    carrying: list[str] = field(default_factory=list)

    def due(self) -> list[Registered]:
        """Return what a cancel would call beside what is under way, newest first.

        Scopes inside of an action are not undone: they are confirmed when they end.
        """
        scopes: dict[int | None, list[Registered]] = {}
        for number in self.open:
            action = self.actions[number]
            if not any(action.frame == path or action.frame.startswith(f"{path}.") for path in self.carrying):
                scopes.setdefault(action.scope, []).append(action)
        due = [action for actions in scopes.values() for action in _undoing(actions)]
        return sorted(due, key=lambda action: action.number, reverse=True)


async def compensation(connection: AsyncConnection[Any], instance_id: UUID) -> Compensation:
    """Return what an instance would undo if it were cancelled now; ``InstanceNotFound`` if there is none."""
    return preview([entry.recorded.event async for entry in history(connection, instance_id)])


def preview(events: Iterable[Event]) -> Compensation:
    """Return what the instance with these events would undo if it were cancelled now."""
    state, stored, batch = initial, _Stored(), list[Event]()
    known: dict[int, Registered] = {}
    fates: dict[int, Fate] = {}
    for event in events:
        batch.append(event)
        if isinstance(event, Persisted):
            state = fold(batch, state)
            before, stored = stored, _read(state)
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


def _undoing(scope: list[Registered]) -> list[Registered]:
    """Return which actions of one open scope a cancel calls; leaving an active one, it makes it a failed one."""
    half_way = scope[0].status != "completed" and any(action.kind == "cancel" for action in scope)
    return [action for action in scope if action.kind == ("cancel" if half_way else "undo")]


def _fates(
    before: _Stored, now: _Stored, known: Mapping[int, Registered], outcome: Outcome | None, batch: Sequence[Event]
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


# Reading trees.


def _read(state: InstanceState) -> _Stored:
    stored = _Stored()
    root = state.frames.get("0")
    if root is None or "$ledger" not in root.variables:
        return stored
    trees = {f"{path}.{name}": tree for path, frame in state.frames.items() for name, tree in frame.variables.items()}
    nodes = list(_objects(trees.values()))
    for node in nodes:
        if node["$object"] == _ACTION:
            action = _action(node, trees)
            stored.actions.setdefault(action.number, action)
    for node in nodes:
        if node["$object"] == _SCOPE:
            actions = [_follow(each, trees) for each in _follow(node["actions"], trees)]
            numbers = [each["number"] for each in actions]
            about = {"frame": node["path"], "status": node["status"]}
            stored.actions |= {n: replace(stored.actions[n], scope=numbers[0], **about) for n in numbers}
    ledger = _follow(root.variables["$ledger"], trees)
    for each in _follow(ledger["scopes"], trees):
        scope = _follow(each, trees)
        if scope["status"] in _OPEN:
            stored.open |= {_follow(action, trees)["number"] for action in _follow(scope["actions"], trees)}
    for path, frame in state.frames.items():
        called = _follow(frame.variables.get("actions"), trees)
        items = [_follow(each, trees) for each in called] if isinstance(called, list) else []
        if items and all(isinstance(each, dict) and each.get("$object") == _ACTION for each in items):
            numbers = [each["number"] for each in items]
            current = _follow(frame.variables.get("action"), trees)
            stored.carrying.append(path)
            stored.taken |= set(numbers)
            stored.under_way += numbers[numbers.index(current["number"]) if current else 0 :]
    return stored


def _objects(trees: Iterable[Json]) -> Iterator[dict[str, Any]]:
    """Yield the scopes and actions wherever they are written."""
    waiting: list[Any] = list(trees)
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("$object") in (_SCOPE, _ACTION):
                yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _action(node: Mapping[str, Any], trees: Mapping[str, Json]) -> Registered:
    call = _follow(node["call"], trees)
    is_routine = "routine" in call
    arguments = [] if is_routine else _follow(call["args"], trees)["$tuple"]
    keywords = _follow(call["arguments" if is_routine else "kwargs"], trees)
    return Registered(
        number=node["number"],
        kind=node["kind"],
        name=call["routine" if is_routine else "activity"],
        is_routine=is_routine,
        arguments=[_follow(each, trees) for each in arguments],
        keywords={name: _follow(each, trees) for name, each in keywords.items()},
    )


def _follow(node: Any, trees: Mapping[str, Any]) -> Any:
    """Return what a node stands for: itself, or what it refers to."""
    if not isinstance(node, dict) or "$ref" not in node:
        return node
    found: Any = trees
    try:
        for segment in node["$ref"].split("/"):
            key = segment.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (LookupError, TypeError, ValueError):
        raise UnreadableValue(f"the reference {node['$ref']!r} leads nowhere") from None
    return found
