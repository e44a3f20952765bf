"""A fork: a new instance that begins where another one stood at a persistence point, with changed variables if wanted.

The events here are the first batch of the new stream. They hold all that the state held, so that the stream folds
without that of the origin. Variables are changed in the form in which they are stored.

What the origin owes an answer for, the fork owes too: a ``reply`` of it goes to the queue and under the key of who
asked the origin, whatever the fork's own key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from holdfast.events.types import (
    BookmarkOpened,
    CancelRequested,
    Event,
    FrameChange,
    InstanceForked,
    InstanceSuspended,
    Json,
    Persisted,
    SuspensionReason,
    Where,
)
from holdfast.projections.instance import FrameState, InstanceState
from holdfast.schemas.errors import ForkRefused
from holdfast.schemas.values import checking

_ROOT = "0"
_TEXTS = {"$uuid": UUID, "$decimal": Decimal}
"""Tags of values that queries see as text."""
_BITS = 64

_NAME = re.compile(r"(?:(?P<frame>\d[\d.~-]*)/)?(?P<variable>[^\W\d]\w*)(?P<path>(?:\.\w+)*)")


def objection(state: InstanceState) -> str | None:
    """Return why an instance cannot be forked where it stands at a persistence point; None if it can."""
    if state.execution_status == "closed":
        return "it had ended by then"
    if state.subflow == "run":
        return f"it runs within instance {state.parent}, which is the one to be forked"
    for child_id, child in state.subflows.items():
        verb = "runs" if child.mode == "run" else "waits for the end of"
        return f"at that point it {verb} subflow {child.workflow} {child_id}, which belongs to it alone"
    for call in state.calls.values():
        what = {
            "intended": f"{call.activity}, which must not run twice, is about to run",
            "delayed": f"it waits to try {call.activity} again",
            "requested": f"it waits for the result of {call.activity} from a queue",
        }[call.status]
        return f"at that point {what}"
    return None


def forked(
    origin: UUID,
    state: InstanceState,
    *,
    by: str,
    why: str | None = None,
    key: str | None = None,
    variables: Mapping[str, Json] | None = None,
) -> list[Event]:
    """Return the first batch of a fork of ``state``.

    ``variables`` are new values by name: ``[frame/]variable[.field…]``, of the workflow's own frame without one. With
    another ``key``, every text in a variable, and every wait, that is just the old one becomes the new one. Values for
    queries follow the variables that they show. Raises ``ForkRefused``.
    """
    against = objection(state)
    if against is not None:
        raise ForkRefused(origin, against)
    frames = {path: dict(frame.variables) for path, frame in state.frames.items()}
    _set(origin, frames, variables or {})
    old, new = state.correlation_key, state.correlation_key if key is None else key
    if new != old:
        for path, frame in frames.items():
            frames[path] = {name: _rekeyed(origin, tree, old, new) for name, tree in frame.items()}
    changed = [
        f"{path}.{name}"
        for path, variables_ in frames.items()
        for name, tree in variables_.items()
        if name[0] != "$" and not _same(tree, state.frames[path].variables[name])
    ]
    events: list[Event] = [
        InstanceForked(
            origin=str(origin),
            origin_version=state.version,
            workflow=state.workflow,
            program_hash=state.program_hash,
            correlation_key=new,
            by=by,
            why=why,
            changed=tuple(changed),
            reply_to=state.reply_to,
            reply_key=state.reply_key,
            traceparent=state.traceparent,
        )
    ]
    for name, mark in state.bookmarks.items():
        where = Where(mark.frame, _frame_of(mark.frame, state.frames).step, mark.line)
        waits_for = new if mark.correlation_key == old else mark.correlation_key
        events.append(
            BookmarkOpened(
                where=where,
                bookmark=name,
                kind=mark.kind,
                message_type=mark.message_type,
                correlation_key=waits_for,
                due=mark.due,
            )
        )
    if state.is_cancelling:
        events.append(CancelRequested(by=by, why=why))
    if state.is_suspended:
        events.append(
            InstanceSuspended(
                reason=cast("SuspensionReason", state.suspension_reason),
                exception_name=state.suspension_exception_name,
                detail=state.suspension_detail,
            )
        )
    changes = {
        path: FrameChange(
            step=frame.step, line=frame.line, visits=frame.visits, program=frame.program, set=frames[path]
        )
        for path, frame in state.frames.items()
    }
    return [
        *events,
        Persisted(
            reason="requested",
            frames=changes,
            values=state.values or None,
            promoted=_promoted(state, frames) or None,
            idle=state.execution_status == "idle",
        ),
    ]


def _frame_of(path: str, frames: Mapping[str, FrameState]) -> FrameState:
    """Return the frame at a path, or, for a branch that is no frame, the one that it is a branch of."""
    while path not in frames:
        path = path.rpartition(".")[0]
    return frames[path]


def _set(origin: UUID, frames: dict[str, dict[str, Json]], variables: Mapping[str, Json]) -> None:
    """Put new values in their places; refuse what would leave other variables pointing at nothing."""
    replaced = []
    for name, value in variables.items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise ForkRefused(origin, f"{name!r} names no variable: write NAME, NAME.FIELD or FRAME/NAME")
        path, variable = found["frame"] or _ROOT, found["variable"]
        frame = frames.get(path)
        if frame is None:
            raise ForkRefused(origin, f"it has no frame {path} at that point: it has {', '.join(frames)}")
        if variable not in frame:
            there = ", ".join(each for each in frame if each[0] != "$") or "none"
            raise ForkRefused(origin, f"frame {path} has no variable {variable!r} at that point: it has {there}")
        if any(True for _ in _references(value)):
            raise ForkRefused(origin, f"the new value of {name} has a $ref: write the value itself")
        if against := checking.objection(value, name.count(".")):
            raise ForkRefused(origin, f"the new value of {name} cannot be taken: {against}")
        keys = [variable, *found["path"].split(".")[1:]]
        frame[variable] = _with(origin, name, frame[variable], keys[1:], value)
        replaced.append("/".join([f"{path}.{variable}".replace("~", "~0"), *keys[1:]]))
    for path, frame in frames.items():
        for variable, tree in frame.items():
            for pointer in _references(tree):
                gone = next((p for p in replaced if pointer == p or pointer.startswith(f"{p}/")), None)
                if gone is not None:
                    raise ForkRefused(
                        origin,
                        f"variable {path}.{variable} shares an object with {gone.replace('/', '.')}, whose value would "
                        "be another one: change both, or a field of the object",
                    )


def _promoted(state: InstanceState, frames: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Return the values for queries that go with other variables.

    One that shows a number, a text and the like is shown as it is now. What only the app's code could show is left
    out until the fork's own next persistence point, if it may have changed. The others stay, as do those that
    participants gave.
    """
    before = state.frames[_ROOT].variables if _ROOT in state.frames else {}
    after = frames.get(_ROOT, {})
    is_other = any(not _same(tree, state.frames[path].variables) for path, tree in frames.items())
    promoted: dict[str, Json] = {}
    for name, value in state.promoted.items():
        if not is_other or name not in before:
            promoted[name] = value
            continue
        shown = _shown(name, before[name])
        if shown == {name: value}:
            promoted |= _shown(name, after[name])
        elif shown or (_same(before[name], after[name]) and not any(True for _ in _references(after[name]))):
            promoted[name] = value
    return promoted


def _shown(name: str, tree: Json) -> dict[str, Json]:
    """Return a variable as queries see it, by its name; nothing if that takes the code of its class."""
    match tree:
        case None | bool():
            return {name: tree}
        case str():
            return {name: tree}
        case int() if tree.bit_length() < _BITS:
            return {name: tree}
        case float() if math.isfinite(tree):
            return {name: tree}
        case {"$uuid": str(text)} | {"$decimal": str(text)} if len(tree) == 1:
            (tag,) = tree
            return {name: str(_TEXTS[tag](text))}
    return {}


def _same(one: object, other: object) -> bool:
    """Tell whether trees are the same; as text, for 1 and True are equal otherwise."""
    return repr(one) == repr(other)


def _with(origin: UUID, name: str, tree: Json, keys: list[str], value: Json) -> Json:
    """Return a tree with a new value at a place in it; the tree that was given stays as it is."""
    if not keys:
        return value
    key, *rest = keys
    if isinstance(tree, dict) and "$ref" not in tree and key in tree:
        return {**tree, key: _with(origin, name, tree[key], rest, value)}
    if isinstance(tree, list) and key.isdigit() and int(key) < len(tree):
        return [_with(origin, name, item, rest, value) if n == int(key) else item for n, item in enumerate(tree)]
    if isinstance(tree, dict) and "$ref" in tree:
        raise ForkRefused(origin, f"{name}: {key!r} is in an object that is kept as {tree['$ref']}: change it there")
    there = ", ".join(each for each in tree if each[0] != "$") if isinstance(tree, dict) else "no fields"
    raise ForkRefused(origin, f"{name}: there is no {key!r}, there is {there or 'nothing'}")


def _references(tree: Json) -> Iterator[str]:
    """Yield where the aliases in a tree point."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(pointer := node.get("$ref"), str):
                yield pointer
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _rekeyed(origin: UUID, tree: Json, old: str, new: str) -> Json:
    """Return a tree in which each text that is just the old key is the new one."""
    if isinstance(tree, str):
        return new if tree == old else tree
    if isinstance(tree, list):
        return [_rekeyed(origin, item, old, new) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if tree == {"$uuid": old}:
        try:
            return {"$uuid": str(UUID(new))}
        except ValueError:
            raise ForkRefused(origin, f"its key is a UUID, and {new!r} is none") from None
    # What stands for itself behind a tag, a name of a class for instance, is no value of the user's.
    return {
        name: item if name[0:1] == "$" and isinstance(item, str) else _rekeyed(origin, item, old, new)
        for name, item in tree.items()
    }
