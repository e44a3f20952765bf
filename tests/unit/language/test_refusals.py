"""What cannot become a program is refused when it is compiled, with file, line and what to write instead."""

import linecache
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from holdfast.processor.language.compiler import compile_workflow
from holdfast.schemas.errors import CompileError
from tests.support.twin import act, note


def define(source: str, **names: Any) -> Callable[..., Any]:
    """Make the function ``w`` of a source that has no file, as an interactive session does."""
    file = f"<refused {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = {"__name__": "refused", "act": act, "note": note, **names}
    exec(compile(source, file, "exec"), namespace)  # noqa: S102 - the sources stand below
    function: Callable[..., Any] = namespace["w"]
    return function


# ruff: noqa: E501 - one function a line is what makes the table readable

REFUSED = [
    ("async def w(x):\n    yield await act(1)", 1, "async generator", "yield"),
    ("async def w(x):\n    async for i in x:\n        pass", 2, "async for", "activity"),
    ("async def w(x):\n    async with x:\n        await act(1)", 2, "async with", "activity"),
    ("async def w(x):\n    with x:\n        note(1)\n        await act(1)", 2, "with block", "activity"),
    ("async def w(x):\n    with x as a, await act(1) as b:\n        note(1)", 2, "first context", "name first"),
    ("async def w(x):\n    global y\n    y = await act(1)", 2, "global", "variable"),
    ("async def w(x):\n    def f():\n        global y\n        y = 1\n    f()", 3, "global", "variable"),
    ("async def w(x):\n    def f():\n        nonlocal x\n        x = 1\n    f()", 3, "nonlocal", "Return"),
    ("async def w(x):\n    return [await act(i) for i in x]", 2, "comprehension", "for loop"),
    ("async def w(x):\n    return [i for i in await act(x)]", 2, "comprehension", "for loop"),
    ("async def w(x):\n    return {i: i async for i in x}", 2, "comprehension", "for loop"),
    ("async def w(x):\n    note(1)\n    return sum(await act(i) for i in x)", 3, "comprehension", "for loop"),
    ("async def w(x):\n    async def f():\n        await act(1)", 2, "nested async", "activity"),
    ("async def w(x):\n    def f(y=await act(1)):\n        return y\n    f()", 2, "nested", "name first"),
    ("async def w(x):\n    @(await act(1))\n    def f():\n        return 1\n    f()", 3, "nested", "name first"),
    ("async def w(x):\n    return (lambda y=await act(1): y)()", 2, "nested", "name first"),
    ("async def w(x):\n    return note(1) + await act(2)", 2, "side effects", "name first"),
    ("async def w(x):\n    return [note(1), await act(2)]", 2, "side effects", "name first"),
    ("async def w(x):\n    x[note(1)] += await act(2)", 2, "side effects", "name first"),
    ("async def w(x):\n    return note(1) < await act(2)", 2, "side effects", "name first"),
    ("async def w(x):\n    return f'{note(1)} {await act(2)}'", 2, "side effects", "name first"),
    ("async def w(x):\n    return note(note(await act(1)), await act(2))", 2, "side effects", "name first"),
    ("async def w(x):\n    x[await act(1)] = note(2)", 2, "side effects", "name first"),
    ("async def w(x):\n    x().append(await act(1))", 2, "side effects", "name first"),
    ("async def w(x):\n    x[0](await act(1))", 2, "called", "name first"),
    ("async def w(x):\n    note(lambda: x, await act(1))", 2, "function", "name first"),
    ("async def w(x):\n    act(**x, y=await act(1))", 2, "\\*\\*", "name first"),
    (
        "async def w(x):\n    try:\n        note(1)\n    except* ValueError:\n        await act(1)",
        2,
        "except\\*",
        "except",
    ),
    ("async def w(x):\n    try:\n        note(1)\n    except (await act(1)):\n        pass", 4, "except", "name first"),
    ("async def w(x):\n    y: await act(1) = 2", 2, "annotation", "name first"),
    ("async def w(x):\n    del (x[await act(1)], x[0])", 2, "del", "one del"),
    ("async def w(x):\n    f = lambda: x\n    await act(1)\n    f()", 2, "'f'", "top level"),
    ("async def w(x):\n    def f():\n        return x\n    await act(1)\n    f()", 2, "'f'", "top level"),
    ("async def w(x):\n    class C:\n        pass\n    await act(1)\n    return C", 2, "'C'", "top level"),
    ("async def w(x):\n    g = (i for i in x)\n    await act(1)\n    return list(g)", 2, "'g'", "top level"),
    ("async def w(x):\n    t = {1: lambda: x}\n    if x:\n        await act(1)\n    t[1]()", 2, "'t'", "top level"),
    (
        "async def w(x):\n    def f():\n        return x\n    while x:\n        f()\n        await act(1)\n",
        2,
        "'f'",
        "top level",
    ),
    ("async def w(x):\n    await act(1)\n    return locals()", 3, "locals", "Name the variables"),
    ("async def w(x):\n    await act(1)\n    return eval('x')", 3, "eval", "Name the variables"),
    ("def w(x):\n    return 1", 1, "not an async def", "async def"),
    ("class K:\n    async def w(self):\n        await act(1)\nw = K.w", 2, "method", "top level"),
    (
        "def make(y):\n    async def w(x):\n        return y\n    return w\nw = make(1)",
        2,
        "around it \\(y\\)",
        "top level",
    ),
]


@pytest.mark.parametrize(("source", "line", "what", "mend"), REFUSED)
def test_refused_with_place_and_mend(source: str, line: int, what: str, mend: str) -> None:
    function = define(source)
    with pytest.raises(CompileError, match=what) as caught:
        compile_workflow(function, name="w")
    assert caught.value.line == line
    assert caught.value.file == function.__code__.co_filename
    assert mend in caught.value.mend
    assert caught.value.mend.endswith(".")


def test_code_without_source_is_refused() -> None:
    namespace: dict[str, Any] = {}
    exec("async def w():\n    pass", namespace)  # noqa: S102 - this is how a function comes to have no source
    with pytest.raises(CompileError, match="source of w is not available"):
        compile_workflow(namespace["w"], name="w")


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(CompileError, match="is not a function"):
        compile_workflow(print, name="print")


DEEP = [
    "async def w(x):\n    await act(1)\n    return " + " + ".join(["x"] * 260),
    "async def w(x):\n    await act(1)\n    return " + " + ".join(["x"] * 700),
    "async def w(x):\n    await act(1)\n    if x: pass\n" + "    elif x: pass\n" * 130,
]


@pytest.mark.parametrize("source", DEEP)
def test_what_is_nested_too_deeply_to_be_stored_is_refused(source: str) -> None:
    with pytest.raises(CompileError, match="nested too deeply"):
        compile_workflow(define(source), name="w")


def test_deep_nesting_that_can_be_stored_is_accepted() -> None:
    source = "async def w(x):\n    await act(1)\n    return " + " + ".join(["x"] * 200)
    orjson.dumps({"in": [compile_workflow(define(source), name="w").to_json()]})


ACCEPTED = [
    "async def w(x):\n    def f():\n        yield x\n    r = list(f())\n    await act(r)\n    return r",
    "async def w(x):\n    for i in range(2):\n        def f():\n            return i\n        r = f()\n        await act(r)",
    "async def w(x):\n    f = lambda: x\n    f()\n    await act(1)\n    f = 5\n    await act(2)\n    return f",
    "async def w(x):\n    def fact(n):\n        return n and n * fact(n - 1)\n    r = fact(3)\n    await act(1)\n    return r",
    "async def w(x):\n    r = eval('1 + 1', {})\n    return [r, await act(1)]",
]


@pytest.mark.parametrize("source", ACCEPTED)
def test_functions_that_stay_in_their_block_are_fine(source: str) -> None:
    assert compile_workflow(define(source), name="w").steps
