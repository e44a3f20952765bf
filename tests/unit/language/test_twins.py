"""A machine gives exactly what Python gives, in memory and with a reload at every await."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable
from tests.support.twin import ORDERS, Effects, Order, compare
from tests.unit.language.corpus import (
    Box,
    Counted,
    Truth,
    cases,
    exceptions,
    expressions,
    gathers,
    loops,
    matching,
    routines,
    scopes,
)

CASES = [
    *((*case, "first") for case in cases(expressions, loops, exceptions, matching, scopes, routines)),
    *((*case, order) for case in cases(gathers) for order in ORDERS),
]


def failing(at: int | None, error: Callable[[], BaseException]) -> Effects:
    """Answer each await with its number, but let one fail."""

    def effects(number: int, _awaited: Awaitable[Any]) -> Returned | Raised:
        return Raised(error()) if number == at else Returned(number)

    return effects


@pytest.mark.parametrize(
    ("function", "arguments", "order"), CASES, ids=[f"{function.__name__}-{order}" for function, _, order in CASES]
)
def test_same_as_python(function: Callable[..., Any], arguments: list[dict[str, Any]], order: Order) -> None:
    modules = ("contextlib", "math", "sys")
    for values in arguments:
        result = compare(function, values, failing(None, ValueError), Box, Counted, Truth, modules=modules, order=order)
        awaits = sum(entry.startswith("await") for entry in result.log)
        for at in range(min(awaits, 25)):
            for error in (lambda: Counted("failed"), lambda: ValueError("failed"), lambda: KeyboardInterrupt("failed")):
                compare(function, values, failing(at, error), Box, Counted, Truth, modules=modules, order=order)
