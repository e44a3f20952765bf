"""An exception that left a workflow, on its way to who holds the instance."""

from __future__ import annotations

import traceback

from holdfast.events.types import Where
from holdfast.processor.language.program import Program
from holdfast.schemas.identifiers import storable


class UnhandledError(Exception):
    """The workflow let an exception out; ``error`` is that exception."""

    def __init__(self, error: BaseException, where: Where) -> None:
        super().__init__(str(error))
        self.error = error
        self.where = where

    @property
    def name(self) -> str:
        """The qualified name of the exception's class."""
        kind = type(self.error)
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

    @property
    def detail(self) -> str:
        """What the exception says, as Python prints it; always fit to be stored."""
        return storable("".join(traceback.format_exception_only(self.error)).strip())


def line_of(error: BaseException, program: Program, default: int) -> int:
    """Return the line of the workflow function at which ``error`` left it."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == program.file:
            return step.tb_lineno
        step = step.tb_next
    return default
