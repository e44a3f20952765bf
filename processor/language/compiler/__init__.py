"""Turns a workflow function into a program.

The function's statements are cut at its awaits. What lies between them stays Python and becomes blocks;
``if``, loops, ``try`` and ``match`` around an await become steps. ``refusals`` says what cannot be compiled,
``statements`` and ``expressions`` lay out the steps, ``assembler`` collects them, ``functions`` makes sure that
no function has to be kept while the instance waits.
"""

from __future__ import annotations
import __future__

import ast
from typing import Any

from holdfast.processor.language import trees
from holdfast.processor.language.compiler import functions
from holdfast.processor.language.compiler.assembler import Assembler, layout
from holdfast.processor.language.compiler.expressions import Expressions
from holdfast.processor.language.compiler.names import Names, parameters
from holdfast.processor.language.compiler.refusals import Refusals
from holdfast.processor.language.compiler.scopes import ScopeRules
from holdfast.processor.language.compiler.source import definition
from holdfast.processor.language.compiler.statements import Statements
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import CompileError

# What writes JSON stops at 254 levels; the rest is for what the blocks are embedded in.
MAX_DEPTH = 240
"""How many levels of JSON the statements of one block may take."""


def compile_workflow(function: Any, *, name: str) -> Program:
    """Return the program of an ``async def``, linked to the module it was defined in.

    Args:
        function: the function, as Python made it.
        name: the workflow's name.

    Raises:
        CompileError: the function does something that cannot be persisted; with file, line and mend.
    """
    try:
        return _compiled(function, name)
    except RecursionError:
        raise _too_deep(function.__code__.co_filename, function.__code__.co_firstlineno) from None


def _compiled(function: Any, name: str) -> Program:
    node = definition(function)
    file = function.__code__.co_filename
    lazy = bool(function.__code__.co_flags & __future__.annotations.compiler_flag)
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    names = Names.of(body, lazy_annotations=lazy)
    arguments = parameters(node.args)
    local = frozenset(names.bound | set(arguments))
    refusals = Refusals(file, local, ScopeRules(function.__globals__, local))
    for statement in body:
        refusals.visit(statement)
    function_names = set(functions.bound_to_functions(body))

    assembler = Assembler()
    Statements(assembler, Expressions(assembler, file, local)).body(body)
    assembler.finish()
    steps, used = layout(assembler.steps)
    blocks = [assembler.blocks[number].body for number in used]
    functions.check(file, steps, blocks, function_names)
    return Program(
        name=name,
        module=function.__module__,
        function=function.__name__,
        file=file,
        line=node.lineno,
        parameters=tuple(arguments),
        names=tuple(sorted(names.loads - local)),
        future=("annotations",) if lazy else (),
        steps=tuple(steps),
        blocks=tuple(_block(file, block, local, lazy_annotations=lazy) for block in blocks),
        namespace=function.__globals__,
    )


def _block(file: str, body: list[ast.stmt], local: frozenset[str], *, lazy_annotations: bool) -> trees.Json:
    """Return the stored form of a block: its statements, and which variables it takes and gives back."""
    names = Names.of(body, lazy_annotations=lazy_annotations)
    tree = trees.dump(body)
    if trees.depth(tree) > MAX_DEPTH:
        raise _too_deep(file, body[0].lineno)
    return {
        "load": sorted((names.loads | names.deletes) & local),
        "gives": sorted(names.bound & local),
        "deletes": sorted(names.deletes & local),
        "body": tree,
    }


def _too_deep(file: str, line: int) -> CompileError:
    return CompileError(
        file=file,
        line=line,
        what="this code is nested too deeply to be stored",
        mend="Move a part of it into a function at the top level of the module.",
    )
