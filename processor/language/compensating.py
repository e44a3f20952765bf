"""What undoes, confirms and cancels: routines of Holdfast's own, which run as frames like the user's.

So each action is persisted, retried and resumed like anything else that is awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from holdfast.processor.language.compensable import Action, Compensable, Ledger
from holdfast.processor.language.routine import RESERVED, Routine
from holdfast.schemas.errors import CompensationFailed

P = ParamSpec("P")
R = TypeVar("R")


def _own(function: Callable[P, Coroutine[Any, Any, R]]) -> Routine[P, R]:
    return Routine(function, name=f"{RESERVED}{function.__name__}")


@_own
async def carry_out(actions: list[Action]) -> None:
    """Do what is to be done, one after the other; ``CompensationFailed`` from the first that raises something."""
    for action in actions:
        try:
            await action.call
        # Nobody is there to take anything else, SystemExit for instance: the rest would count as done.
        except BaseException as error:
            raise _failed(action, error) from error


@_own
async def compensate(scope: Compensable) -> None:
    """Undo a completed scope and those inside of it, newest action first.

    If an action fails, the instance ends as faulted with ``CompensationFailed``.

    Raises:
        TypeError: ``scope`` is not what ``compensable()`` gave.
        CompensationError: it is not completed, or was undone or confirmed before.
    """
    await carry_out(_ledger(scope).undo(scope))


@_own
async def confirm(scope: Compensable) -> None:
    """Confirm a completed scope and those inside of it, oldest action first; raises as ``compensate`` does."""
    await carry_out(_ledger(scope).confirm(scope))


def _ledger(scope: object) -> Ledger:
    if not isinstance(scope, Compensable):
        raise TypeError(f"only what compensable() gave can be compensated or confirmed, not {scope!r}")
    return scope.ledger


def _failed(action: Action, error: BaseException) -> CompensationFailed:
    return CompensationFailed(f"{action.name}, which was to {action.kind} a scope, raised {error!r}")


ROUTINES: tuple[Routine[Any, Any], ...] = (carry_out, compensate, confirm)
"""The routines that every app has."""
