"""Awaits inside expressions and assignments."""

# These functions show what users may write, right or wrong, not how this project writes.
# mypy: ignore-errors
# ruff: noqa: B007, E741, F821, F841, F842, ISC001, PIE800, PIE804, RUF005, RUF059, UP031
from typing import Any

from tests.support.twin import act, note
from tests.unit.language.corpus import LIMIT, Box, Truth, case, config


@case()
async def plain() -> Any:
    return await act(1)


@case()
async def no_await() -> Any:
    """Say nothing to anyone."""
    return note(3)


@case({"x": 1})
async def docstring_only(x: Any) -> Any:
    """Do nothing at all."""


@case({"x": 2})
async def nested_calls(x: Any) -> Any:
    return note(await act(await act(x, await act(x + 1)), k=await act("k")))


@case({"x": 2})
async def arithmetic(x: Any) -> Any:
    y = x + await act(1) * (await act(2) - x) // 1
    z = -(await act(3)) + (~x)
    return [y, z, x**2 if y else None]


@case({"x": 1}, {"x": 0})
async def short_circuit(x: Any) -> Any:
    a = x and await act("a")
    b = x or await act("b")
    c = x and await act("c1") and x - 1 and await act("c2")
    d = (x or await act("d1")) and (await act("d2") or 5)
    e = not (x and await act("e"))
    return a, b, c, d, e


@case({"x": 1}, {"x": 0})
async def conditional(x: Any) -> Any:
    a = await act("yes") if x else await act("no")
    b = 5 if await act(x) else await act("else")
    c = (await act("c1") if x else 0) if await act("c2") else note("c3")
    return [a, b, c]


@case({"a": 1, "b": 2}, {"a": 5, "b": 2})
async def chained_comparison(a: Any, b: Any) -> Any:
    first = a < b < await act(1)
    second = a < await act(2) < b < await act(3)
    third = await act(4) < a <= b
    fourth = a in [await act(5), b]
    if a < await act(6) < b + 10 < await act(7):
        note("all")
    else:
        note("not all")
    if not a < b < await act(8):
        note("not")
    return first, second, third, fourth


@case({"x": "v"})
async def formatted(x: Any) -> Any:
    width = 8
    one = f"{x!r:>{width}} {await act(1)} {await act(2):>{await act(3)}} {x}"
    two = f"{await act(4)=}" "tail" f"{x=} {{braces}}"  # fmt: skip
    three = "%s %s" % (x, await act(5))
    return one, two, three


@case({"x": [1, 2], "k": {"p": 1}})
async def calls(x: Any, k: Any) -> Any:
    a = note(*x) if len(x) == 1 else await act(*x, await act(1), *x, **k)
    b = dict(a=1, b=await act(2), **k)
    c = max(*x, await act(3), *[4, 5])
    d = max(*[await act(4), 2], 3)
    e = dict(**{"z": await act(5)})
    x.append(await act(6))
    x.extend([await act(7), await act(8)])
    return b, c, d, e, a


@case({"x": [1, 2], "k": {"p": 1}})
async def displays(x: Any, k: Any) -> Any:
    a = [1, *x, await act(1), *x]
    b = (x, await act(2), [x, await act(3)])
    c = {*x, await act(4)}
    d = {"a": 1, **k, "b": await act(5), **{"c": await act(6)}, await act(7): x}
    e = {**k, "last": await act(8)}
    f = {**(await act(9) and k)}
    return a, b, c, d, e, f


@case({"x": [1, 2, 3, 4]})
async def subscripts(x: Any) -> Any:
    a = x[await act(0) and 1]
    b = x[0 : (await act(1)) + 1]
    c = x[: await act(2) : 1]
    d = [x, x][(await act(3)) - 3][0]
    x[await act(4) and 0] = "set"
    x[1:2] = [await act(5), 6]
    del x[await act(6) and 0]
    return a, b, c, d


@case({"x": 3})
async def walrus(x: Any) -> Any:
    if (y := await act(1)) and (z := x):
        note((y, z))
    a = x + await act(x := 5) + x
    b = (w := 7) + await act(2)
    c = [x, (x := await act(3)), x, await act(4), x]
    d = [v for n in range(3) if (v := n)]
    return a, b, c, d


@case({"box": Box(1, [1])})
async def attributes(box: Any) -> Any:
    box.value = await act(1)
    box.other.append(await act(2))
    box.value, box.other = box.other, await act(3)
    a = box.value + [await act(4)]
    box.value.append(await act(5))
    return a, box.value is not a


@case({"box": Box(1, 2), "d": {"k": 1}})
async def augmented(box: Any, d: Any) -> Any:
    x = 1
    x += await act(1)
    x += await act(x := 50)
    box.value += await act(2)
    d["k"] += await act(3)
    d["k"] -= box.value * await act(4)
    items = same = []
    items += [await act(5)]
    box.other = items
    box.other += [await act(6)]
    d[await act(7)] = 0
    d["l"] = [0, 1]
    d["l"][await act(8) and 0] += 1
    d["l"][await act(9) and 1] += await act(10)
    d["l"][0:1] += [await act(11)]
    return x, same


@case({"x": [1, 2, 3]})
async def unpacking(x: Any) -> Any:
    a, b = await act(1), x
    (c, *d), e = x, await act(2)
    f = g = await act(3)
    h, x[await act(4) and 0], *i = [1, 2, 3, 4]
    [j, (k, x[await act(5) and 1])] = 1, (2, 3)
    l, m = await act(6)
    return a


@case({"x": [1, 2, 3]})
async def targets(x: Any) -> Any:
    box = Box()
    for box.value in x:
        note(await act(box.value))
    for x[await act("i") and 0], y in [(1, 2), (3, 4)]:
        note(x[0])
    for i, *rest in [(1, 2, 3), (4,)]:
        await act(rest)
    return i


@case()
async def annotated() -> Any:
    x: int = await act(1)
    y: undefined_name
    box = Box()
    box.value: int = await act(2)
    return x, box


@case({"kind": "a"})
async def global_callee(kind: Any) -> Any:
    a = config.deep.double(await act(1))
    b = config.limit + await act(2)
    c = LIMIT + await act(3)
    d = isinstance(await act(4), int)
    e = str.format("{} {}", kind, await act(5))
    return a, b, c, d, e


@case({"x": None})
async def order_of_errors(x: Any) -> Any:
    try:
        missing_function(await act(1))
    except NameError as error:
        note(str(error))
    try:
        x.missing(await act(2))
    except AttributeError as error:
        note(str(error))
    try:
        return [x, unbound, await act(3)]
    except UnboundLocalError as error:
        note(str(error))
    try:
        unbound += await act(4)
    except UnboundLocalError as error:
        note(str(error))
    try:
        return [*x, await act(5)]
    except TypeError as error:
        note(str(error))
    try:
        return {**x, "a": await act(6)}
    except TypeError as error:
        note(str(error))
    try:
        note(*x, await act(7))
    except TypeError as error:
        note(str(error))
    if not x:
        unbound = await act(8)
    return unbound


@case({"x": 0}, {"x": 1})
async def truth_is_asked_once(x: Any) -> Any:
    a = 1 if Truth(x) and await act(1) else 2
    if Truth(x) or await act(2):
        note("if")
    while not Truth(x) and await act(3):
        note("while")
        break
    b = bool(Truth(x) and Truth(await act(4)) and Truth(2))
    c = Truth(x) or await act(5)
    c = bool(c)
    return a, b, c
