"""The ledger of an instance's compensable scopes, as it stands among the stored variables: no type is looked up.

Pure, and independent of programs, like all that is read from events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.events.types import Json
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import UnreadableValue

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


@dataclass(slots=True)
class Ledger:
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


def read(state: InstanceState) -> Ledger:
    """Return the actions that a state holds."""
    stored = Ledger()
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


def _undoing(scope: list[Registered]) -> list[Registered]:
    """Return which actions of one open scope a cancel calls; leaving an active one, it makes it a failed one."""
    half_way = scope[0].status != "completed" and any(action.kind == "cancel" for action in scope)
    return [action for action in scope if action.kind == ("cancel" if half_way else "undo")]
