"""Which variables a program may read from a step on, before it gives them a value."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from holdfast.processor.core.control_flow import ways
from holdfast.processor.language import trees
from holdfast.processor.language.program import Program


def read_from(program: Program) -> list[frozenset[str]]:
    """Return for each step the variables of the user's that may be read from there on, unless they are bound before."""
    edges = ways(program.steps)
    reads: list[set[str]] = []
    binds: list[set[str]] = []
    for step in program.steps:
        read, bound = set[str](), set[str]()
        if step["op"] == "run":
            block = program.blocks[step["block"]]
            local = {*block["load"], *block["gives"]}
            read, bound = _block(trees.load(block["body"]))
            read, bound = read & local, bound & local
        reads.append(read)
        binds.append(bound)
    live = [frozenset[str](reads[number]) for number in range(len(edges))]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(edges))):
            found = set(reads[number])
            for following in edges[number]:
                # Only who goes through a block to its end has bound all that it binds.
                whole = program.steps[number]["op"] == "run" and following == program.steps[number]["to"][0]
                found |= live[following] - binds[number] if whole else live[following]
            if found != live[number]:
                live[number] = frozenset(found)
                changed = True
    return live


def _block(body: list[ast.stmt]) -> tuple[set[str], set[str]]:
    read, bound = set[str](), set[str]()
    _statements(body, read, bound)
    return read, bound


def _statements(body: Iterable[ast.stmt], read: set[str], bound: set[str]) -> None:
    for statement in body:
        _statement(statement, read, bound)


def _statement(node: ast.stmt, read: set[str], bound: set[str]) -> None:
    """Add what a statement reads of what is not bound yet, and what it is sure to have bound at its end."""
    match node:
        case ast.If():
            _read(node.test, read, bound)
            _choice([node.body, node.orelse], read, bound)
        case ast.For():
            _read(node.iter, read, bound)
            inside = {*bound, *_stored(node.target)}
            _statements(node.body, read, inside)
            _statements(node.orelse, read, {*bound})
        case ast.While():
            _read(node.test, read, bound)
            _statements(node.body, read, {*bound})
            _statements(node.orelse, read, {*bound})
        case ast.Try():
            _statements(node.body, read, {*bound})
            for handler in node.handlers:
                if handler.type is not None:
                    _read(handler.type, read, bound)
                _statements(handler.body, read, {*bound, *([handler.name] if handler.name else [])})
            _statements(node.orelse, read, {*bound, *_surely(node.body, bound)})
            _statements(node.finalbody, read, bound)
        case ast.With():
            for item in node.items:
                _read(item.context_expr, read, bound)
                if item.optional_vars is not None:
                    bound |= _stored(item.optional_vars)
            # It may keep an exception from going on.
            _statements(node.body, read, {*bound})
        case ast.Match():
            _read(node.subject, read, bound)
            for case in node.cases:
                inside = {*bound, *_captured(case.pattern)}
                _read(case.pattern, read, bound)
                if case.guard is not None:
                    _read(case.guard, read, inside)
                _statements(case.body, read, inside)
        case ast.AugAssign():
            _read(node.value, read, bound)
            _read(node.target, read, bound)
            read |= _stored(node.target) - bound
            bound |= _stored(node.target)
        case _:
            _read(node, read, bound)
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Delete):
                for target in node.targets:
                    read |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} - bound
            else:
                bound |= _stored(node)


def _choice(branches: list[list[ast.stmt]], read: set[str], bound: set[str]) -> None:
    after: list[set[str]] = []
    for branch in branches:
        inside = {*bound}
        _statements(branch, read, inside)
        # Who leaves does not come to what follows.
        if not (branch and isinstance(branch[-1], ast.Return | ast.Raise | ast.Break | ast.Continue)):
            after.append(inside)
    if after:
        bound |= set.intersection(*after)


def _surely(body: list[ast.stmt], bound: set[str]) -> set[str]:
    inside = {*bound}
    _statements(body, set(), inside)
    return inside


def _read(node: ast.AST, read: set[str], bound: set[str]) -> None:
    """Add the names that are loaded anywhere in a node, those that a comprehension or lambda binds for itself too.

    A name may be bound in there and be read outside of it as well: to be sure, it counts as read.
    """
    read |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)} - bound


def _stored(node: ast.AST) -> set[str]:
    """Return the names that are sure to be bound in a node: not those in a part that may not be evaluated."""
    match node:
        case ast.Name(ctx=ast.Store(), id=name):
            return {name}
        case ast.BoolOp(values=[first, *_]):
            return _stored(first)
        case ast.IfExp():
            return _stored(node.test)
        case ast.Compare():
            return _stored(node.left) | _stored(node.comparators[0])
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp() | ast.Assert():
            return set()
    return {name for child in ast.iter_child_nodes(node) for name in _stored(child)}


def _captured(pattern: ast.AST) -> set[str]:
    found = set[str]()
    for part in ast.walk(pattern):
        for name in ("name", "rest"):
            if isinstance(value := getattr(part, name, None), str):
                found.add(value)
    return found
