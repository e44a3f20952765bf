"""Which names a stretch of code reads, binds and deletes, by Python's scoping rules.

Names of nested scopes (functions, lambdas, comprehensions, classes) count where they mean a variable of
the function around.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, Literal

Kind = Literal["function", "comprehension", "class"]

_OF_CLASSES = frozenset({"__class__", "__module__", "__qualname__"})


class Names(ast.NodeVisitor):
    """The names of one scope: ``loads``, ``stores`` and ``deletes``.

    ``loads`` has what is read here or, being free there, in a nested scope. A name may be in several of them.
    """

    def __init__(self, *, kind: Kind = "function", private: str | None = None, lazy_annotations: bool = False) -> None:
        self.loads: set[str] = set()
        self.stores: set[str] = set()
        self.deletes: set[str] = set()
        # What scopes nested in a class read past it, since a class's own names are not seen from within them.
        self._past: set[str] = set()
        self._walrus: set[str] = set()
        self._kind = kind
        self._private = private
        self._lazy = lazy_annotations

    @classmethod
    def of(cls, nodes: Iterable[ast.AST], *, lazy_annotations: bool = False) -> Names:
        """Return the names of a function's statements or expressions."""
        names = cls(lazy_annotations=lazy_annotations)
        for node in nodes:
            names.visit(node)
        return names

    @property
    def bound(self) -> set[str]:
        """Every name that is bound or deleted here, which makes it a variable of this scope."""
        return self.stores | self.deletes

    def visit_Name(self, node: ast.Name) -> None:
        names = {ast.Load: self.loads, ast.Store: self.stores, ast.Del: self.deletes}[type(node.ctx)]
        names.add(self._mangled(node.id))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.loads.add(self._mangled(node.target.id))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        # A function never evaluates the annotations of its variables.
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)
        if self._kind == "class":
            self._annotation(node.annotation)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        bound = self._walrus if self._kind == "comprehension" else self.stores
        bound.add(self._mangled(node.target.id))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            self.stores.add(self._mangled(node.name))
            self.deletes.add(self._mangled(node.name))
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._capture(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._capture(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._capture(node.rest)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.stores.add(self._mangled(alias.asname or alias.name.partition(".")[0]))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.stores.add(self._mangled(alias.asname or alias.name))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self.stores.add(self._mangled(node.name))
        self._arguments(node.args)
        if node.returns is not None:
            self._annotation(node.returns)
        self._nested("function", node.body, parameters=node.args, type_params=getattr(node, "type_params", []))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._arguments(node.args)
        self._nested("function", [node.body], parameters=node.args)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for child in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(child)
        self.stores.add(self._mangled(node.name))
        type_params = getattr(node, "type_params", [])
        self._nested("class", node.body, private=node.name, type_params=type_params)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._nested("comprehension", [first.target, *first.ifs, *others, *results])

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_TypeAlias(self, node: Any) -> None:
        """Take in a ``type`` statement, which Python has from 3.12 on."""
        self.visit(node.name)
        self._nested("function", [node.value], type_params=node.type_params)

    def _nested(
        self,
        kind: Kind,
        body: Iterable[ast.AST],
        *,
        parameters: ast.arguments | None = None,
        private: str | None = None,
        type_params: Iterable[Any] = (),
    ) -> None:
        inner = Names(kind=kind, private=private or self._private, lazy_annotations=self._lazy)
        for node in body:
            inner.visit(node)
        if parameters is not None:
            inner.stores |= {inner._mangled(arg.arg) for arg in _parameters(parameters)}
        hidden = {parameter.name for parameter in type_params}
        free = inner.loads - inner.bound - hidden
        if kind == "class":
            free = (free | inner._past - hidden) - _OF_CLASSES
        if self._kind == "class":
            self._past |= free
        else:
            self.loads |= free
        (self._walrus if self._kind == "comprehension" else self.stores).update(inner._walrus)

    def _arguments(self, arguments: ast.arguments) -> None:
        """Take in what a nested function's parameters evaluate in this scope: defaults and annotations."""
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        for argument in _parameters(arguments):
            if argument.annotation is not None:
                self._annotation(argument.annotation)

    def _annotation(self, annotation: ast.expr) -> None:
        if not self._lazy:
            self.visit(annotation)

    def _capture(self, name: str | None) -> None:
        if name is not None:
            self.stores.add(self._mangled(name))

    def _mangled(self, name: str) -> str:
        private = (self._private or "").lstrip("_")
        if private and name.startswith("__") and not name.endswith("__"):
            return f"_{private}{name}"
        return name


def parameters(arguments: ast.arguments) -> list[str]:
    """Return the names of a function's parameters, in the order of its signature."""
    return [argument.arg for argument in _parameters(arguments)]


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    variadic = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *variadic]
