"""Subflows: a workflow that runs another workflow of its app, or goes on as a new one."""

from __future__ import annotations

from collections.abc import Awaitable as PythonAwaitable
from collections.abc import Callable
from typing import Any, Literal, Never, TypeVar
from uuid import UUID

from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import Awaitable, ContinueAsNew, SubflowCall, checkpoint
from holdfast.processor.language.definition import title_of
from holdfast.processor.language.scopes import transacted_receive
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R")


def run(workflow: Callable[[M], PythonAwaitable[R]], input: M, /) -> Awaitable[R]:
    """Run another workflow in this one's transactions; answers with its result.

    The other one must be ``in_memory``; its variables and waits are part of this instance, its events a stream of
    their own. What it raises is raised at the ``await``.

    Raises:
        AppError: ``workflow`` is no workflow of an app.
        TypeError: ``input`` is not of the type that starts it.
    """
    return _call("run", workflow, input)


def start(workflow: Callable[[M], PythonAwaitable[R]], input: M, /) -> Awaitable[R]:
    """Start another workflow as an instance of its own and wait for its result.

    What it raises is raised at the ``await``, as is ``SubflowFailed`` if it was cancelled or terminated, and
    ``KeyInUse`` if its correlation key is taken.

    Raises:
        AppError: ``workflow`` is no workflow of an app.
        TypeError: ``input`` is not of the type that starts it.
    """
    return _call("start", workflow, input)


def spawn(workflow: Callable[[M], PythonAwaitable[Any]], input: M, /) -> Awaitable[UUID]:
    """Start another workflow as an instance of its own and go on; answers with its id.

    ``KeyInUse`` is raised at the ``await`` if its correlation key is taken.

    Raises:
        AppError: ``workflow`` is no workflow of an app.
        TypeError: ``input`` is not of the type that starts it.
    """
    return _call("spawn", workflow, input)


def continue_as_new(input: Message, /) -> Awaitable[Never]:
    """End this instance and go on as a new one of the same workflow, with a fresh stream, from ``input``."""
    if not isinstance(input, Message):
        raise TypeError(f"continue_as_new() takes the message that starts the workflow anew, not {input!r}")
    return ContinueAsNew(input)


_COMMITTING = (start, spawn, continue_as_new, checkpoint, transacted_receive)


def commits_by_itself(function: object) -> str | None:
    """Name what is called, if it takes a transaction of its own, which a workflow that another one runs has not."""
    if isinstance(function, Activity):
        return None if function.repeatable else f"activity {function.name}"
    return next((f"{each.__name__}()" for each in _COMMITTING if each is function), None)


def _call(mode: Literal["run", "start", "spawn"], workflow: Callable[..., Any], input: Message) -> Awaitable[Any]:
    title = title_of(workflow)
    if title is None:
        raise AppError(f"{mode}() takes a workflow, the function below @app.workflow(…), and not {workflow!r}")
    if not isinstance(input, title.start):
        raise TypeError(
            f"workflow {title.name} starts with a {title.start.__name__}, so {mode}() cannot take {input!r}"
        )
    return SubflowCall(title.name, input, mode)
