"""Which activities may have run already, and would run again, if what ran behind an await was never committed."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.processor.core.await_points import AwaitPoint
from holdfast.processor.core.control_flow import ways
from holdfast.processor.language.program import Program
from holdfast.processor.language.trees import Json, without_places

_HARMLESS = ("delay", "send", "reply", "checkpoint", "suspend", "continue as new")


def repeated(program: Program, points: Sequence[AwaitPoint], step: int, *, is_regular: bool) -> frozenset[int]:
    """Return the awaits by which activities may have run since the frame was persisted at a step.

    With ``is_regular``, an activity outside of scopes is the last one: its result is committed before another begins.
    """
    edges = ways(program.steps)
    awaits = {it.step: it for it in points}
    last = {it.step for it in points if is_regular and it.what.startswith("activity ") and not _in_scope(it)}
    found, waiting = set[int](), [step]
    while waiting:
        number = waiting.pop()
        # If it stands at an activity, that is the one that runs; its own key is looked at elsewhere.
        for each in edges[number] - found if number not in last else ():
            found.add(each)
            waiting.append(each)
    return frozenset(each for each in found if each in awaits and not _is_harmless(awaits[each]))


def keeps_keys(old: Program, new: Program, step: int, calls: frozenset[int]) -> bool:
    """Whether all that leads from a step to calls is the same, so that their steps and visits are."""
    edges = ways(old.steps)
    between, changed = set(calls), True
    while changed:
        more = {number for number, following in enumerate(edges) if number not in between and following & between}
        changed = bool(more)
        between |= more
    behind, waiting = {step}, [step]
    while waiting:
        following = edges[waiting.pop()] - behind
        behind |= following
        waiting += following
    return all(_content(old, number) == _content(new, number) for number in behind & between)


def _in_scope(point: AwaitPoint) -> bool:
    return any(slot.startswith("$scope") for slot in point.slots)


def _is_harmless(point: AwaitPoint) -> bool:
    return point.what.startswith("message ") or point.what in _HARMLESS


def _content(program: Program, number: int) -> Json:
    if number >= len(program.steps):
        return None
    step = program.steps[number]
    block = {"block": program.blocks[step["block"]]["body"]} if step["op"] == "run" else {}
    return without_places({**step, **block})
