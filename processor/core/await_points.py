"""The places at which a program may wait, and what tells them apart from one version of the program to the next.

Nothing of a place stays the same when code is added before it: neither its step number, nor its line, nor the numbers
of hidden variables. What does stay is what is awaited there and what is around it: its *identity*.

* What is awaited, as the names in the module say: an activity or routine by its name, a message by its type, a
  ``first_of`` by the names of its branches and what each waits for, and so on. An expression that says none of
  this is taken as it stands.
* Around it: the loops, in number; those over a sequence and the scopes, each with the expression that it was begun
  with; the clauses (``except``, ``finally``, ``match``) in which it stands.

A ``try`` around an await is no part of its identity: nothing of it is kept while the frame waits in its body.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from holdfast.processor.core.control_flow import loop_depths
from holdfast.processor.language import awaitables, gather, subflows, trees
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.definition import title_of
from holdfast.processor.language.program import Program
from holdfast.processor.language.routine import Routine
from holdfast.processor.language.trees import Json, without_places
from holdfast.schemas.message import Message

_SLOT = re.compile(r"\$([a-z]+)(\d+)")
_PLAIN: tuple[tuple[object, str], ...] = (
    (awaitables.delay, "delay"),
    (awaitables.send, "send"),
    (awaitables.reply, "reply"),
    (awaitables.checkpoint, "checkpoint"),
    (awaitables.suspend, "suspend"),
    (subflows.continue_as_new, "continue as new"),
)
_CHILDREN: tuple[tuple[object, str], ...] = (
    (subflows.run, "run"),
    (subflows.start, "start"),
    (subflows.spawn, "spawn"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitPoint:
    """One await of a program: the ``step``, its ``line``, what is awaited, in words, and its identity.

    ``slots`` are the hidden variables that are kept there for what is around, the outermost first, ``held`` those of an
    expression of which a part was evaluated before.
    """

    step: int
    line: int
    what: str
    around: tuple[str, ...]
    loops: int
    slots: tuple[str, ...]
    held: tuple[str, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """What is the same in another version of the program."""
        return self.what, self.around, self.loops


def await_points(program: Program) -> tuple[AwaitPoint, ...]:
    """Return the awaits of a program, which is linked, in the order of its steps."""
    namespace = program.namespace or {}
    expressions = _assignments(program)
    depths = loop_depths(program.steps)
    points = []
    for number, step in enumerate(program.steps):
        if step["op"] != "await":
            continue
        slots = sorted((s for s in step.get("live", ()) if not s.startswith("$t")), key=_number)
        points.append(
            AwaitPoint(
                step=number,
                line=step["at"][0],
                what=_what(_awaited(program, number), namespace, expressions),
                around=tuple(_around(slot, expressions) for slot in slots),
                loops=depths[number],
                slots=tuple(slots),
                held=tuple(s for s in step.get("live", ()) if s.startswith("$t")),
            )
        )
    return tuple(points)


def _number(slot: str) -> int:
    found = _SLOT.fullmatch(slot)
    return 0 if found is None else int(found[2])


def _awaited(program: Program, number: int) -> Json:
    """Return the expression that is awaited at a step: the block before it ends by keeping it."""
    before = program.steps[number - 1]
    return program.blocks[before["block"]]["body"][-1]["value"]


def _assignments(program: Program) -> dict[str, Json]:
    """Return the expression that each hidden variable gets first."""
    found: dict[str, Json] = {}
    for block in program.blocks:
        for statement in block["body"]:
            if statement["_"] == "Assign" and (slot := _hidden(statement["targets"][0])) is not None:
                found.setdefault(slot, statement["value"])
    return found


def _hidden(node: Json) -> str | None:
    """Return the name in ``$v["$name"]``; None for any other expression."""
    if not (isinstance(node, dict) and node.get("_") == "Subscript" and node["value"].get("id") == "$v"):
        return None
    name = node["slice"].get("value")
    return name if isinstance(name, str) and name.startswith("$") else None


def _around(slot: str, expressions: Mapping[str, Json]) -> str:
    kind = slot.rstrip("0123456789").removeprefix("$")
    if kind not in ("for", "scope", "match"):
        return kind
    return f"{kind} {_text(expressions.get(slot))}"


def _what(node: Json, namespace: Mapping[str, Any], expressions: Mapping[str, Json]) -> str:
    if not isinstance(node, dict) or node.get("_") != "Call":
        return f"what {_text(node)} gives"
    function, arguments = node["func"], node.get("args", [])
    if function.get("_") == "Attribute" and (slot := _hidden(function["value"])) is not None:
        side = {"entering": "the beginning", "leaving": "the end"}.get(function["attr"], function["attr"])
        return f"{side} of the scope {_text(expressions.get(slot))}"
    value = _value(function, namespace)
    if isinstance(value, Activity):
        return f"activity {value.name}"
    if isinstance(value, Routine):
        return f"routine {value.name}"
    if value is awaitables.receive:
        kind = _value(arguments[0], namespace) if arguments else None
        if isinstance(kind, type) and issubclass(kind, Message):
            return f"message {kind.message_type}"
    if value is awaitables.defer and arguments:
        return f"the deferral of {_what(arguments[0], namespace, expressions)}"
    if value is awaitables.first_of and all(each.get("arg") for each in node.get("keywords", [])):
        branches = [
            f"{each['arg']}: {_what(each['value'], namespace, expressions)}" for each in node.get("keywords", [])
        ]
        return f"the first of ({'; '.join(sorted(branches))})"
    if value is gather.gather and not any(each.get("_") == "Starred" for each in arguments):
        return f"all of ({'; '.join(_what(each, namespace, expressions) for each in arguments)})"
    for known, mode in _CHILDREN:
        if value is known and arguments and (title := title_of(_value(arguments[0], namespace))) is not None:
            return f"{mode} of workflow {title.name}"
    for plain, name in _PLAIN:
        if value is plain:
            return name
    return f"what {_text(node)} gives"


def _value(node: Json, namespace: Mapping[str, Any]) -> Any:
    if node.get("_") == "Name":
        return namespace.get(node["id"])
    if node.get("_") == "Attribute":
        owner = _value(node["value"], namespace)
        return getattr(owner, node["attr"], None)
    return None


def _text(node: Json) -> str:
    """Return an expression in one form for all versions: as Python where that can be, without numbers of slots."""
    plain = _SLOT.sub(r"$\1", json.dumps(without_places(node), sort_keys=True))
    return _unparsed(plain)


@lru_cache(maxsize=1024)
def _unparsed(tree: str) -> str:
    node = json.loads(tree)
    return "?" if node is None else ast.unparse(ast.fix_missing_locations(trees.load(node)))
