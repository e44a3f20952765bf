"""The scopes that ``async with`` takes in a workflow.

None of them does anything by itself: each gives a ``Scope``, which is data. Inside ``transaction``,
``transacted_receive`` and ``no_persist`` nothing may be awaited that waits, or persists by itself; where it is
found in the scope's own body the decorator refuses it (``CompileError``), else it is a ``ScopeError`` at its ``await``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from holdfast.processor.language.awaitables import (
    CompensableScope,
    NoPersist,
    Scope,
    TransactedReceive,
    TransactionScope,
    wanted,
)
from holdfast.schemas.message import Message

if TYPE_CHECKING:
    from holdfast.processor.language.compensable import Compensable

M = TypeVar("M", bound=Message)


def transaction(timeout: timedelta | None = None) -> Scope[None]:
    """Do the work inside in one transaction, which commits when the scope ends.

    If an exception leaves the scope, its record writes, sends and pending work are dropped; variables stay as
    they are. Inside another ``transaction`` it is a savepoint of that one.

    Args:
        timeout: how long it may stay open, after which ``TimeoutError`` is raised at the running await and
            the scope cannot complete; ``None`` means the host's ``transaction_timeout``.

    Raises:
        TypeError: ``timeout`` is not a ``timedelta``.
        ValueError: ``timeout`` is not positive.
    """
    if timeout is not None:
        if not isinstance(timeout, timedelta):
            raise TypeError(f"the timeout of transaction() is a timedelta, not {timeout!r}")
        if timeout <= timedelta(0):
            raise ValueError(f"the timeout of transaction() must be positive, not {timeout}")
    return TransactionScope(timeout)


def transacted_receive(type: type[M], key: object, timeout: timedelta | None = None) -> Scope[M]:
    """Wait for a message, then do the work inside in one transaction with its consumption.

    If the scope fails, the message goes back to the mailbox with one more attempt counted.

    Args:
        type: a ``Message`` subclass.
        key: the correlation key; numbers and UUIDs are taken in their text form.
        timeout: how long to wait for the message at most; ``None`` waits without end.

    Raises:
        TypeError: ``type`` is not a message type, or ``timeout`` not a ``timedelta``.
        InvalidMessage: the key is empty or too long.
    """
    return TransactedReceive(*wanted("transacted_receive", type, key, timeout))


def no_persist() -> Scope[None]:
    """Persist nothing inside; a persist or unload requested from outside waits for the end."""
    return NoPersist()


def compensable() -> Scope[Compensable]:
    """Do work that can be undone, confirmed or cancelled later; gives a ``Compensable``.

    Its actions are undone, newest first, when the workflow is cancelled or ends by an exception under
    ``on_unhandled="cancel"``, and confirmed, oldest first, when it returns; or earlier by ``await compensate(…)`` or
    ``await confirm(…)``. If an exception leaves the scope and is caught, its ``cancel`` actions run at the next await,
    or its ``undo`` actions if it has none of those.
    """
    return CompensableScope()
