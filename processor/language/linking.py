"""Turns a program into what the interpreter runs.

Each block becomes a Python function under the user's file name, line numbers and function name, whose
globals are the module's:

    def order($v):
        if "stock" in $v: stock = $v["stock"]     # what the block may read, if it is bound
        try:
            …                                     # the user's statements
            return 0                              # where to go on
        finally:
            try: $v["stock"] = stock              # what the block may have bound
            except NameError: …                   # or deleted

so that a block behaves as that stretch of the function would, and gives back what it had bound even when
it raises. Steps become tuples ``(operation, a, b, c)``.
"""

from __future__ import annotations
import __future__

import ast
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from holdfast.processor.language import trees

if TYPE_CHECKING:
    from holdfast.processor.language.program import Program

Step = tuple[int, Any, Any, Any]
Block = Callable[[Any], Any]

RUN, AWAIT, NEXT, JUMP, LEAVE, RESUME, RAISE, UNBIND, RETURN = range(9)

VARIABLES = "$v"
"""The parameter of every block: the frame's variables. No Python identifier begins with ``$``."""

HELPERS = {"$unbound": NameError, "$type": type, "$walked": frozenset((list, tuple, range))}
"""What generated code needs, by parameters of its own that no global name of the user can hide."""

_ALWAYS_KEPT = ("$await", "$answer", "$raised", "$cancel", "$child", "$ledger", "$cancelled", "$ended")


class Code:
    """A program ready to run; all sequences are indexed by step.

    ``steps`` are the steps, ``catches`` where exceptions go (slot and step), ``lines`` the lines of the
    user's file, and ``kept`` what a frame that waits there keeps: the hidden variables, and the
    names whose values are left out if they are functions.
    """

    __slots__ = ("_compile_throw", "_places", "_throws", "catches", "kept", "lines", "steps")

    def __init__(self, program: Program, namespace: dict[str, Any]) -> None:
        flags = 0
        for feature in program.future:
            flags |= getattr(__future__, feature).compiler_flag

        def compile_functions(functions: list[ast.stmt]) -> list[FunctionType]:
            kept: list[FunctionType] = []
            module = ast.Module(body=functions, type_ignores=[])
            with warnings.catch_warnings():
                # What Python has to say about the user's code it said when it compiled the module.
                warnings.simplefilter("ignore", SyntaxWarning)
                code = compile(module, program.file, "exec", flags=flags, dont_inherit=True)
            exec(code, namespace, {"$keep": kept.append})  # noqa: S102 - Programs are compiled here or carry a signature.
            for function in kept:
                function.__defaults__ = tuple(HELPERS.values())
            return kept

        blocks = compile_functions([_block(program, block) for block in program.blocks])

        def compile_throw(place: list[int]) -> Block:
            return compile_functions([_thrower(program, place)])[0]

        self._compile_throw = compile_throw
        self._places = [step.get("at") for step in program.steps]
        self._throws: dict[int, Block] = {}
        self.steps = tuple(_step(step, blocks) for step in program.steps)
        self.catches = tuple(tuple(step["catch"]) if "catch" in step else None for step in program.steps)
        self.lines = tuple(place[0] if place else program.line for place in self._places)
        self.kept = tuple(
            ({*step.get("live", ()), *_ALWAYS_KEPT}, frozenset(step.get("dead", ()))) for step in program.steps
        )

    def thrower(self, step: int) -> Block:
        """Return the function that raises its argument from the place of the await at ``step``."""
        if step not in self._throws:
            self._throws[step] = self._compile_throw(self._places[step])
        return self._throws[step]


def _step(step: trees.Json, blocks: list[FunctionType]) -> Step:
    handling = tuple(step["handling"]) if "handling" in step else None
    match step["op"]:
        case "run":
            return RUN, blocks[step["block"]], tuple(step["to"]), handling
        case "await":
            return AWAIT, step["into"], None, handling
        case "next":
            return NEXT, step["loop"], step["into"], step["done"]
        case "jump":
            return JUMP, step["to"], None, None
        case "leave":
            return LEAVE, step["pending"], step["to"], step.get("returns", False)
        case "resume":
            return RESUME, step["pending"], None, None
        case "raise":
            return RAISE, step["slot"], None, None
        case "unbind":
            return UNBIND, step["name"], None, None
        case "return":
            return RETURN, step.get("value", False), None, None
    raise ValueError(f"no step has the operation {step['op']!r}")


def _block(program: Program, block: trees.Json) -> ast.stmt:
    body: list[ast.stmt] = trees.load(block["body"])
    first = body[0]
    loads = [
        ast.If(
            test=ast.Compare(left=ast.Constant(name), ops=[ast.In()], comparators=[_name(VARIABLES)]),
            body=[ast.Assign(targets=[_name(name, ast.Store())], value=variable(name))],
            orelse=[],
        )
        for name in block["load"]
    ]
    gives = [_give(name, deleted=name in block["deletes"]) for name in block["gives"]]
    inner: list[ast.stmt] = [*body, ast.Return(value=ast.Constant(0))]
    if gives:
        inner = [ast.Try(body=inner, handlers=[], orelse=[], finalbody=gives)]
    return _function(program, [*loads, *inner], [getattr(first, name) for name in trees.PLACE])


def _give(name: str, *, deleted: bool) -> ast.stmt:
    absent: ast.stmt = ast.Pass()
    if deleted:
        arguments: list[ast.expr] = [ast.Constant(name), ast.Constant(None)]
        pop = ast.Attribute(value=_name(VARIABLES), attr="pop", ctx=ast.Load())
        absent = ast.Expr(value=ast.Call(func=pop, args=arguments, keywords=[]))
    return ast.Try(
        body=[ast.Assign(targets=[variable(name, ast.Store())], value=_name(name))],
        handlers=[ast.ExceptHandler(type=_name("$unbound"), name=None, body=[absent])],
        orelse=[],
        finalbody=[],
    )


def _thrower(program: Program, place: list[int]) -> ast.stmt:
    return _function(program, [ast.Raise(exc=_name(VARIABLES), cause=None)], place)


def _function(program: Program, body: list[ast.stmt], place: list[int]) -> ast.stmt:
    parameters = [ast.arg(arg=name, annotation=None) for name in (VARIABLES, *HELPERS)]
    function = ast.FunctionDef(
        name=program.function,
        args=ast.arguments(
            posonlyargs=[], args=parameters, vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[]
        ),
        body=body,
        decorator_list=[_name("$keep")],
        returns=None,
    )
    if "type_params" in function._fields:
        # Python 3.12 wants to see that there are none.
        setattr(function, "type_params", [])  # noqa: B010 - The attribute is unknown to older versions.
    # Generated nodes stand where the user's code begins, so that tools that follow lines see only his.
    for node in ast.walk(function):
        if trees.has_place(node) and not hasattr(node, "lineno"):
            for name, number in zip(trees.PLACE, place, strict=True):
                setattr(node, name, number)
    return function


def variable(name: str, context: ast.expr_context | None = None) -> ast.Subscript:
    """Return ``$v[name]``, by which a block reaches a frame's variable."""
    return ast.Subscript(value=_name(VARIABLES), slice=ast.Constant(name), ctx=context or ast.Load())


def _name(name: str, context: ast.expr_context | None = None) -> ast.Name:
    return ast.Name(id=name, ctx=context or ast.Load())
