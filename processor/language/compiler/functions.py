"""Sees to it that no function made inside a workflow has to be kept from one block to another.

A function, class or generator has no stored form, and it would see the variables of the block that
made it only. So it may be used only within its own block. What this finds are names: those bound to a
function, where the name may be read after the block. (A function inside another value is found when that
value is to be stored.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.processor.language.compiler.names import Names
from holdfast.schemas.errors import CompileError


def bound_to_functions(nodes: Iterable[ast.AST]) -> dict[str, ast.AST]:
    """Return the names that statements bind to functions, classes or generators, and where."""
    found: dict[str, ast.AST] = {}
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and _makes_function(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                found.update({part.id: node for part in ast.walk(target) if isinstance(part, ast.Name)})
        todo.extend(ast.iter_child_nodes(node))
    return found


def _makes_function(value: ast.expr | None) -> bool:
    """Tell whether an expression's value is or holds a new function, unless a call has used it up."""
    if value is None or isinstance(value, ast.Call):
        return False
    if isinstance(value, ast.Lambda | ast.GeneratorExp):
        return True
    return any(_makes_function(part) for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr))


def check(file: str, steps: Sequence[dict[str, Any]], blocks: Sequence[Sequence[ast.stmt]], names: set[str]) -> None:
    """Refuse functions that are read outside of their block, and tell each await which names need not be kept.

    ``names`` are the names bound to functions anywhere in the workflow.
    """
    if not names:
        return
    live = _liveness(steps, blocks, names)
    for number, step in enumerate(steps):
        after = set().union(*(live[successor] for successor in _successors(number, steps)))
        if step["op"] == "run":
            for name, node in bound_to_functions(blocks[step["block"]]).items():
                if name in after:
                    raise CompileError(
                        file=file,
                        line=getattr(node, "lineno", 0),
                        what=f"the function, class or generator {name!r} would have to be kept across an await",
                        mend="Define it at the top level of the module, or use it up before the next await.",
                    )
        elif step["op"] == "await" and (dead := names - after):
            step["dead"] = sorted(dead)


def _liveness(steps: Sequence[dict[str, Any]], blocks: Sequence[Sequence[ast.stmt]], names: set[str]) -> list[set[str]]:
    """Return for each step which of the names may be read from there on before they are bound again."""
    reads = [{name for name in names if _exposes(block, name)} for block in blocks]
    binds = [{name for name in names if _binds(block, name)} for block in blocks]
    live: list[set[str]] = [set() for _ in steps]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(steps))):
            step = steps[number]
            after = set().union(*(live[successor] for successor in _successors(number, steps)))
            if step["op"] == "run":
                caught = live[step["catch"][1]] if "catch" in step else set()
                before = reads[step["block"]] | (after - binds[step["block"]]) | caught
            elif step["op"] == "unbind":
                before = after - {step["name"]}
            else:
                before = after
            if before != live[number]:
                live[number] = before
                changed = True
    return live


def _successors(number: int, steps: Sequence[dict[str, Any]]) -> list[int]:
    step = steps[number]
    following = [step["catch"][1]] if "catch" in step else []
    match step["op"]:
        case "run":
            following += step["to"]
        case "jump" | "leave":
            following.append(step["to"])
        case "next":
            following += [number + 1, step["done"]]
        case "await" | "unbind":
            following.append(number + 1)
        case "resume":
            following += [
                index + 1
                for index, other in enumerate(steps)
                if other["op"] == "leave" and other["pending"] == step["pending"]
            ]
    return following


def _exposes(statements: Sequence[ast.stmt], name: str) -> bool:
    """Tell whether statements may read a name's value from before them."""
    for statement in statements:
        if isinstance(statement, ast.If):
            if name in Names.of([statement.test]).loads:
                return True
            if _exposes(statement.body, name) or _exposes(statement.orelse, name):
                return True
        elif name in Names.of([statement]).loads:
            return not (isinstance(statement, ast.FunctionDef) and _only_in_body(statement, name))
        if _binds([statement], name):
            return False
    return False


def _only_in_body(function: ast.FunctionDef, name: str) -> bool:
    """Tell whether a function reads a name, which it binds itself, when it is called and not before."""
    outside = [*function.decorator_list, *function.args.defaults, *filter(None, function.args.kw_defaults)]
    return function.name == name and name not in Names.of(outside).loads


def _binds(statements: Sequence[ast.stmt], name: str) -> bool:
    """Tell whether statements that run to their end have bound a name for certain."""
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=bound) | ast.ClassDef(name=bound):
                if bound == name:
                    return True
            case ast.Assign():
                if any(isinstance(target, ast.Name) and target.id == name for target in statement.targets):
                    return True
            case ast.If():
                if _binds(statement.body, name) and _binds(statement.orelse, name):
                    return True
    return False
