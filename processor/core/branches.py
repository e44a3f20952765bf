"""Which conditions have been decided, and how, on the way to each step of a program.

A step hangs on a branch if one way out of it surely leads to the step, and another way need not: an ``if`` around it, a
``while``, a ``case``, an ``except`` clause, and a ``return`` or ``break`` before it. What is decided by later steps, in
the last round of a loop, does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.processor.core.control_flow import ways
from holdfast.processor.core.expressions import Expressions, Place
from holdfast.processor.language.program import Program
from holdfast.processor.language.trees import Json


def decisions(program: Program, expressions: Expressions) -> list[frozenset[str]]:
    """Return for each step the conditions it hangs on, each in words that say how it was decided."""
    steps = program.steps
    edges = ways(steps)
    ways_out: dict[int, dict[int, int]] = {}
    exits: dict[int, list[tuple[int, tuple[str, ...]]]] = {}
    for number, step in enumerate(steps):
        if step["op"] != "run":
            continue
        body = program.blocks[step["block"]]["body"]
        # Its first way out is that through its end.
        ways_out[number] = {index: to for index, to in enumerate(step["to"]) if index or not _ends(body)}
        if step["to"][0] not in ways_out[number].values():
            edges[number].discard(step["to"][0])
        if len(step["to"]) > 1:
            exits[number] = [
                out for place, it in enumerate(body) for out in _exits([it], (number, place), (), expressions)
            ]
    sure = _sure(steps, edges)
    forks = [number for number, following in enumerate(edges) if len(following) > 1]
    found: list[frozenset[str]] = []
    for number in range(len(steps)):
        decided = set[str]()
        for fork in forks:
            if fork >= number:
                break
            leading = {each for each in edges[fork] if sure[each] >> number & 1}
            if not leading or leading == edges[fork]:
                continue
            decided |= found[fork]
            taken = {index for index, to in ways_out.get(fork, {}).items() if to in leading}
            for index, conditions in exits.get(fork, ()) if taken else ():
                if taken == {index}:
                    decided.add(" and ".join(conditions))
                elif index not in taken:
                    decided.add(_opposite(conditions))
        found.append(frozenset(decided))
    return found


def _sure(steps: Sequence[Json], edges: Sequence[set[int]]) -> list[int]:
    """Return for each step, as a set of bits, the steps that surely come, itself among them."""
    end = len(steps)
    onward = [{*following, *([end] if steps[n]["op"] == "return" else [])} for n, following in enumerate(edges)]
    ending = _leading_to(end, onward)
    for number, following in enumerate(edges):
        # A loop without an end has one, for this purpose, wherever it goes round.
        if number not in ending and any(each <= number for each in following):
            onward[number].add(end)
    everything = (1 << end + 1) - 1
    sure = [everything] * end + [1 << end]
    reached = [1 << number for number in range(end + 1)]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(end)):
            both, either = everything, 0
            for each in onward[number]:
                both &= sure[each]
                either |= reached[each]
            both, either = both | 1 << number, either | 1 << number
            if (both, either) != (sure[number], reached[number]):
                sure[number], reached[number] = both, either
                changed = True
    return [one & other for one, other in zip(sure, reached, strict=True)]


def _leading_to(goal: int, edges: Sequence[set[int]]) -> set[int]:
    found, changed = {goal}, True
    while changed:
        more = {number for number, following in enumerate(edges) if number not in found and following & found}
        changed = bool(more)
        found |= more
    return found


def _ends(body: Sequence[Json]) -> bool:
    """Whether no way leads through statements to their end."""
    last: Json = body[-1] if body else {"_": "Pass"}
    match last["_"]:
        case "Return" | "Raise":
            return True
        case "If":
            return _ends(last["body"]) and _ends(last.get("orelse", ()))
        case "Try":
            return _ends(last["body"]) and all(_ends(each["body"]) for each in last.get("handlers", ()))
    return False


def _exits(
    body: Sequence[Json], place: Place, around: tuple[str, ...], expressions: Expressions
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the ways out of a block that stand in statements, each with the number of its exit and its conditions."""
    for node in body:
        inside: list[tuple[Sequence[Json], tuple[str, ...]]] = []
        match node["_"]:
            case "Return":
                yield int(node["value"]["value"]["int"], 16), around
            case "If":
                test = expressions.text(node["test"], place)
                inside = [(node["body"], (f"if {test}",)), (node.get("orelse", ()), (f"unless {test}",))]
            case "Match":
                subject = expressions.text(node["subject"], place)
                for case in node["cases"]:
                    guard = f" if {expressions.text(case['guard'], place)}" if "guard" in case else ""
                    pattern = expressions.text(case["pattern"], place)
                    inside.append((case["body"], (f"match {subject} case {pattern}{guard}",)))
            case "Try":
                inside = [(node[name], ()) for name in ("body", "orelse", "finalbody") if name in node]
                for handler in node.get("handlers", ()):
                    kind = f" {expressions.text(handler['type'], place)}" if "type" in handler else ""
                    inside.append((handler["body"], (f"except{kind}",)))
            case "For" | "While":
                head = expressions.text(node.get("iter", node.get("test")), place)
                inside = [(node["body"], (f"{node['_'].lower()} {head}",)), (node.get("orelse", ()), ())]
            case "With":
                inside = [(node["body"], ())]
        for part, more in inside:
            yield from _exits(part, place, (*around, *more), expressions)


def _opposite(conditions: tuple[str, ...]) -> str:
    if len(conditions) == 1:
        word, _, test = conditions[0].partition(" ")
        if word in _OPPOSITES:
            return f"{_OPPOSITES[word]} {test}"
    return f"not ({' and '.join(conditions)})"


_OPPOSITES = {"if": "unless", "unless": "if"}
