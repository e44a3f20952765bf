"""Lays out the control flow around awaits as steps; statements without an await go into blocks as they are."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from holdfast.processor.language.compiler.assembler import Assembler, Finally, Label, Unbind, placed
from holdfast.processor.language.compiler.expressions import Expressions, awaits
from holdfast.processor.language.linking import variable


class Statements:
    """The lowering of statements."""

    def __init__(self, assembler: Assembler, expressions: Expressions) -> None:
        self.assembler = assembler
        self.expressions = expressions

    def body(self, statements: Sequence[ast.stmt]) -> None:
        """Lower statements that follow each other."""
        for statement in statements:
            if awaits(statement):
                with self.assembler.statement():
                    self._statement(statement)
            else:
                self.assembler.native(statement)

    def _statement(self, node: ast.stmt) -> None:
        native, lower = self.assembler.native, self.expressions.lower
        match node:
            case ast.Expr():
                native(placed(ast.Expr(lower(node.value)), node))
            case ast.Assign():
                self._assign(node)
            case ast.AnnAssign(value=ast.expr() as value):
                # Python does not evaluate the annotations of a function's variables.
                self._assign(placed(ast.Assign(targets=[node.target], value=value), node))
            case ast.AugAssign():
                self._augmented(node)
            case ast.Return(value=ast.expr() as value):
                native(placed(ast.Return(lower(value)), node))
            case ast.Delete():
                for target in node.targets:
                    self._parts(target)
                    native(placed(ast.Delete([target]), node))
            case ast.Raise(exc=ast.expr() as error):
                error, *cause = self.expressions.sequence([error] if node.cause is None else [error, node.cause])
                native(placed(ast.Raise(error, cause[0] if cause else None), node))
            case ast.Assert():
                self._assert(node)
            case ast.If():
                self._if(node)
            case ast.While():
                self._while(node)
            case ast.For():
                self._for(node)
            case ast.Try(finalbody=[]):
                self._except(node)
            case ast.Try():
                self._finally(node)
            case ast.Match():
                self._match(node)
            case ast.With():
                node.items[0].context_expr = lower(node.items[0].context_expr)
                native(node)
            case ast.AsyncWith():
                self._scopes(node.items, node.body)
            case _:
                self.expressions.refuse(
                    node, "await is not possible in this statement", "Assign the awaited value to a name first."
                )

    # Assignments

    def _assign(self, node: ast.Assign) -> None:
        value = self.expressions.lower(node.value)
        if not any(awaits(target) for target in node.targets):
            self.assembler.native(placed(ast.Assign(targets=node.targets, value=value), node))
            return
        value = self.expressions.hold(value, node.targets)
        for target in node.targets:
            self._store(target, value)

    def _store(self, target: ast.expr, value: ast.expr) -> None:
        """Assign a value that is held; ``target`` may await."""
        if awaits(target) and isinstance(target, ast.Tuple | ast.List):
            slots = [self.assembler.temporary() for _ in target.elts]
            parts: list[ast.expr] = [variable(slot, ast.Store()) for slot in slots]
            starred = [isinstance(element, ast.Starred) for element in target.elts]
            unpacked = [
                ast.Starred(part, ast.Store()) if star else part for part, star in zip(parts, starred, strict=True)
            ]
            self.assembler.add(ast.Assign(targets=[ast.Tuple(unpacked, ast.Store())], value=value), target)
            for slot in slots:
                self.assembler.keep(slot)
            for element, slot in zip(target.elts, slots, strict=True):
                goal = element.value if isinstance(element, ast.Starred) else element
                self._store(goal, placed(variable(slot), element))
            return
        self._parts(target)
        self.assembler.native(placed(ast.Assign(targets=[target], value=value), target))

    def _parts(self, target: ast.expr) -> None:
        """Lower what an attribute or a subscript evaluates before it is assigned or deleted."""
        if not awaits(target):
            return
        if isinstance(target, ast.Attribute):
            target.value = self.expressions.lower(target.value)
        elif isinstance(target, ast.Subscript):
            target.value, target.slice = self.expressions.sequence([target.value, target.slice])
        elif isinstance(target, ast.Tuple | ast.List):
            self.expressions.refuse(target, "await in a del of several targets", "Write one del for each of them.")

    def _augmented(self, node: ast.AugAssign) -> None:
        """Lower ``target op= value``: the target's old value is read before the value is awaited."""
        expressions, add = self.expressions, self.assembler.add
        if not awaits(node.value):
            self._parts(node.target)
            self.assembler.native(node)
            return
        target = node.target
        old: ast.expr
        match target:
            case ast.Name(id=name):
                old = expressions.hold(placed(ast.Name(name, ast.Load()), target), [node.value])
                if isinstance(old, ast.Name):
                    self.assembler.native(placed(ast.AugAssign(target, node.op, expressions.lower(node.value)), node))
                    return
            case ast.Attribute():
                target.value = expressions.hold(expressions.lower(target.value), [node.value])
                old = placed(ast.Attribute(target.value, target.attr, ast.Load()), target)
            case ast.Subscript():
                owner, index = expressions.sequence([target.value, target.slice])
                owner = expressions.hold(owner, [index, node.value])
                index = expressions.hold(index, [node.value])
                target.value, target.slice = owner, index
                old = placed(ast.Subscript(owner, index, ast.Load()), target)
        slot = self.assembler.temporary()
        add(ast.Assign(targets=[variable(slot, ast.Store())], value=old), node.target)
        self.assembler.keep(slot)
        value = expressions.lower(node.value)
        add(ast.AugAssign(variable(slot, ast.Store()), node.op, value), node)
        self.assembler.native(placed(ast.Assign(targets=[target], value=variable(slot)), node))

    def _assert(self, node: ast.Assert) -> None:
        after = Label()
        self.assembler.branch(placed(ast.Name("__debug__", ast.Load()), node), after, sense=False)
        with self.assembler.statement():
            self.expressions.condition(node.test, after, sense=True)
        message = None if node.msg is None else self.expressions.lower(node.msg)
        self.assembler.native(placed(ast.Assert(ast.Constant(False), message), node))
        self.assembler.mark(after)

    # Control flow

    def _if(self, node: ast.If) -> None:
        other, after = Label(), Label()
        with self.assembler.statement():
            self.expressions.condition(node.test, other, sense=False)
        self.body(node.body)
        if node.orelse:
            self.assembler.jump(after)
        self.assembler.mark(other)
        self.body(node.orelse)
        self.assembler.mark(after)

    def _while(self, node: ast.While) -> None:
        again, other, end = Label(), Label(), Label()
        self.assembler.mark(again)
        with self.assembler.statement():
            self.expressions.condition(node.test, other, sense=False)
        with self.assembler.looping(end, again):
            self.body(node.body)
        self.assembler.jump(again)
        self.assembler.mark(other)
        self.body(node.orelse)
        self.assembler.mark(end)

    def _for(self, node: ast.For) -> None:
        """Lower ``for``: ``[sequence, index of the next item]`` is what a loop knows."""
        assembler, at = self.assembler, node.iter
        walk, item = assembler.slot("for"), assembler.temporary()
        again, other, end = Label(), Label(), Label()
        with assembler.statement():
            assembler.add(
                ast.Assign(targets=[variable(walk, ast.Store())], value=self.expressions.lower(node.iter)), at
            )
        assembler.add(ast.Assign(targets=[variable(walk, ast.Store())], value=_walk(walk)), at)
        assembler.mark(again)
        assembler.emit("next", loop=walk, into=item, done=other)
        with assembler.keeping(walk):
            with assembler.statement():
                if awaits(node.target):
                    assembler.keep(item)
                self._store(node.target, placed(variable(item), node.target))
            with assembler.looping(end, again):
                self.body(node.body)
        assembler.jump(again)
        assembler.mark(other)
        self.body(node.orelse)
        assembler.mark(end)

    def _except(self, node: ast.Try) -> None:
        assembler = self.assembler
        caught, entry, end = assembler.slot("caught"), Label(), Label()
        with assembler.within(catch=(caught, entry)):
            self.body(node.body)
        self.body(node.orelse)
        assembler.jump(end)
        assembler.mark(entry)
        handling = (caught, *assembler.context.handling)
        with assembler.within(handling=handling), assembler.keeping(caught):
            # Python itself picks the clause; an exception that none of them takes goes on from here.
            labels = [Label() for _ in node.handlers]
            clauses = [
                placed(ast.ExceptHandler(handler.type, None, [assembler.exit(label)]), handler)
                for handler, label in zip(node.handlers, labels, strict=True)
            ]
            assembler.add(ast.Try(body=[ast.Raise()], handlers=clauses, orelse=[], finalbody=[]), node.handlers[0])
            for handler, label in zip(node.handlers, labels, strict=True):
                assembler.mark(label)
                self._handler(handler, caught)
                assembler.jump(end)
        assembler.mark(end)

    def _handler(self, node: ast.ExceptHandler, caught: str) -> None:
        assembler = self.assembler
        if node.name is None:
            self.body(node.body)
            return
        raised, unbind, end = assembler.slot("raised"), Label(), Label()
        clauses = (*assembler.context.clauses, Unbind(node.name))
        with assembler.within(catch=(raised, unbind), clauses=clauses):
            name = placed(ast.Name(node.name, ast.Store()), node)
            assembler.add(ast.Assign(targets=[name], value=variable(caught)), node)
            self.body(node.body)
        assembler.emit("unbind", name=node.name)
        assembler.jump(end)
        assembler.mark(unbind)
        assembler.emit("unbind", name=node.name)
        assembler.emit("raise", slot=raised)
        assembler.mark(end)

    def _finally(self, node: ast.Try) -> None:
        assembler = self.assembler
        pending, entry, end = assembler.slot("pending"), Label(), Label()
        clauses = (*assembler.context.clauses, Finally(pending, entry))
        with assembler.within(catch=(pending, entry), clauses=clauses):
            if node.handlers:
                self._except(node)
            else:
                self.body(node.body)
        assembler.emit("leave", pending=pending, to=entry)
        assembler.jump(end)
        assembler.mark(entry)
        handling = (pending, *assembler.context.handling)
        with assembler.within(handling=handling), assembler.keeping(pending):
            self.body(node.finalbody)
        assembler.emit("resume", pending=pending)
        assembler.mark(end)

    def _scopes(self, items: Sequence[ast.withitem], body: Sequence[ast.stmt]) -> None:
        """Lower ``async with``: its scope is entered, then left as a ``finally`` clause, whatever way out is taken."""
        assembler, expressions = self.assembler, self.expressions
        (item, *rest), at = items, items[0].context_expr
        scope, pending, entry, end = assembler.slot("scope"), assembler.slot("pending"), Label(), Label()
        with assembler.statement():
            value = expressions.lower(item.context_expr)
            assembler.add(ast.Assign(targets=[variable(scope, ast.Store())], value=value), at)
        with assembler.keeping(scope):
            entered = expressions.ask(_call(variable(scope), "entering"), at)
            clauses = (*assembler.context.clauses, Finally(pending, entry))
            with assembler.within(catch=(pending, entry), clauses=clauses):
                if item.optional_vars is not None:
                    with assembler.statement():
                        if awaits(item.optional_vars):
                            assembler.keep(entered)
                        self._store(item.optional_vars, placed(variable(entered), item.optional_vars))
                if rest:
                    self._scopes(rest, body)
                else:
                    self.body(body)
            assembler.emit("leave", pending=pending, to=entry)
            assembler.jump(end)
            assembler.mark(entry)
            handling = (pending, *assembler.context.handling)
            with assembler.within(handling=handling), assembler.keeping(pending):
                expressions.ask(_call(variable(scope), "leaving", variable(pending)), at)
            assembler.emit("resume", pending=pending)
        assembler.mark(end)

    def _match(self, node: ast.Match) -> None:
        """Lower ``match``: Python picks the case, up to the next case whose guard awaits."""
        assembler = self.assembler
        subject = self.expressions.lower(node.subject)
        if not any(awaits(case) for case in node.cases):
            assembler.native(placed(ast.Match(subject, node.cases), node))
            return
        slot, end = assembler.slot("match"), Label()
        assembler.add(ast.Assign(targets=[variable(slot, ast.Store())], value=subject), node.subject)
        cases = list(node.cases)
        while cases:
            size = next((index for index, case in enumerate(cases, 1) if awaits(case.guard)), len(cases))
            group, cases = cases[:size], cases[size:]
            self._cases(group, slot, end)
        assembler.mark(end)

    def _cases(self, cases: list[ast.match_case], subject: str, end: Label) -> None:
        """Lower cases of which only the last one's guard may await; go on behind them if none fits."""
        assembler, none = self.assembler, Label()
        labels = [Label() for _ in cases]
        picks = [
            ast.match_case(case.pattern, None if awaits(case.guard) else case.guard, [assembler.exit(label)])
            for case, label in zip(cases, labels, strict=True)
        ]
        assembler.add(ast.Match(variable(subject), picks), cases[0].pattern)
        assembler.jump(none)
        for case, label in zip(cases, labels, strict=True):
            assembler.mark(label)
            if case.guard is not None and awaits(case.guard):
                with assembler.keeping(subject), assembler.statement():
                    self.expressions.condition(case.guard, none, sense=False)
            self.body(case.body)
            assembler.jump(end)
        assembler.mark(none)


def _call(owner: ast.expr, method: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(func=ast.Attribute(owner, method, ast.Load()), args=list(arguments), keywords=[])


def _walk(slot: str) -> ast.expr:
    """Return what a ``for`` loop walks: a list, tuple or range itself, else the items as a list."""
    each = ast.Name("$i", ast.Load())
    items = ast.ListComp(
        elt=each,
        generators=[ast.comprehension(target=ast.Name("$i", ast.Store()), iter=variable(slot), ifs=[], is_async=0)],
    )
    live = ast.Compare(
        left=ast.Call(func=ast.Name("$type", ast.Load()), args=[variable(slot)], keywords=[]),
        ops=[ast.In()],
        comparators=[ast.Name("$walked", ast.Load())],
    )
    sequence = ast.IfExp(test=live, body=variable(slot), orelse=items)
    return ast.List(elts=[sequence, ast.Constant(0)], ctx=ast.Load())
