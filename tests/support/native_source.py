"""Functions that tell, while Python runs them, which exceptions their ``finally`` clauses are going to raise again.

Python itself knows but does not say: an exception that a ``finally`` clause holds looks like one that was caught.
"""

import ast
import contextlib
import linecache
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from holdfast.processor.language.routine import Routine

on_their_way: dict[tuple[FrameType, int], BaseException] = {}
"""The exceptions that ``finally`` clauses hold now, by frame and clause."""


def instrumented(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Callable[..., Any]]]:
    """Return a workflow function, and by name the routines of its file, such that they tell."""
    file = function.__code__.co_filename
    tree = ast.parse("".join(linecache.getlines(file)))
    namespace = {**function.__globals__, "$held": _held, "$released": _released}
    exec(compile(ast.fix_missing_locations(_Telling().visit(tree)), file, "exec"), namespace)  # noqa: S102 - it was run before
    routines = {r.name: r for r in function.__globals__.values() if isinstance(r, Routine)}
    functions = {name: namespace[routine.function.__name__] for name, routine in routines.items()}
    told: Callable[..., Any] = namespace[function.__name__]
    namespace.update(function.__globals__)
    return told, functions


@contextlib.contextmanager
def on_its_way(error: BaseException | None) -> Iterator[None]:
    """Let an exception be on its way meanwhile."""
    key = sys._getframe(), 0
    if error is not None:
        on_their_way[key] = error
    try:
        yield
    finally:
        on_their_way.pop(key, None)


def _held(clause: int) -> None:
    error = sys.exc_info()[1]
    assert error is not None
    on_their_way[sys._getframe(1), clause] = error


def _released(clause: int) -> None:
    on_their_way.pop((sys._getframe(1), clause), None)


class _Telling(ast.NodeTransformer):
    def __init__(self) -> None:
        self.clauses = 0

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = []
        return self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        self.generic_visit(node)
        if not node.finalbody:
            return node
        self.clauses += 1
        body: list[ast.stmt] = node.body
        if node.handlers:
            body = [ast.Try(body=node.body, handlers=node.handlers, orelse=node.orelse, finalbody=[])]
        handler = ast.ExceptHandler(type=None, name=None, body=[self._call("$held"), ast.Raise()])
        finalbody = ast.Try(body=node.finalbody, handlers=[], orelse=[], finalbody=[self._call("$released")])
        telling = ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[finalbody])
        for part in (*body, handler, finalbody, telling):
            ast.copy_location(part, part if hasattr(part, "lineno") else node)
        return telling

    def _call(self, name: str) -> ast.stmt:
        called = ast.Name(name, ast.Load())
        return ast.Expr(ast.Call(func=called, args=[ast.Constant(self.clauses)], keywords=[]))
