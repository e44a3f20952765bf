"""What the expressions of a program say, in one form for all of its versions.

A part of an expression that was evaluated before is held in a hidden variable, such as ``$t3``, whose number says
nothing. It is put back: the text of ``$t3`` is that of whatever may have been kept there last.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import lru_cache

from holdfast.processor.core.control_flow import ways
from holdfast.processor.language import trees
from holdfast.processor.language.program import Program
from holdfast.processor.language.trees import Json, without_places

_SLOT = re.compile(r"\$([a-z]+)\d+")
_HELD = re.compile(r"\$(t|match)\d+")

Place = tuple[int, int]
"""A step that runs a block, and the number of a statement in that block."""


class Expressions:
    """The expressions of one program."""

    def __init__(self, program: Program) -> None:
        self._steps = program.steps
        self._bodies = [program.blocks[it["block"]]["body"] if it["op"] == "run" else [] for it in program.steps]
        self._before: list[set[int]] = [set() for _ in program.steps]
        for number, following in enumerate(ways(program.steps)):
            for each in following:
                self._before[each].add(number)

    def text(self, node: Json, place: Place) -> str:
        """Return an expression that is evaluated at a place as Python, without numbers of hidden variables."""
        if node is None:
            return "?"
        whole = self._whole(without_places(node), place, frozenset())
        return _unparsed(_SLOT.sub(r"$\1", json.dumps(whole, sort_keys=True)))

    def awaited(self, step: int) -> tuple[Json, Place]:
        """Return the expression that is awaited at a step: the block before it ends by keeping it."""
        place = step - 1, len(self._bodies[step - 1]) - 1
        return self._bodies[step - 1][-1]["value"], place

    def begun_with(self) -> dict[str, tuple[Json, Place]]:
        """Return the expression that each hidden variable gets first."""
        found: dict[str, tuple[Json, Place]] = {}
        for step, body in enumerate(self._bodies):
            for number, statement in enumerate(body):
                if statement["_"] == "Assign" and (slot := hidden(statement["targets"][0])) is not None:
                    found.setdefault(slot, (statement["value"], (step, number)))
        return found

    def _whole(self, node: Json, place: Place, seen: frozenset[tuple[str, Place]]) -> Json:
        if isinstance(node, list):
            return [self._whole(each, place, seen) for each in node]
        if not isinstance(node, dict):
            return node
        slot = hidden(node)
        if slot is None or _HELD.fullmatch(slot) is None or (slot, place) in seen:
            return {name: self._whole(each, place, seen) for name, each in node.items()}
        further = seen | {(slot, place)}
        given = {json.dumps(self._whole(value, at, further), sort_keys=True) for value, at in self._given(slot, place)}
        values = [json.loads(each) for each in sorted(given)]
        return values[0] if len(values) == 1 else {"_": "Tuple", "elts": values} if values else node

    def _given(self, slot: str, place: Place) -> Iterator[tuple[Json, Place]]:
        """Yield each expression whose value a hidden variable may have at a place."""
        passed = set[int]()
        waiting = [place]
        while waiting:
            step, end = waiting.pop()
            found = False
            for number in reversed(range(end)):
                statement = self._bodies[step][number]
                if statement["_"] in ("Assign", "AugAssign") and slot in _slots(statement):
                    yield without_places(statement["value"]), (step, number)
                    found = True
                    break
            if found:
                continue
            for before in self._before[step] - passed:
                passed.add(before)
                if self._steps[before].get("into") != slot:
                    waiting.append((before, len(self._bodies[before])))
                elif self._steps[before]["op"] == "await":
                    value, at = self.awaited(before)
                    yield {"_": "Await", "value": without_places(value)}, at
                else:
                    yield {"_": "Name", "id": "item"}, (before, 0)


def hidden(node: Json) -> str | None:
    """Return the name in ``$v["$name"]``; None for any other expression."""
    if not (isinstance(node, dict) and node.get("_") == "Subscript" and node["value"].get("id") == "$v"):
        return None
    name = node["slice"].get("value")
    return name if isinstance(name, str) and name.startswith("$") else None


def _slots(statement: Json) -> set[str]:
    """Return the hidden variables that a statement assigns to."""
    found, waiting = set[str](), [*statement.get("targets", ()), statement.get("target")]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if (slot := hidden(node)) is not None:
                found.add(slot)
            waiting += [*node.get("elts", ()), node.get("value")] if node.get("_") != "Subscript" else []
    return found


@lru_cache(maxsize=4096)
def _unparsed(tree: str) -> str:
    return ast.unparse(ast.fix_missing_locations(trees.load(json.loads(tree))))
