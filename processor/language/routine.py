"""Routines: ``async def`` functions that workflows and other routines await.

A routine is compiled as a workflow is and runs as a further frame of the instance that awaits it, with
variables of its own. It may await whatever a workflow may, itself included. Exceptions cross from one
frame to the next as they do in Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from holdfast.processor.language.awaitables import RoutineCall
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.definition import Definition
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import AppError, InvalidMessage
from holdfast.schemas.identifiers import check_name

P = ParamSpec("P")
R = TypeVar("R")

RESERVED = "holdfast."
"""What the names of Holdfast's own routines and message types begin with."""


class Routine(Generic[P, R]):
    """A compiled routine; calling it gives an awaitable ``RoutineCall``, and does nothing else yet.

    ``name`` is how running instances know it. ``function`` is the user's function itself, for tests.
    """

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]], *, name: str) -> None:
        self.function = function
        self.name = name
        self.definition = Definition(name=name, function=function, program=compile_workflow(function, name=name))
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RoutineCall[R]:
        """Bind the arguments; ``TypeError`` if they do not fit, worded as Python does."""
        # Python itself binds them: a coroutine that has not begun has its parameters for variables.
        coroutine = self.function(*args, **kwargs)
        arguments = inspect.getcoroutinelocals(coroutine)
        coroutine.close()
        return RoutineCall(self.name, arguments)

    def __repr__(self) -> str:
        return f"<routine {self.name}>"

    @property
    def program(self) -> Program:
        """The routine's program, as compiled from the function."""
        return self.definition.program

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The resolved annotations, ``return`` included; ``AppError`` if a name is missing."""
        try:
            return get_type_hints(self.function)
        except NameError as error:
            raise AppError(f"routine {self.name}: annotation names an unknown type: {error}") from None


class RoutineDecorator(Protocol):
    """Makes a function a routine."""

    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Routine[P, R]: ...


@overload
def routine(function: Callable[P, Awaitable[R]], /) -> Routine[P, R]: ...
@overload
def routine(*, name: str | None = None) -> RoutineDecorator: ...
def routine(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Compile an ``async def`` that workflows and routines may await; usable with and without arguments.

    Its ``name``, by default the function's, is unique in every app that uses it, and must stay for as
    long as instances run it. An instance that is inside a routine stays on the program with which the
    call began; the next call takes the routine as it is deployed then.

    Raises:
        CompileError: the function does something that cannot be persisted; with file, line and mend.
        AppError: the name is empty or too long.
    """

    def register(function: Callable[..., Any]) -> Routine[Any, Any]:
        try:
            title = check_name("routine", name or function.__name__)
        except InvalidMessage as error:
            raise AppError(error.detail) from None
        if title.startswith(RESERVED):
            raise AppError(f"routine {title!r}: names that begin with {RESERVED!r} are Holdfast's own")
        return Routine(function, name=title)

    return register if function is None else register(function)


def reachable(values: Iterable[object]) -> dict[str, Routine[Any, Any]]:
    """Return the routines among some values, and those that they name in turn, by name.

    Raises ``AppError`` if two of them have one name.
    """
    found: dict[str, Routine[Any, Any]] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Routine):
            continue
        if value.name not in found:
            found[value.name] = value
            waiting += value.definition.named()
        elif (other := found[value.name]) is not value:
            raise AppError(
                f"two routines are named {value.name!r}, at {other.definition.place} and {value.definition.place}: "
                "give one of them another name, as in @routine(name='...')"
            )
    return found
