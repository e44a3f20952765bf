"""Workflows: the functions that messages start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import ClassVar, get_args

from holdfast.processor.language.definition import Definition, title_of
from holdfast.processor.language.idle import Idling
from holdfast.processor.language.options import OnCompletion, OnUnhandled, Persistence
from holdfast.processor.language.routine import reachable
from holdfast.processor.language.subflows import run
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message
from holdfast.schemas.settings import OnIdle

_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "persistence": get_args(Persistence),
    "on_unhandled": get_args(OnUnhandled),
    "state_encoding": (*get_args(StateEncoding), None),
    "on_completion": get_args(OnCompletion),
}
"""The options that take one of a few words."""


@dataclass(frozen=True, kw_only=True)
class Workflow(Definition):
    """A registered workflow: its compiled program and how it is run.

    ``parameter`` is the name under which the function takes its start message. The options are those of
    ``WorkflowOptions``.
    """

    kind: ClassVar[str] = "workflow"

    start: type[Message]
    parameter: str
    persistence: Persistence = "regular"
    on_unhandled: OnUnhandled = "abandon_and_suspend"
    expected_lifetime: timedelta | None = None
    promote: Sequence[str] = ()
    max_bursts: int | None = None
    on_idle: OnIdle | None = None
    time_to_persist: timedelta | None = None
    time_to_unload: timedelta | None = None
    state_encoding: StateEncoding | None = None
    on_completion: OnCompletion = "keep"
    reuse_key: bool = False

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        for option, values in _CHOICES.items():
            if (given := getattr(self, option)) not in values:
                raise AppError(f"{option}={given!r}: use one of {', '.join(v for v in values if v)}")
        if self.expected_lifetime is not None and self.expected_lifetime <= timedelta():
            raise AppError(f"expected_lifetime={self.expected_lifetime!r}: a workflow takes some time")
        _ = self.idling
        if self.max_bursts is not None and self.max_bursts < 1:
            raise AppError(f"max_bursts={self.max_bursts!r}: at least one instance has to run at a time")
        code = self.function.__code__
        for name in self.promote:
            if name not in (*code.co_varnames, *code.co_cellvars):
                raise AppError(f"workflow {self.name} promotes {name!r}, which is none of its variables")

    @property
    def frees_key(self) -> bool:
        """Whether a closed instance stands in the way of no start message with its key."""
        return self.reuse_key or self.on_completion == "delete"

    @cached_property
    def idling(self) -> Idling:
        """What the workflow says of its idle instances."""
        return Idling(on_idle=self.on_idle, time_to_persist=self.time_to_persist, time_to_unload=self.time_to_unload)

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
