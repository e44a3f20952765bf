"""The laws of the port, each a coroutine function that shows one of them on a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

from holdfast.processor.testing.conformance.harness import Store

Level = Literal["core", "locking"]
"""What every provider keeps, and what one keeps that several hosts can use."""

Check = Callable[[Store], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Law:
    """One law; ``await law.check(store)`` raises ``AssertionError`` if a store breaks it.

    The store must be empty, and only one law may be shown on it. ``str(law)`` is the law in words.
    """

    name: str
    level: Level
    check: Check

    def __str__(self) -> str:
        return self.name.replace("_", " ")


LAWS: list[Law] = []
"""All laws, in the order in which their modules are imported."""


@overload
def law(check: Check, /) -> Check: ...
@overload
def law(check: Level, /) -> Callable[[Check], Check]: ...
def law(check: Check | Level, /) -> Check | Callable[[Check], Check]:
    """Make a function a law, by its name: of the core, unless another level is given."""
    if not isinstance(check, str):
        return _enact(check, "core")
    level = check
    return lambda function: _enact(function, level)


def _enact(check: Check, level: Level) -> Check:
    LAWS.append(Law(check.__name__, level, check))
    return check


@contextmanager
def refused(kind: type[Exception]) -> Iterator[None]:
    """Expect the body to raise."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")
