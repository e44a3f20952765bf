"""Workflows: the functions that messages start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import ClassVar, Literal

from holdfast.processor.language.definition import Definition, title_of
from holdfast.processor.language.routine import reachable
from holdfast.processor.language.subflows import run
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message

Persistence = Literal["regular", "in_memory"]
OnUnhandled = Literal["abandon_and_suspend", "abandon", "cancel", "terminate"]


@dataclass(frozen=True, kw_only=True)
class Workflow(Definition):
    """A registered workflow: its compiled program and how it is run.

    ``parameter`` is the name under which the function takes its start message.
    """

    kind: ClassVar[str] = "workflow"

    start: type[Message]
    parameter: str
    persistence: Persistence
    on_unhandled: OnUnhandled
    expected_lifetime: timedelta | None
    promote: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to promote what is no variable."""
        code = self.function.__code__
        for name in self.promote:
            if name not in (*code.co_varnames, *code.co_cellvars):
                raise AppError(f"workflow {self.name} promotes {name!r}, which is none of its variables")

    @cached_property
    def receives(self) -> frozenset[str]:
        """The message types that an instance waits for somewhere, its start type included."""
        received = (message for definition in self.reached() for message in definition.received())
        return frozenset(message.message_type for message in (self.start, *received))

    @cached_property
    def needs_persistence(self) -> bool:
        """Whether an instance cannot do without a persistence provider."""
        return any(definition.uses_persistence for definition in self.reached())

    def reached(self) -> list[Definition]:
        """Return the definitions of all that runs in an instance: of routines, and of workflows that it runs."""
        found: dict[int, Definition] = {}
        waiting: list[Definition] = [self]
        while waiting:
            definition = waiting.pop()
            if id(definition) in found:
                continue
            found[id(definition)] = definition
            waiting += (routine.definition for routine in reachable(definition.named()).values())
            for call, function in definition.calls():
                if function is run and call.args and (title := title_of(definition.value(call.args[0]))) is not None:
                    waiting.append(title.definition)
        return list(found.values())
