"""``gather``: activities, waits and routines side by side."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from holdfast.processor.language.awaitables import (
    ActivityCall,
    Awaitable,
    Delay,
    FirstOf,
    Gather,
    Receive,
    RoutineCall,
    SubflowCall,
)

T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T = TypeVar("T")

BRANCHES = (ActivityCall, Receive, Delay, FirstOf, RoutineCall, SubflowCall)


# As for asyncio.gather, type checkers are told of a tuple where the number of results is known: of a
# list they could not say that each item has a type of its own.
@overload
def gather(a: Awaitable[T1], /) -> Awaitable[tuple[T1]]: ...
@overload
def gather(a: Awaitable[T1], b: Awaitable[T2], /) -> Awaitable[tuple[T1, T2]]: ...
@overload
def gather(a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /) -> Awaitable[tuple[T1, T2, T3]]: ...
@overload
def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
) -> Awaitable[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], e: Awaitable[T5], /
) -> Awaitable[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(*branches: Awaitable[T]) -> Awaitable[list[T]]: ...
def gather(*branches: Awaitable[Any]) -> Awaitable[Any]:
    """Run activities, ``receive``, ``delay``, ``first_of``, routines, ``run`` and ``start`` side by side.

    The answer is the list of their results, in the order of the branches. Code activities run at the
    same time, record activities one after the other; routines take turns at their awaits, as asyncio
    tasks do, each as a further frame.

    The first exception that leaves a branch is raised at the ``await`` of the ``gather``, once all
    branches have ended. To that end the others are cancelled. A routine gets ``Cancelled`` raised at what it
    awaits, once, and may clean up; an open ``receive``, ``delay`` or ``first_of`` is closed; a running
    activity is cancelled as asyncio cancels, and one that is a plain ``def`` is waited for, since
    nothing can stop a thread. What cancelled branches return is dropped; what they raise is noted on
    the exception (``__notes__``).

    Raises:
        TypeError: a branch is none of these; ``send``, ``spawn`` and ``checkpoint`` are awaited by themselves.
    """
    for branch in branches:
        if not isinstance(branch, BRANCHES) or (isinstance(branch, SubflowCall) and branch.mode == "spawn"):
            raise TypeError(
                "a branch of gather() is an activity, a receive(), delay() or first_of(), a routine, or a run() or "
                f"start(), but one is {branch!r}"
            )
    return Gather(branches)
