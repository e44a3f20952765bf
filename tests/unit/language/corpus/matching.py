"""Awaits in ``match`` statements."""

# These functions show what users may write, right or wrong, not how this project writes.
# mypy: ignore-errors
from typing import Any

from tests.support.twin import act, note
from tests.unit.language.corpus import Box, case, config


@case(
    {"x": 1},
    {"x": [1, 2, 3]},
    {"x": {"k": 5, "z": 6}},
    {"x": Box(3, 4)},
    {"x": "text"},
    {"x": None},
    {"x": (0,)},
)
async def matches(x: Any) -> Any:
    match x:
        case 1 | 2:
            r = await act("int")
        case [first, *rest] if rest:
            r = await act(first, rest)
        case {"k": k, **others} if await act(k) is not None:
            r = others
        case Box(value=v, other=4 as o) if await act(v) != 99:
            r = await act(v, o)
        case None:
            r = note("none")
        case [only] if await act(only) == "no":
            r = "only"
        case config.limit:
            r = "limit"
        case other:
            r = await act(other)
    return r


@case({"x": 1}, {"x": 2}, {"x": 3})
async def match_awaited(x: Any) -> Any:
    for i in range(3):
        match await act(x), i:
            case 0, 0:
                continue
            case _, 2:
                break
            case (a, b) if a == b:
                note((a, b))
    match x:
        case 1 if await act("guard"):
            return await act("one")
        case 2 if not await act("guard"):
            return "two"
        case 2:
            return await act("still two")
    return "none"
