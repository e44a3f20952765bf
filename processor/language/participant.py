"""Participants: user code that takes part in the persistence of instances.

A participant keeps something beside the workflow's variables that belongs to the instance: its object lives as
long as the instance is loaded, and activities reach it with ``activity_context().participant(…)``.

    at a persistence point, in its transaction      collect of all, then on_save of all
    when the instance is loaded                      on_load of all, then publish of all

Participants go in the order in which they were registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from uuid import UUID

from holdfast.events.types import Reason
from holdfast.processor.language.definition import title_of
from holdfast.processor.language.transaction import Transaction
from holdfast.schemas.errors import AppError
from holdfast.schemas.words import ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a participant gives to be persisted, by names that no other value of the instance has.

    ``read_write`` values come back on load with their exact types; whatever may stand in a variable may stand here.
    ``write_only`` values are for queries, and never read back: JSON, and what becomes JSON, which are ``datetime``,
    ``date``, ``time``, ``UUID``, ``Decimal``, enums, models and dataclasses.
    """

    read_write: Mapping[str, Any] = field(default_factory=dict)
    write_only: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """What a participant may know of its instance.

    On a save, ``version`` and ``status`` are those that the persistence point brings about, ``reason`` is its
    reason, and ``values`` are the read-write values that all participants gave for it. On a load they are as of the
    last persistence point, and ``reason`` is None.
    """

    instance_id: UUID
    workflow: str
    correlation_key: str
    version: int
    status: ExecutionStatus
    reason: Reason | None
    values: Mapping[str, Any]


class Participant:
    """Base of participants; override what is needed.

    A subclass that is registered with ``@app.participant`` is made anew, without arguments, for every instance that is
    loaded. What a method raises is an unhandled exception of the workflow.
    """

    def collect(self) -> Values:
        """Return what is to be persisted now, all of it: a value that is missing is forgotten."""
        return Values()

    def publish(self, values: Mapping[str, Any]) -> None:
        """Take back the read-write values of all participants, as of the last persistence point.

        Called once, before the instance goes on, and not for one that was never persisted.
        """

    async def on_save(self, tx: Transaction, instance: InstanceView) -> None:
        """Write in the transaction of a persistence point, after record activities and pending work.

        What it raises refuses the commit.
        """

    async def on_load(self, tx: Transaction, instance: InstanceView) -> None:
        """Read, before ``publish``, in a transaction of its own that commits at the end.

        Not called for an instance that was never persisted.
        """


@dataclass(frozen=True, slots=True)
class Registered:
    """A participant class of an app, and the workflows that it is for: names and functions, or None for all."""

    kind: type[Participant]
    workflows: Sequence[str | Callable[..., Any]] | None

    @property
    def names(self) -> list[str] | None:
        """The names of its workflows; None for all."""
        return None if self.workflows is None else [_name(workflow) for workflow in self.workflows]

    @property
    def hints(self) -> list[Any]:
        """What the annotations of the class name; ``AppError`` if a name is missing."""
        try:
            return list(get_type_hints(self.kind).values())
        except NameError as error:
            raise AppError(f"participant {self.kind.__name__}: annotation names an unknown type: {error}") from None

    def check(self) -> None:
        """Raise ``AppError`` if objects of the class cannot be made, or are no participants."""
        if Participant not in getattr(self.kind, "__mro__", ()):
            raise AppError(f"{self.kind!r} is no participant: make it a subclass of Participant")
        for parameter in inspect.signature(self.kind).parameters.values():
            if parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise AppError(
                    f"participant {self.kind.__name__} needs {parameter.name!r} to be made: give it a default"
                )


def _name(workflow: str | Callable[..., Any]) -> str:
    title = title_of(workflow)
    return title.definition.name if title is not None else str(workflow)
