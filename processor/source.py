"""The lines of a user's source file, as far as the file is here and still the one that was compiled."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.events.types import Where
from holdfast.processor.language.program import Program
from holdfast.processor.language.trees import load
from holdfast.projections.history import SourceLine

_OF_WORKFLOW = re.compile(r"0[.][0-9]+([/:].*)?", re.DOTALL)
"""What names a bookmark of a workflow's own frame."""


class Source:
    """The source of a program; ``None`` stands for a program that is not stored.

    Lines are given only if the function still stands where it was compiled from: text from another version of the
    file would mislead.
    """

    def __init__(self, program: Program | None) -> None:
        self.file = "" if program is None else program.file
        self._program = program
        self._lines: dict[int, str] = {}
        if program is None:
            return
        try:
            text = Path(program.file).read_text(encoding="utf-8")
            functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.AsyncFunctionDef)]
        except (OSError, ValueError, SyntaxError):
            return
        name = program.function.rpartition(".")[2]
        lines = dict(enumerate(text.split("\n"), 1))
        for function in functions:
            if function.name == name and program.line in _firsts(function):
                self._lines = {n: lines[n] for n in range(program.line, (function.end_lineno or 0) + 1)}

    def of_bookmark(self, name: str) -> Source:
        """Return this source for a bookmark of the workflow's own frame, and one that is not known for a routine's.

        A routine may stand in another file, or be an older version of itself.
        """
        return self if _OF_WORKFLOW.fullmatch(name) else Source(None)

    def line(self, number: int | None) -> str | None:
        """Return the text of a line without its indentation."""
        return None if number is None or number not in self._lines else self._lines[number].strip()

    def at(self, where: Where) -> SourceLine:
        """Return the line of a place; without the file, the await there as the stored program has it."""
        text = self.line(where.line)
        if text is not None or self._program is None:
            return SourceLine(self.file, where.line, text)
        stored = _awaited(self._program, where.step)
        return SourceLine(self.file, where.line, stored, is_stored=stored is not None)

    def place(self, number: int | None) -> str:
        """Return a line's number with its text, if there is any."""
        if number is None:
            return ""
        text = self.line(number)
        return f"line {number}" if text is None else f"line {number}: {text}"


def _awaited(program: Program, step: int) -> str | None:
    """Return the await of a step in Python; what was awaited inside of it before, as an ellipsis."""
    if not 0 <= step < len(program.steps) or program.steps[step]["op"] != "await":
        return None
    place = program.steps[step]["at"]
    for node in _assignments(program.blocks):
        target = node["targets"][0]
        if node["at"] == place and target.get("slice", {}).get("value") == "$await":
            try:
                return f"await {ast.unparse(_Inner().visit(load(node['value'])))}"
            except ValueError:
                return None
    return None


def _assignments(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("_") == "Assign":
                yield node
            waiting += node.values()
        elif isinstance(node, list | tuple):
            waiting += node


class _Inner(ast.NodeTransformer):
    """Puts an ellipsis where a value comes out of a slot."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node.value:
            case ast.Name(id="$v"):
                return ast.Name(id="…", ctx=ast.Load())
        return self.generic_visit(node)


def _firsts(function: ast.AsyncFunctionDef) -> set[int]:
    """Return the lines that may pass for the function's first: its own and its decorators'."""
    return {function.lineno, *(decorator.lineno for decorator in function.decorator_list)}
