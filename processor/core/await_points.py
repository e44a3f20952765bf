"""The places at which a program may wait, and what tells them apart from one version of the program to the next.

Nothing of a place stays the same when code is added before it: neither its step number, nor its line, nor the numbers
of hidden variables. What does stay is what is awaited there and what is around it: its *identity*.

* What is awaited, as the names in the module say: an activity or routine by its name, a message by its type and the
  text of its key, a ``first_of`` by the names of its branches and what each waits for, and so on. An expression that
  says none of this is taken as it stands.
* Around it: the loops, in number; those over a sequence and the scopes, each with the expression that it was begun
  with; the clauses (``except``, ``finally``, ``match``) in which it stands; and the conditions that were decided on the
  way to it (``branches``).

A ``try`` around an await is no part of its identity: nothing of it is kept while the frame waits in its body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.processor.core.branches import decisions
from holdfast.processor.core.control_flow import loop_depths
from holdfast.processor.core.expressions import Expressions, Place, hidden
from holdfast.processor.language import awaitables, gather, subflows
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.definition import title_of
from holdfast.processor.language.program import Program
from holdfast.processor.language.routine import Routine
from holdfast.processor.language.trees import Json
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

    ``decided`` are the conditions it hangs on. ``text`` is the expression that is awaited, as it stands. ``slots`` are
    the hidden variables that are kept there for what is around, the outermost first, ``held`` those of an expression
    of which a part was evaluated before.
    """

    step: int
    line: int
    what: str
    text: str
    around: tuple[str, ...]
    loops: int
    decided: frozenset[str]
    slots: tuple[str, ...]
    held: tuple[str, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """What is the same in another version of the program."""
        return self.what, self.around, self.loops, self.decided


def await_points(program: Program) -> tuple[AwaitPoint, ...]:
    """Return the awaits of a program, which is linked, in the order of its steps."""
    expressions = Expressions(program)
    reader = _Reader(program.namespace or {}, expressions)
    depths = loop_depths(program.steps)
    decided = decisions(program, expressions)
    points = []
    for number, step in enumerate(program.steps):
        if step["op"] != "await":
            continue
        node, place = expressions.awaited(number)
        slots = sorted((s for s in step.get("live", ()) if not s.startswith("$t")), key=_number)
        points.append(
            AwaitPoint(
                step=number,
                line=step["at"][0],
                what=reader.what(node, place),
                text=expressions.text(node, place),
                around=tuple(reader.around(slot) for slot in slots),
                loops=depths[number],
                decided=decided[number],
                slots=tuple(slots),
                held=tuple(s for s in step.get("live", ()) if s.startswith("$t")),
            )
        )
    return tuple(points)


def _number(slot: str) -> int:
    found = _SLOT.fullmatch(slot)
    return 0 if found is None else int(found[2])


class _Reader:
    """Says in words what is awaited in a program and what is around it."""

    def __init__(self, namespace: Mapping[str, Any], expressions: Expressions) -> None:
        self._namespace = namespace
        self._expressions = expressions
        self._begun_with = expressions.begun_with()

    def around(self, slot: str) -> str:
        """Return what a hidden variable is kept for."""
        kind = slot.rstrip("0123456789").removeprefix("$")
        return f"{kind} {self._beginning(slot)}" if kind in ("for", "scope", "match") else kind

    def what(self, node: Json, place: Place) -> str:
        """Return what an expression that is awaited at a place gives."""
        if not isinstance(node, dict) or node.get("_") != "Call":
            return f"what {self._expressions.text(node, place)} gives"
        function, arguments, named = node["func"], node.get("args", []), node.get("keywords", [])
        if function.get("_") == "Attribute" and (slot := hidden(function["value"])) is not None:
            side = {"entering": "the beginning", "leaving": "the end"}.get(function["attr"], function["attr"])
            return f"{side} of the scope {self._beginning(slot)}"
        value = self._value(function)
        if isinstance(value, Activity):
            return f"activity {value.name}"
        if isinstance(value, Routine):
            return f"routine {value.name}"
        if value is awaitables.receive and (key := _argument(node, 1, "key")) is not None:
            kind = self._value(_argument(node, 0, "type"))
            if isinstance(kind, type) and issubclass(kind, Message):
                return f"message {kind.message_type} for {self._expressions.text(key, place)}"
        if value is awaitables.defer and arguments:
            return f"the deferral of {self.what(arguments[0], place)}"
        if value is awaitables.first_of and not arguments and all(each.get("arg") for each in named):
            branches = [f"{each['arg']}: {self.what(each['value'], place)}" for each in named]
            return f"the first of ({'; '.join(sorted(branches))})"
        if value is gather.gather and not any(each.get("_") == "Starred" for each in arguments):
            return f"all of ({'; '.join(self.what(each, place) for each in arguments)})"
        for known, mode in _CHILDREN:
            if value is known and arguments and (title := title_of(self._value(arguments[0]))) is not None:
                return f"{mode} of workflow {title.name}"
        for plain, name in _PLAIN:
            if value is plain:
                return name
        return f"what {self._expressions.text(node, place)} gives"

    def _beginning(self, slot: str) -> str:
        return self._expressions.text(*self._begun_with[slot]) if slot in self._begun_with else "?"

    def _value(self, node: Json) -> Any:
        if isinstance(node, dict) and node.get("_") == "Name":
            return self._namespace.get(node["id"])
        if isinstance(node, dict) and node.get("_") == "Attribute":
            return getattr(self._value(node["value"]), node["attr"], None)
        return None


def _argument(call: Json, position: int, name: str) -> Json:
    """Return an argument of a call, by its position or its name; None if it cannot be told."""
    given = call.get("args", [])
    if any(each.get("_") == "Starred" for each in given):
        return None
    if position < len(given):
        return given[position]
    return next((each["value"] for each in call.get("keywords", []) if each.get("arg") == name), None)
