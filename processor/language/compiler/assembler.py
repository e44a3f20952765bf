"""Collects statements into blocks and lays out the steps between them.

The assembler knows where it stands: what catches an exception here, which clauses are being handled, which
``finally`` clauses a jump out has to pass, and which hidden variables are in use. The lowering of
statements and expressions only says what comes next.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from holdfast.processor.language import trees
from holdfast.processor.language.linking import variable
from holdfast.processor.language.trees import Json

HIDDEN_RETURN = "$return"

Node = TypeVar("Node", bound=ast.AST)


class Label:
    """A place among the steps, known once it is marked."""

    step: int | None = None


@dataclass(frozen=True, slots=True)
class Finally:
    """A ``finally`` clause that jumps out of its ``try`` must run first."""

    pending: str
    entry: Label


@dataclass(frozen=True, slots=True)
class Unbind:
    """The end of ``except … as name``, which unbinds the name on every way out."""

    name: str


@dataclass(frozen=True, slots=True)
class Loop:
    """Where ``break`` and ``continue`` go, and how many clauses were open around the loop."""

    end: Label
    again: Label
    depth: int


@dataclass(frozen=True, slots=True)
class Context:
    """What holds at one place of the function."""

    catch: tuple[str, Label] | None = None
    handling: tuple[str, ...] = ()
    clauses: tuple[Finally | Unbind, ...] = ()
    loop: Loop | None = None


@dataclass(slots=True)
class Block:
    """The statements of one block; ``exits`` are where it may go on, by what it returns."""

    body: list[ast.stmt] = field(default_factory=list)
    exits: list[Label] = field(default_factory=list)


class Assembler:
    """Builds the steps and blocks of one program, front to back."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.blocks: list[Block] = []
        self.context = Context()
        self.live: list[str] = []
        self._block = Block()
        self._count = 0
        self._temporaries = 0
        self._ways: dict[tuple[Label, tuple[Finally | Unbind, ...]], Label] = {}
        self._return = Label()

    # Blocks

    def add(self, statement: ast.stmt, at: ast.AST) -> None:
        """Append a generated statement; its new nodes get the place of ``at``."""
        self._block.body.append(placed(statement, at))

    def native(self, statement: ast.stmt) -> None:
        """Append a statement of the user's, which holds no await; what jumps out of it becomes an exit."""
        result = _Exits(self).visit(statement)
        self._block.body.extend(result if isinstance(result, list) else [result])

    def exit(self, label: Label) -> ast.Return:
        """Return the statement by which the current block goes on at ``label``."""
        exits = self._block.exits
        if label not in exits:
            exits.append(label)
        return ast.Return(value=ast.Constant(exits.index(label) + 1))

    def branch(self, test: ast.expr, label: Label, *, sense: bool) -> None:
        """Go on at ``label`` if the truth of ``test`` is ``sense``, else with what follows."""
        if isinstance(test, ast.Constant):
            if bool(test.value) is sense:
                self.jump(label)
        elif sense:
            self.add(ast.If(test=test, body=[self.exit(label)], orelse=[]), test)
        else:
            self.add(ast.If(test=test, body=[ast.Pass()], orelse=[self.exit(label)]), test)

    def flush(self) -> None:
        """Close the current block, if it has anything."""
        block, self._block = self._block, Block()
        if block.body:
            after = Label()
            block.exits.insert(0, after)
            self._append("run", block=len(self.blocks), to=block.exits)
            self.blocks.append(block)
            after.step = len(self.steps)

    # Steps

    def emit(self, op: str, **operands: Any) -> None:
        """Append a step."""
        self.flush()
        self._append(op, **operands)

    def jump(self, label: Label) -> None:
        """Go on at ``label``."""
        self.emit("jump", to=label)

    def mark(self, label: Label) -> None:
        """Let ``label`` stand for the place reached."""
        self.flush()
        label.step = len(self.steps)

    @contextlib.contextmanager
    def within(self, **changes: Any) -> Iterator[None]:
        """Change what catches exceptions, or is handled, for what is assembled meanwhile."""
        self.flush()
        before = self.context
        self.context = replace(before, **changes)
        yield
        self.flush()
        self.context = before

    @contextlib.contextmanager
    def looping(self, end: Label, again: Label) -> Iterator[None]:
        """Let ``break`` and ``continue`` mean a loop meanwhile."""
        before = self.context
        self.context = replace(before, loop=Loop(end, again, len(before.clauses)))
        yield
        self.context = before

    # Hidden variables

    def slot(self, word: str) -> str:
        """Return a new hidden variable for a clause or loop."""
        self._count += 1
        return f"${word}{self._count}"

    def temporary(self) -> str:
        """Return a hidden variable that is free until the end of the statement."""
        self._temporaries += 1
        return f"$t{self._temporaries}"

    def keep(self, slot: str) -> None:
        """Let awaits from here on keep ``slot``, until the statement's end."""
        self.live.append(slot)

    @contextlib.contextmanager
    def statement(self) -> Iterator[None]:
        """Release the hidden variables of a statement, or of a part of one, at its end."""
        live, temporaries = len(self.live), self._temporaries
        yield
        del self.live[live:]
        self._temporaries = temporaries

    @contextlib.contextmanager
    def keeping(self, slot: str) -> Iterator[None]:
        """Keep ``slot`` meanwhile."""
        self.live.append(slot)
        yield
        self.live.remove(slot)

    # Ways out

    def break_way(self) -> Label:
        """Return where a ``break`` goes from here."""
        assert self.context.loop is not None  # noqa: S101 - Python has checked that there is a loop.
        return self._way(self.context.loop.end, self.context.clauses[self.context.loop.depth :])

    def continue_way(self) -> Label:
        """Return where a ``continue`` goes from here."""
        assert self.context.loop is not None  # noqa: S101 - Python has checked that there is a loop.
        return self._way(self.context.loop.again, self.context.clauses[self.context.loop.depth :])

    def return_way(self) -> Label:
        """Return where a ``return`` goes from here, its value being in ``$return``."""
        return self._way(self._return, self.context.clauses)

    def _way(self, goal: Label, clauses: tuple[Finally | Unbind, ...]) -> Label:
        if not clauses:
            return goal
        return self._ways.setdefault((goal, clauses), Label())

    def finish(self) -> None:
        """Lay out the end of the function and the ways through clauses."""
        self.emit("return")
        for (goal, clauses), label in self._ways.items():
            self.mark(label)
            for clause in reversed(clauses):
                if isinstance(clause, Unbind):
                    self.emit("unbind", name=clause.name)
                elif goal is self._return:
                    self.emit("leave", pending=clause.pending, to=clause.entry, returns=True)
                else:
                    self.emit("leave", pending=clause.pending, to=clause.entry)
            self.jump(goal)
        self.mark(self._return)
        self.emit("return", value=True)

    def _append(self, op: str, **operands: Any) -> None:
        step: dict[str, Any] = {"op": op, **operands}
        # Only these steps can raise or run the user's code.
        if op in {"run", "await", "resume", "raise"} and self.context.catch is not None:
            step["catch"] = list(self.context.catch)
        if op in {"run", "await"} and self.context.handling:
            step["handling"] = list(self.context.handling)
        self.steps.append(step)


class _Exits(ast.NodeTransformer):
    """Turns ``return``, and the ``break`` and ``continue`` of a loop outside, into exits of the block."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._loops = 0

    def visit_Return(self, node: ast.Return) -> list[ast.stmt]:
        value = node.value or ast.Constant(None)
        keep = ast.Assign(targets=[variable(HIDDEN_RETURN, ast.Store())], value=value)
        leave = self._assembler.exit(self._assembler.return_way())
        return [placed(keep, node), placed(leave, node)]

    def visit_Break(self, node: ast.Break) -> ast.stmt:
        return node if self._loops else placed(self._assembler.exit(self._assembler.break_way()), node)

    def visit_Continue(self, node: ast.Continue) -> ast.stmt:
        return node if self._loops else placed(self._assembler.exit(self._assembler.continue_way()), node)

    def visit_For(self, node: ast.For | ast.While) -> ast.stmt:
        self._loops += 1
        node.body = self._all(node.body)
        self._loops -= 1
        node.orelse = self._all(node.orelse)
        return node

    visit_While = visit_For  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> ast.stmt:
        return node

    visit_ClassDef = visit_FunctionDef  # noqa: N815 - NodeVisitor finds methods by these names.

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return node

    def _all(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        results: list[ast.stmt] = []
        for statement in statements:
            result = self.visit(statement)
            results.extend(result if isinstance(result, list) else [result])
        return results


def placed(node: Node, at: ast.AST) -> Node:
    """Give every node that has no place that of ``at``."""
    for part in ast.walk(node):
        if trees.has_place(part) and not hasattr(part, "lineno"):
            ast.copy_location(part, at)
    return node


def layout(steps: list[dict[str, Any]]) -> tuple[list[dict[str, Json]], list[int]]:
    """Return the steps that can be reached, with step numbers for labels, and the blocks they use, in order."""

    def goal(label: Label) -> int:
        """Follow jumps to where they lead, or once around if they lead in a circle."""
        passed: set[int] = set()
        step = _marked(label)
        while steps[step]["op"] == "jump" and step not in passed:
            passed.add(step)
            step = _marked(steps[step]["to"])
        return step

    reached: set[int] = set()
    todo = [0]
    while todo:
        number = todo.pop()
        if number in reached:
            continue
        reached.add(number)
        todo += [goal(label) for label in _labels(steps[number])]
        if steps[number]["op"] in {"await", "next", "leave", "unbind"}:
            todo.append(number + 1)
    numbers = {old: new for new, old in enumerate(sorted(reached))}
    used = [steps[old]["block"] for old in sorted(reached) if steps[old]["op"] == "run"]

    def resolved(name: str, value: Any) -> Json:
        if isinstance(value, Label):
            return numbers[goal(value)]
        if isinstance(value, list):
            return [resolved("", item) for item in value]
        return used.index(value) if name == "block" else value

    return [{name: resolved(name, value) for name, value in steps[old].items()} for old in sorted(reached)], used


def _labels(step: dict[str, Any]) -> list[Label]:
    values = [item for value in step.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Label)]


def _marked(label: Label) -> int:
    assert label.step is not None  # noqa: S101 - Every label that is used gets marked.
    return label.step
