"""The lines of a user's source file, as far as the file is here and still the one that was compiled."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from holdfast.processor.language.program import Program

_OF_WORKFLOW = re.compile(r"0[.][0-9]+([/:].*)?", re.DOTALL)
"""What names a bookmark of a workflow's own frame."""


class Source:
    """The source of a program; ``None`` stands for a program that is not stored.

    Lines are given only if the function still stands where it was compiled from: text from another version of the
    file would mislead.
    """

    def __init__(self, program: Program | None) -> None:
        self.file = "" if program is None else program.file
        self._lines: list[str] = []
        if program is None:
            return
        try:
            text = Path(program.file).read_text(encoding="utf-8")
            functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.AsyncFunctionDef)]
        except (OSError, ValueError, SyntaxError):
            return
        if any(f.name == program.function.rpartition(".")[2] and program.line in _firsts(f) for f in functions):
            self._lines = text.splitlines()

    def of_frame(self, path: str | None) -> Source:
        """Return this source for the workflow's own frame, and one that is not known for those of routines.

        A routine may stand in another file, or be an older version of itself.
        """
        return self if path in (None, "0") else Source(None)

    def of_bookmark(self, name: str) -> Source:
        """Return the source for the frame that opened a bookmark, as ``of_frame`` does."""
        return self if _OF_WORKFLOW.fullmatch(name) else Source(None)

    def line(self, number: int | None) -> str | None:
        """Return the text of a line without its indentation."""
        if number is None or not 1 <= number <= len(self._lines):
            return None
        return self._lines[number - 1].strip()

    def place(self, number: int | None) -> str:
        """Return a line's number with its text, if there is any."""
        if number is None:
            return ""
        text = self.line(number)
        return f"line {number}" if text is None else f"line {number}: {text}"


def _firsts(function: ast.AsyncFunctionDef) -> set[int]:
    """Return the lines that may pass for the function's first: its own and its decorators'."""
    return {function.lineno, *(decorator.lineno for decorator in function.decorator_list)}
