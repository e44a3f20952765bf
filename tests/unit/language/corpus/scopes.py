"""Names, nested functions, aliases, and code without awaits beside code with them."""

# These functions show what users may write, right or wrong, not how this project writes.
# mypy: ignore-errors
# ruff: noqa: ASYNC230, B018, C416, F821, F841, ISC001, ISC004, PLC0415, PTH123, RUF012
from typing import Any

from tests.support.twin import act, note
from tests.unit.language.corpus import Box, Counted, boom, case


@case({"items": [3, 1, 2]})
async def native_pieces(items: Any) -> Any:
    factor = 2

    def double(value: Any) -> Any:
        return value * factor

    doubled = [double(i) for i in items]
    items.sort(key=lambda i: -i * factor)
    await act(doubled)
    total = sum(i for i in items if i > 1)
    pairs = {i: j for i, j in zip(items, doubled, strict=True)}
    await act(pairs)
    with_walrus = [last := i for i in items]
    await act(last)
    import math

    class Local:
        scale = factor
        values = [i for i in range(3)]

        def area(self) -> Any:
            return math.floor(self.scale * factor)

        __private = 1

    area = Local().area(), Local._Local__private
    await act(area)
    with open(__file__) as handle:
        line = handle.readline()
        if not line:
            return "empty"
    del handle
    return math.pi, total, [i for i in range(2)], area


@case({"x": 1})
async def comprehension_scope(x: Any) -> Any:
    i = "outer"
    a = [i for i in range(3)]
    await act(i)
    b = [x for _ in range(2)]
    del x
    await act(1)
    try:
        [x for _ in range(1)]
    except NameError:
        note("gone")
    return i, a, b


@case({"x": 1})
async def deletes(x: Any) -> Any:
    y = [x]
    del x, y[0]
    await act(y)
    try:
        x
    except UnboundLocalError as error:
        note(str(error))
    x = await act(2)
    del x
    try:
        del x
    except UnboundLocalError as error:
        note(str(error))
    await act(3)
    return y


@case({"fancy": True}, {"fancy": False})
async def function_used_up(fancy: Any) -> Any:
    out = []
    for i in range(2):
        key = (lambda v: -v) if fancy else abs
        out.append(sorted([1, 2, 3], key=key))
        await act(i)
    return out


@case({"x": 1})
async def with_statement(x: Any) -> Any:
    import contextlib

    for i in range(3):
        with contextlib.suppress(Counted):
            if i == 1:
                continue
            boom()
        await act(i)
        with contextlib.nullcontext(i) as value:
            if value == 2:
                break
    with contextlib.nullcontext(await act("name")) as name:
        note(name)
    try:
        with contextlib.suppress(KeyError):
            return {}["missing"], note("no")
    finally:
        await act("finally")
    return "suppressed"


@case({"items": [[1], [2]]})
async def aliases(items: Any) -> Any:
    first = items[0]
    box = Box(items, first)
    box.value.append(box.other)
    for item in items:
        item.append(await act(item))
        box.value[0].append("x")
    loop = []
    loop.append(loop)
    await act("cycle")
    first.append(len(loop))
    return first is items[0] is box.other, loop[0] is loop


@case({"a": 1, "b": 2, "c": 3})
async def keyword_only(a: Any, *, b: Any = 2, c: Any = None) -> Any:
    return a, b, await act(c)


@case()
async def awaiting_nonsense() -> Any:
    try:
        await act(1)
        await 5
    except TypeError as error:
        note(error.args)
    try:
        await None
    except TypeError as error:
        note(error.args)
        await "text"


@case()
async def constants() -> Any:
    values = repr([1 << 70, -0.0, 1e999, 2.5j, b"\x00\xff", "\ud800 \0 é", ..., True, None, "a" "b"])  # fmt: skip
    return values, await act(1), 0.1 + 0.2


@case({"x": 0}, {"x": 1})
async def unreachable(x: Any) -> Any:
    while True:
        if x:
            return await act(1)
        x += 1
        continue
        await act("never")
    return "never"


@case()
async def jumps_only() -> Any:
    for i in range(3):
        if i == 5:
            await act("never")
        elif i == 1:
            pass
        else:
            continue
    if False:
        await act("never")
    else:
        pass
    while False:
        await act("never")
    return i
