"""The steps of a program as a graph: where each may lead, and how many loops are around it."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.processor.language.trees import Json


def ways(steps: Sequence[Json]) -> list[set[int]]:
    """Return for each step those that may come next, by an exception too.

    Where a ``finally`` clause goes on is known only when it ends; here it may be behind any of its entrances.
    """
    behind: dict[str, set[int]] = {}
    for number, step in enumerate(steps):
        if step["op"] == "leave":
            behind.setdefault(step["pending"], set()).add(number + 1)
    found = []
    for number, step in enumerate(steps):
        match step["op"]:
            case "run":
                following = set(step["to"])
            case "next":
                following = {number + 1, step["done"]}
            case "jump" | "leave":
                following = {step["to"]}
            case "resume":
                following = set(behind.get(step["pending"], ()))
            case "await" | "unbind":
                following = {number + 1}
            case _:
                following = set()
        if "catch" in step:
            following.add(step["catch"][1])
        found.append(following)
    return found


def loop_depths(steps: Sequence[Json]) -> list[int]:
    """Return for each step how many loops are around it, ``for`` and ``while`` alike."""
    edges = ways(steps)
    depths = [0] * len(steps)
    waiting = [set(range(len(steps)))]
    while waiting:
        for loop in _circles(waiting.pop(), edges):
            for number in loop:
                depths[number] += 1
            # A loop is entered at its first step; what is a circle without that is a loop inside.
            waiting.append(loop - {min(loop)})
    return depths


def _circles(within: set[int], edges: Sequence[set[int]]) -> list[set[int]]:
    """Return the strongly connected parts of a part of the graph that go round."""
    order: list[int] = []
    seen: set[int] = set()
    for start in within:
        if start in seen:
            continue
        seen.add(start)
        path = [(start, iter(edges[start] & within))]
        while path:
            number, following = path[-1]
            for each in following:
                if each not in seen:
                    seen.add(each)
                    path.append((each, iter(edges[each] & within)))
                    break
            else:
                order.append(number)
                path.pop()
    back: dict[int, set[int]] = {number: set() for number in within}
    for number in within:
        for each in edges[number] & within:
            back[each].add(number)
    found, placed = [], set[int]()
    for root in reversed(order):
        if root in placed:
            continue
        part, waiting = {root}, [root]
        placed.add(root)
        while waiting:
            for each in back[waiting.pop()] - placed:
                placed.add(each)
                part.add(each)
                waiting.append(each)
        if len(part) > 1 or root in edges[root]:
            found.append(part)
    return found
