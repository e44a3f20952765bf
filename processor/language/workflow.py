"""Workflows: the functions that messages start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import ClassVar, Literal

from holdfast.processor.language.definition import Definition
from holdfast.processor.language.routine import reachable
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

    @cached_property
    def receives(self) -> frozenset[str]:
        """The message types that it waits for somewhere, in its routines too, its start type included."""
        own = super().receives
        return own.union({self.start.message_type}, *(r.receives for r in self.with_routines() if r is not self))

    @cached_property
    def needs_persistence(self) -> bool:
        """Whether it, or a routine that it reaches, cannot do without a persistence provider."""
        return any(definition.uses_persistence for definition in self.with_routines())

    def with_routines(self) -> list[Definition]:
        """Return the workflow's own definition and those of the routines that it reaches."""
        return [self, *(routine.definition for routine in reachable(self.named()).values())]
