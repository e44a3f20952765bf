"""What a workflow may not do, found before anything is compiled."""

from __future__ import annotations

import ast
from typing import NoReturn

from holdfast.processor.language.compiler.expressions import awaits
from holdfast.processor.language.compiler.scopes import ScopeRules
from holdfast.schemas.errors import CompileError

_FIRST = "Assign the awaited value to a name first."
_FRAME = frozenset({"locals", "eval", "exec", "vars", "dir"})


class Refusals(ast.NodeVisitor):
    """Walks a workflow's body and raises ``CompileError`` at the first thing that cannot become a program."""

    def __init__(self, file: str, local: frozenset[str], rules: ScopeRules) -> None:
        self._file = file
        self._local = local
        self._rules = rules
        self._around: list[str] = []
        self._nested = 0

    def refuse(self, node: ast.AST, what: str, mend: str) -> NoReturn:
        """Raise the error for something at ``node``."""
        raise CompileError(file=self._file, line=getattr(node, "lineno", 0), what=what, mend=mend)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.refuse(node, "async for cannot be persisted", "Fetch the items in an activity and walk them with for.")

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        depth = len(self._around)
        for item in node.items:
            scope = self._rules.scope(item.context_expr)
            if scope is None:
                self.refuse(
                    item.context_expr,
                    "async with takes transaction(), transacted_receive(), no_persist() and compensable() only, and "
                    "these called by their global names",
                    "Do what needs this context inside an activity.",
                )
            if wrong := self._rules.misplaced_scope(scope, self._around):
                self.refuse(item.context_expr, *wrong)
            self.visit(item.context_expr)
            self._around.append(scope)
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
        for statement in node.body:
            self.visit(statement)
        del self._around[depth:]

    def visit_Await(self, node: ast.Await) -> None:
        if found := self._rules.misplaced_await(node.value, self._around):
            self.refuse(*found)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        if any(awaits(statement) for statement in node.body):
            self.refuse(
                node, "a with block cannot stay open across an await", "Do what needs this context inside an activity."
            )
        if any(awaits(item) for item in node.items[1:]) or awaits(node.items[0].optional_vars):
            self.refuse(node, "await is possible only in the first context of a with", _FIRST)
        self.generic_visit(node)

    def visit_Yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        if not self._nested:
            self.refuse(node, "a workflow cannot yield", "Collect the values in a list and return it.")
        self.generic_visit(node)

    visit_YieldFrom = visit_Yield  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_Global(self, node: ast.Global) -> None:
        self.refuse(
            node, "global variables do not belong to an instance", "Keep the value in a variable of the workflow."
        )

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.refuse(
            node, "nonlocal ties a function to variables of the workflow", "Return the value and assign it instead."
        )

    def visit_TryStar(self, node: ast.AST) -> None:
        if awaits(node):
            self.refuse(node, "except* cannot stand around an await", "Use except, or await outside of the try.")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if awaits(node.type):
            self.refuse(node, "await is not possible in an except clause's type", _FIRST)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if awaits(node.annotation):
            self.refuse(node, "await is not possible in an annotation", _FIRST)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        if awaits(node) or any(generator.is_async for generator in node.generators):
            self.refuse(node, "await is not possible in a comprehension", "Write a for loop.")
        self.generic_visit(node)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.refuse(
            node, f"the nested async function {node.name} cannot be persisted", "Make it an activity of the app."
        )

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef | ast.Lambda) -> None:
        if awaits(node):
            self.refuse(node, "await is not possible in a nested function, class or lambda", _FIRST)
        self._nested += 1
        self.generic_visit(node)
        self._nested -= 1

    visit_ClassDef = visit_Lambda = visit_FunctionDef  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[] | [_], keywords=[]) if name in _FRAME - self._local:
                needs_one = name in {"eval", "exec"}
                if not self._nested and bool(node.args) is needs_one:
                    self.refuse(
                        node, f"{name}() sees the variables of a block only", "Name the variables that you need."
                    )
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == "__class__" and not self._nested:
            self.refuse(node, "a workflow is no method", "Define it at the top level of its module.")
