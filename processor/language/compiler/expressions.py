"""Takes the awaits out of expressions.

``lower`` emits what has to happen up to and including the last await of an expression, and returns what
is left of the expression: the same, with a hidden variable in place of each await. What Python evaluates
before an await is evaluated before it here too, once, and its value held in a hidden variable.

There are two things that are not held, since they often have no stored form: a name, and a method or
function about to be called. These are looked up before the await, so that what is missing is missed in
Python's order, and again after it. For a variable that is the same, since nothing can rebind it in
between (where the expression itself does, its value is held); a global name is resolved anew.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import NoReturn

from holdfast.processor.language.compiler.assembler import Assembler, Label, placed
from holdfast.processor.language.compiler.names import Names
from holdfast.processor.language.linking import VARIABLES, variable
from holdfast.processor.language.trees import PLACE
from holdfast.schemas.errors import CompileError


class Expressions:
    """The lowering of expressions; ``local`` are the variables of the function."""

    def __init__(self, assembler: Assembler, file: str, local: frozenset[str]) -> None:
        self.assembler = assembler
        self.file = file
        self.local = local

    def lower(self, node: ast.expr) -> ast.expr:
        """Emit the awaits of an expression and return what is left of it."""
        if not awaits(node):
            return node
        match node:
            case ast.Await():
                return self._await(node)
            case ast.BoolOp():
                return self._bool(node)
            case ast.IfExp():
                return self._conditional(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
            case ast.BinOp():
                node.left, node.right = self.sequence([node.left, node.right])
            case ast.Subscript():
                node.value, node.slice = self.sequence([node.value, node.slice])
            case ast.Slice():
                parts = [part for part in (node.lower, node.upper, node.step) if part is not None]
                left = iter(self.sequence(parts))
                node.lower, node.upper, node.step = (
                    None if part is None else next(left) for part in (node.lower, node.upper, node.step)
                )
            case ast.Tuple() | ast.List() | ast.Set():
                node.elts = self.sequence(node.elts)
            case ast.Dict():
                self._dict(node)
            case ast.JoinedStr():
                node.values = self.sequence(node.values)
            case ast.FormattedValue() if node.format_spec is not None:
                node.value, node.format_spec = self.sequence([node.value, node.format_spec])
            case ast.UnaryOp():
                node.operand = self.lower(node.operand)
            case ast.Attribute() | ast.Starred() | ast.NamedExpr() | ast.FormattedValue():
                node.value = self.lower(node.value)
            case _:
                self.refuse(node, "await is not possible here", "Assign the awaited value to a name first.")
        return node

    def sequence(self, parts: Sequence[ast.expr]) -> list[ast.expr]:
        """Lower expressions that Python evaluates one after the other, holding each until the last await."""
        last = max((index for index, part in enumerate(parts) if awaits(part)), default=-1)
        lowered: list[ast.expr] = []
        for index, part in enumerate(parts):
            if index > last:
                lowered.append(part)
            elif index == last:
                lowered.append(self.lower(part))
            else:
                lowered.append(self.hold(self.lower(part), parts[index + 1 :]))
        return lowered

    def condition(self, node: ast.expr, label: Label, *, sense: bool) -> None:
        """Go on at ``label`` if the truth of ``node`` is ``sense``, else with what follows; tests it once."""
        if not awaits(node):
            self.assembler.branch(node, label, sense=sense)
            return
        match node:
            case ast.UnaryOp(op=ast.Not()):
                self.condition(node.operand, label, sense=not sense)
            case ast.BoolOp():
                decides = isinstance(node.op, ast.Or)
                after = Label()
                for value in node.values[:-1]:
                    with self.assembler.statement():
                        self.condition(value, label if decides is sense else after, sense=decides)
                self.condition(node.values[-1], label, sense=sense)
                self.assembler.mark(after)
            case ast.IfExp():
                other, after = Label(), Label()
                self.condition(node.test, other, sense=False)
                self.condition(node.body, label, sense=sense)
                self.assembler.jump(after)
                self.assembler.mark(other)
                self.condition(node.orelse, label, sense=sense)
                self.assembler.mark(after)
            case ast.Compare() if len(node.ops) > 1:
                after = Label()
                last = self._links(node, label if not sense else after)
                self.assembler.branch(last, label, sense=sense)
                self.assembler.mark(after)
            case _:
                self.assembler.branch(self.lower(node), label, sense=sense)

    def hold(self, node: ast.expr, rest: Iterable[ast.expr]) -> ast.expr:
        """Evaluate what is left of an expression now, before an await in ``rest``, and return its value's place."""
        match node:
            case ast.Constant():
                return node
            case ast.Name() if node.id not in Names.of(rest).bound:
                self.assembler.add(ast.Expr(value=node), node)
                return node
            case ast.Subscript(value=ast.Name(id=name)) if name == VARIABLES:
                return node
            case ast.Slice():
                for field in ("lower", "upper", "step"):
                    part = getattr(node, field)
                    if part is not None:
                        setattr(node, field, self.hold(part, rest))
                return node
            case ast.Starred():
                node.value = self._held(ast.List(elts=[ast.Starred(value=node.value)]), node)
                return node
            case ast.FormattedValue():
                return placed(ast.FormattedValue(self._held(ast.JoinedStr([node]), node), -1), node)
        return self._held(node, node)

    def _held(self, node: ast.expr, at: ast.expr) -> ast.expr:
        """Return the hidden variable that holds the value of ``node`` from here on."""
        for part in ast.walk(node):
            if isinstance(part, ast.Lambda | ast.GeneratorExp):
                self.refuse(
                    part,
                    "a function would have to be kept while this waits",
                    "Assign the awaited value to a name first.",
                )
            if isinstance(part, ast.Call | ast.ListComp | ast.SetComp | ast.DictComp):
                self.refuse(
                    part,
                    "this comes before an await in the same expression and may have side effects",
                    "Assign this part to a name first.",
                )
        slot = self.assembler.temporary()
        self.assembler.add(ast.Assign(targets=[variable(slot, ast.Store())], value=node), at)
        self.assembler.keep(slot)
        return placed(variable(slot), at)

    def _await(self, node: ast.Await) -> ast.expr:
        slot = self.ask(self.lower(node.value), node)
        self.assembler.keep(slot)
        return placed(variable(slot), node)

    def ask(self, value: ast.expr, at: ast.expr) -> str:
        """Await what is left of an expression, at the place of ``at``; return the temporary that gets the answer."""
        assembler = self.assembler
        assembler.add(ast.Assign(targets=[variable("$await", ast.Store())], value=value), at)
        slot = assembler.temporary()
        place = [getattr(at, name) for name in PLACE]
        assembler.emit("await", into=slot, at=place, live=sorted(set(assembler.live)))
        return slot

    def _bool(self, node: ast.BoolOp) -> ast.expr:
        """Lower ``and`` and ``or``: each value but the last is tested once, and the deciding one is the result."""
        slot, after = self.assembler.temporary(), Label()
        result = placed(variable(slot), node)
        for value in node.values[:-1]:
            with self.assembler.statement():
                self._assign(slot, self.lower(value))
            self.assembler.branch(result, after, sense=isinstance(node.op, ast.Or))
        with self.assembler.statement():
            self._assign(slot, self.lower(node.values[-1]))
        self.assembler.mark(after)
        self.assembler.keep(slot)
        return result

    def _conditional(self, node: ast.IfExp) -> ast.expr:
        slot, other, after = self.assembler.temporary(), Label(), Label()
        with self.assembler.statement():
            self.condition(node.test, other, sense=False)
        with self.assembler.statement():
            self._assign(slot, self.lower(node.body))
        self.assembler.jump(after)
        self.assembler.mark(other)
        with self.assembler.statement():
            self._assign(slot, self.lower(node.orelse))
        self.assembler.mark(after)
        self.assembler.keep(slot)
        return placed(variable(slot), node)

    def _compare(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) == 1:
            node.left, node.comparators[0] = self.sequence([node.left, node.comparators[0]])
            return node
        slot, after = self.assembler.temporary(), Label()
        self._assign(slot, self._links(node, after, slot))
        self.assembler.mark(after)
        self.assembler.keep(slot)
        return placed(variable(slot), node)

    def _links(self, node: ast.Compare, label: Label, slot: str | None = None) -> ast.expr:
        """Lower the links of a chained comparison and return what is left of it.

        From a link that is false it goes on at ``label``, with the link's value in ``slot``, if there is one.
        """
        left, ops, others = node.left, node.ops, node.comparators
        while any(awaits(other) for other in others[1:]):
            left = self.hold(self.lower(left), others)
            right = self.hold(self.lower(others[0]), others[1:])
            link: ast.expr = placed(ast.Compare(left=left, ops=ops[:1], comparators=[right]), node)
            if slot is not None:
                self._assign(slot, link)
                link = placed(variable(slot), node)
            self.assembler.branch(link, label, sense=False)
            left, ops, others = right, ops[1:], others[1:]
        left, right = self.sequence([left, others[0]])
        rest: ast.expr = placed(ast.Compare(left=left, ops=ops, comparators=[right, *others[1:]]), node)
        return rest

    def _call(self, node: ast.Call) -> ast.expr:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if not any(awaits(argument) for argument in arguments):
            node.func = self.lower(node.func)
            return node
        node.func = self._callee(node.func, arguments)
        for keyword in node.keywords:
            if keyword.arg is None and any(awaits(later) for later in _after(arguments, keyword.value)):
                self.refuse(
                    keyword.value, "an await follows ** in the same call", "Assign the awaited value to a name first."
                )
        lowered = self.sequence(arguments)
        node.args = lowered[: len(node.args)]
        for keyword, value in zip(node.keywords, lowered[len(node.args) :], strict=True):
            keyword.value = value
        return node

    def _callee(self, node: ast.expr, arguments: list[ast.expr]) -> ast.expr:
        """Look up what is to be called once its arguments, which await, are known."""
        match node:
            case ast.Name():
                return self.hold(node, arguments)
            case ast.Attribute() if not awaits(node) and self._is_global(node):
                pass
            case ast.Attribute():
                node.value = self.hold(self.lower(node.value), arguments)
            case ast.Await():
                return self.lower(node)
            case _:
                self.refuse(
                    node,
                    "what is called here would have to be kept while its arguments are awaited",
                    "Assign the awaited value to a name first.",
                )
        self.assembler.add(ast.Expr(value=node), node)
        return node

    def _is_global(self, node: ast.expr) -> bool:
        """Tell whether a dotted name begins at a global name, such as that of a module."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id not in self.local

    def _dict(self, node: ast.Dict) -> None:
        if node.keys == [None]:
            node.values = [self.lower(node.values[0])]
            return
        parts: list[ast.expr] = []
        for key, value in zip(node.keys, node.values, strict=True):
            # ``**value`` becomes one part, a display of its own.
            parts += [ast.copy_location(ast.Dict(keys=[None], values=[value]), value)] if key is None else [key, value]
        lowered = iter(self.sequence(parts))
        for index, key in enumerate(node.keys):
            if key is not None:
                node.keys[index] = next(lowered)
            node.values[index] = next(lowered)

    def _assign(self, slot: str, value: ast.expr) -> None:
        self.assembler.add(ast.Assign(targets=[variable(slot, ast.Store())], value=value), value)

    def refuse(self, node: ast.AST, what: str, mend: str) -> NoReturn:
        """Raise the ``CompileError`` for something at ``node``."""
        raise CompileError(file=self.file, line=getattr(node, "lineno", 0), what=what, mend=mend)


def awaits(node: ast.AST | None) -> bool:
    """Tell whether there is an await in a node; entering and leaving a scope are two."""
    return node is not None and any(isinstance(part, ast.Await | ast.AsyncWith) for part in ast.walk(node))


def _after(parts: list[ast.expr], part: ast.expr) -> list[ast.expr]:
    return parts[parts.index(part) + 1 :]
