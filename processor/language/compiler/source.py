"""Finds the syntax tree of a function that is being decorated."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
from types import FunctionType
from typing import Any

from holdfast.schemas.errors import CompileError


def definition(function: Any) -> ast.AsyncFunctionDef:
    """Return the tree of a workflow function, with its true places in its file, as a copy of one's own.

    Raises ``CompileError`` if it is no plain ``async def`` of a module, or its source cannot be had.
    """
    if not isinstance(function, FunctionType):
        raise CompileError(
            file="<unknown>",
            line=0,
            what=f"{function!r} is not a function",
            mend="Put the decorator directly above an async def, below no other decorator.",
        )
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    if not inspect.iscoroutinefunction(function):
        kind = "an async generator (it has a yield)" if inspect.isasyncgenfunction(function) else "not an async def"
        mend = "Take the yield out." if inspect.isasyncgenfunction(function) else "Write async def."
        raise CompileError(file=file, line=line, what=f"{function.__name__} is {kind}", mend=mend)
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        raise CompileError(
            file=file,
            line=line,
            what=f"{function.__name__} uses variables of the function or class around it ({names})",
            mend="Define it at the top level of its module and pass it what it needs.",
        )
    scope = function.__qualname__.split(".")[:-1]
    if scope and scope[-1] != "<locals>":
        raise CompileError(
            file=file,
            line=line,
            what=f"{function.__name__} is a method of {scope[-1]}",
            mend="Define it at the top level of its module.",
        )
    lines = linecache.getlines(file, function.__globals__)
    try:
        found = _definitions("".join(lines)).get((function.__name__, line))
    except SyntaxError:
        found = None
    if found is None:
        raise CompileError(
            file=file,
            line=line,
            what=f"the source of {function.__name__} is not available",
            mend="Define it in a file that exists and has not changed since it was imported.",
        )
    return copy.deepcopy(found)


@functools.lru_cache(maxsize=32)
def _definitions(text: str) -> dict[tuple[str, int], ast.AsyncFunctionDef]:
    """Return the async functions of a file by name and first line, which is that of the first decorator."""
    return {
        (node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])): node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.AsyncFunctionDef)
    }
