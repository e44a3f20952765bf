"""Awaits inside loops."""

# These functions show what users may write, right or wrong, not how this project writes.
# mypy: ignore-errors
# ruff: noqa: PLC0208
from typing import Any

from tests.support.twin import act, note
from tests.unit.language.corpus import case


@case({"x": [1, 2, 3, 4, 5]}, {"x": []}, {"x": (7, 8)})
async def for_else(x: Any) -> Any:
    done = []
    for i in x:
        if i == 2:
            continue
        done.append(await act(i))
        if i == 4:
            break
    else:
        note("else")
        await act("else")
    return done


@case({"x": [1, 2, 3]})
async def list_grows_and_shrinks(x: Any) -> Any:
    seen = []
    for i in x:
        seen.append(i)
        if await act(i) and len(x) < 5:
            x.append(i * 10)
        if i == 20:
            x.pop()
            x.insert(0, "front")
    return seen


@case({"n": 3})
async def ranges(n: Any) -> Any:
    total = 0
    for i in range(n):
        for j in range(i, -1, -1):
            if j == 1:
                continue
            total += await act(i, j)
            if total > 12:
                break
        else:
            total += 100
    for huge in range(10**30, 10**30 + 2):
        await act(huge)
    return total, i, j


@case({"d": {"a": 1, "b": 2}, "s": "xyz"})
async def other_iterables(d: Any, s: Any) -> Any:
    for k, v in d.items():
        note((k, await act(v)))
    for k in d:
        await act(k)
    for c in s:
        await act(c)
    for n in {5}:
        await act(n)
    for pair in zip(s, [1, 2], strict=False):
        await act(pair)
    for square in (i * i for i in range(2)):
        await act(square)
    for i, c in enumerate(await act("each") and s):
        await act(i, c)


@case({"x": 5}, {"x": None})
async def not_iterable(x: Any) -> Any:
    for i in x:
        await act(i)


@case({"n": 4})
async def while_loops(n: Any) -> Any:
    while n > 0:
        n -= 1
        if n == 2:
            continue
        if await act(n) == "stop":
            break
    else:
        note("done")
    while await act("again") == 5 and n < 9:
        n += 1
    while True:
        n += await act("up") or 1
        if n > 3:
            break
    return n


@case({"rows": [[1, 2], [3], []]})
async def nested_loops(rows: Any) -> Any:
    out = []
    for row in rows:
        for cell in row:
            if cell == 2:
                break
            out.append((await act(cell), row is rows[0]))
        else:
            continue
        out.append("broke")
    return out


@case()
async def loop_variable_stays() -> Any:
    for i in []:
        await act(i)
    try:
        return i
    except UnboundLocalError as error:
        note(str(error))
    for i in range(2):
        await act(i)
    del i
    for i in (1,):
        await act(i)
    return i
