"""Workflow functions that between them use every part of the language around awaits.

They stand in a module of their own, since pytest rewrites the ``assert`` statements of test modules. Each is run with
every one of its arguments, once with all awaits answered, and once for each await with that one failing.
"""

# These functions show what users may write, not how this project writes.
# ruff: noqa: ASYNC230, B007, B012, B018, B030, B904, BLE001, C416, E741, F821, F841, F842, ISC001, ISC004, N801
# ruff: noqa: PIE800, PIE804, PLC0208, PLC0415, PLE0704, PT018, PTH123, RUF005, RUF012, RUF059, TRY301, UP031

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.twin import act, note

CASES: list[tuple[Callable[..., Any], list[dict[str, Any]]]] = []


def case(*arguments: dict[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append((function, list(arguments) or [{}]))
        return function

    return register


@dataclass
class Box:
    value: Any = None
    other: Any = None


@dataclass
class Truth:
    value: Any

    def __bool__(self) -> bool:
        note(f"bool {self.value}")
        return bool(self.value)


class Counted(Exception):
    pass


LIMIT = 10


class config:
    limit = 3

    class deep:
        double = staticmethod(lambda value: value * 2)


def boom(*args: Any) -> Any:
    raise Counted(*args)


# Expressions


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


# Loops


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


# Exceptions


@case({"x": 1}, {"x": 0})
async def caught(x: Any) -> Any:
    try:
        y = await act(1) / x
    except (ZeroDivisionError, ValueError) as error:
        note(type(error).__name__)
        y = await act(str(error))
    except KeyError:
        y = await act("key")
        raise
    else:
        y += await act("else")
    try:
        error
    except UnboundLocalError as unbound:
        note(str(unbound))
    return y


@case({"x": 1}, {"x": 0})
async def finals(x: Any) -> Any:
    try:
        try:
            note(await act(1))
            if not x:
                raise Counted("x")
        finally:
            await act("inner finally")
            note("inner done")
    except Counted as error:
        await act(error.args)
        return "counted"
    finally:
        await act("outer finally")
    return "end"


@case({"way": "return"}, {"way": "break"}, {"way": "continue"}, {"way": "raise"}, {"way": "fall"})
async def ways_through_finally(way: Any) -> Any:
    log = []
    for i in range(2):
        try:
            try:
                log.append(await act(i))
                if way == "return":
                    return log
                if way == "break":
                    break
                if way == "continue":
                    continue
                if way == "raise":
                    raise Counted(way)
            finally:
                log.append("inner")
                await act("inner")
        except Counted as error:
            log.append(await act("handled"))
            if i:
                raise KeyError("again") from error
        finally:
            log.append("outer")
            await act("outer")
    else:
        log.append("else")
    log.append("end")
    return log


@case({"way": "return"}, {"way": "break"}, {"way": "continue"}, {"way": "raise"}, {"way": "fall"})
async def finally_overrides(way: Any) -> Any:
    i = 0
    while i < 3:
        i += 1
        try:
            await act(i)
            if i == 2:
                return "tried"
            raise Counted(i)
        finally:
            await act("finally")
            if way == "return":
                return "final"
            if way == "break":
                break
            if way == "continue":
                continue
            if way == "raise":
                raise KeyError(i)
    return i


@case({"deep": True}, {"deep": False})
async def abandoned_return(deep: Any) -> Any:
    try:
        return await act("first")
    finally:
        while True:
            try:
                if deep:
                    return await act("second")
                break
            finally:
                await act("give up")
                break
        note("left")


@case({"x": 1})
async def chains(x: Any) -> Any:
    try:
        try:
            raise Counted("one")
        except Counted:
            await act(1)
            try:
                boom("two")
            except Counted as second:
                await act(2)
                raise KeyError("three") from ValueError("cause")
            finally:
                await act(3)
    except KeyError as third:
        await act(third.__context__.args)
        try:
            raise RuntimeError("four") from None
        except RuntimeError as fourth:
            await act(4)
            kept = fourth
    try:
        raise kept
    except RuntimeError:
        await act(5)
        boom("six", kept)


@case()
async def bare_raise() -> Any:
    try:
        boom("a")
    except Counted:
        try:
            await act(1)
            boom("b")
        except Counted:
            await act(2)
        try:
            raise
        except Counted as error:
            note(error.args)
            await act(3)
        await act(4)
        raise


@case()
async def nothing_to_reraise() -> Any:
    await act(1)
    try:
        raise
    except RuntimeError as error:
        note(str(error))
        await act(2)
    raise


@case()
async def handled_exception_is_seen() -> Any:
    import sys

    seen = [sys.exc_info()[1]]
    try:
        boom(1)
    except Counted:
        await act(1)
        seen.append(sys.exc_info()[1])
        try:
            boom(2)
        except Counted:
            await act(2)
            seen.append(sys.exc_info()[1])
        seen.append(sys.exc_info()[1])
        await act(3)
        seen.append(sys.exc_info()[1])
    seen.append(sys.exc_info()[1])
    await act(4)
    seen.append(sys.exc_info()[1])
    try:
        await act(5)
    finally:
        seen.append(sys.exc_info()[1])
        await act(6)
        note([repr(error) for error in seen])
    del sys
    return [repr(error) for error in seen]


@case()
async def error_kept() -> Any:
    errors = []
    for i in range(3):
        try:
            if i:
                boom(i)
            errors.append(await act(i))
        except Counted as error:
            error.add_note(f"note {i}")
            errors.append(error)
            await act("kept")
            errors.append(error)
    first = errors[1]
    await act(len(errors))
    return errors, first is errors[2]


@case()
async def rebinding_the_name() -> Any:
    error = "before"
    try:
        boom()
    except Counted as error:
        await act(1)
        error = "rebound"
        await act(2)
    try:
        note(error)
    except UnboundLocalError as gone:
        note(str(gone))
    try:
        boom()
    except Counted as error:
        await act(3)
        del error
        await act(4)
    for i in range(2):
        try:
            boom()
        except Counted as error:
            await act(5)
            if i:
                break
            continue
    return "error" in dir(error) if i > 5 else None


@case()
async def handler_raises() -> Any:
    try:
        try:
            await act(1)
            boom()
        except await_free_error() if False else Counted as error:
            await act(2)
            missing_name
        else:
            await act("else")
    except NameError as error:
        await act(str(error))
        return str(error.__context__)


@case()
async def clause_is_no_class() -> Any:
    try:
        await act(1)
        boom()
    except "text":
        await act(2)


@case()
async def clause_raises() -> Any:
    try:
        await act(1)
        boom("first")
    except note(undefined_error):
        await act(2)
    except Counted:
        await act(3)


@case()
async def same_error_again() -> Any:
    error = Counted("only one")
    try:
        raise error
    except Counted:
        await act(1)
        try:
            raise error
        except Counted:
            await act(2)
            raise error


@case({"x": 0}, {"x": 1})
async def return_in_try(x: Any) -> Any:
    value = [1]
    try:
        if x:
            return value
        await act(1)
    except Counted:
        return "never"
    else:
        return await act("else")
    finally:
        value.append(await act("finally"))


@case()
async def base_exceptions() -> Any:
    try:
        await act(1)
        raise KeyboardInterrupt("stop")
    except Exception:
        await act("not here")
    finally:
        await act("finally")


@case()
async def stop_iteration() -> Any:
    await act(1)
    next(iter([]))


@case({"x": 0}, {"x": 1})
async def raises(x: Any) -> Any:
    if x:
        raise Counted(await act(1))
    raise Counted from await act(2) or None


@case()
async def raise_from_awaited() -> Any:
    error, cause = Counted("e"), KeyError("c")
    raise error from (await act(1) or cause)


@case({"x": 0}, {"x": 1})
async def asserts(x: Any) -> Any:
    assert await act(1) == 0, "message"
    try:
        assert x and await act(2), f"{x} {await act(3)}"
    except AssertionError as error:
        note(error.args)
    try:
        assert x, await act(4)
    except AssertionError as error:
        note(error.args)
    assert not x


@case({"x": 5})
async def block_gives_back_when_it_raises(x: Any) -> Any:
    try:
        a = note(1)
        del x
        b = boom()
        c = 1
    except Counted:
        await act(a)
    try:
        note(x)
    except UnboundLocalError as error:
        note(str(error))
    try:
        return b, c
    except UnboundLocalError as error:
        return str(error)


@case({"x": 1}, {"x": 2})
async def try_in_loop_in_try(x: Any) -> Any:
    out = []
    try:
        for i in range(4):
            try:
                out.append(await act(i))
                if i == x:
                    raise Counted(i)
            except Counted as error:
                out.append(error.args)
                if await act("stop?") == x:
                    break
            finally:
                out.append(await act("f"))
    finally:
        out.append(await act("end"))
    return out


@case({"group": True}, {"group": False})
async def exception_groups(group: Any) -> Any:
    await act(1)
    try:
        if group:
            raise ExceptionGroup("many", [ValueError(1), KeyError(2)])
        raise ValueError(3)
    except* ValueError as errors:
        note(errors.exceptions)
    except* KeyError:
        note("key")
    return await act(2)


# Matching


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


# Scopes


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
