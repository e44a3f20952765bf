"""What Python itself does with what a workflow awaits: routines run as coroutines, branches of a ``gather`` by turns.

A coroutine yields all that it waits for at once and is sent which of these has been answered, and how.
"""

import contextlib
import functools
import inspect
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from typing import Any, NoReturn, cast
from unittest import mock

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable, Enter, Gather, Leave, RoutineCall
from holdfast.processor.language.routine import Routine
from holdfast.schemas.errors import Cancelled

Pending = list[tuple[Awaitable[Any], int]]
"""What a coroutine waits for at once, each with the line of its await; it is sent an index and an answer."""

Run = Generator[Pending, tuple[int, Returned | Raised], Any]

Routines = Mapping[str, Routine[Any, Any]]


@contextlib.contextmanager
def natively(routines: Routines) -> Iterator[None]:
    """Let coroutines await what a workflow may, these routines included."""

    def run(call: RoutineCall[Any]) -> Generator[Any, Any, Any]:
        function = routines[call.routine].function
        bound = inspect.BoundArguments(inspect.signature(function), OrderedDict(call.arguments))
        coroutine: Coroutine[Any, Any, Any] = function(*bound.args, **bound.kwargs)
        return coroutine.__await__()

    def gather(gathered: Gather) -> Run:
        return _gathered(gathered, sys._getframe(1).f_lineno)

    def answered(awaited: Awaitable[Any]) -> Run:
        waits = sys._getframe(1)
        if isinstance(awaited, Enter | Leave) and waits.f_back is not None:
            # What awaits it is called by ``async with``.
            waits = waits.f_back
        return _answered(awaited, waits.f_lineno)

    with (
        mock.patch.object(Awaitable, "__await__", answered),
        mock.patch.object(Gather, "__await__", gather),
        mock.patch.object(RoutineCall, "__await__", run),
    ):
        yield


def _answered(awaited: Awaitable[Any], line: int) -> Run:
    """Await natively: an error comes from within the await, as that of a function that runs there."""
    _, answer = yield [(awaited, line)]
    if isinstance(answer, Returned):
        return answer.value
    return _raise_again(answer.error)


def _gathered(gathered: Gather, line: int) -> Run:
    """Run the branches of a ``gather`` by turns; on an error cancel the others, let them end, and raise it."""
    runs = [_begun(branch, line) for branch in gathered.branches]
    results: list[Any] = [None] * len(runs)
    waiting: dict[int, Pending] = {}
    errors: list[BaseException] = []

    def step(index: int, go: Callable[[], Pending]) -> None:
        waiting.pop(index, None)
        try:
            waiting[index] = go()
        except StopIteration as stop:
            results[index] = stop.value
        except BaseException as error:  # noqa: BLE001 - the branch may raise anything
            if not errors:
                errors.append(error)
            elif not isinstance(error, Cancelled):
                said = "".join(traceback.format_exception_only(error)).strip()
                errors[-1].add_note(f"Another branch of the gather then raised {said}")

    for index, run in enumerate(runs):
        step(index, functools.partial(next, run))
    is_cancelling = False
    while errors or waiting:
        if errors and not is_cancelling:
            is_cancelling = True
            for index in sorted(waiting):
                told = Cancelled()
                # It is raised in place, while what the workflow handles is being handled.
                told.__context__ = sys.exc_info()[1]
                step(index, functools.partial(runs[index].throw, told))
        if not waiting:
            _raise_again(errors[-1])
        branches = [(index, place) for index in sorted(waiting) for place in range(len(waiting[index]))]
        sent: Cancelled | tuple[int, Returned | Raised]
        try:
            sent = yield [waiting[index][place] for index, place in branches]
        except Cancelled as cancelled:
            sent = cancelled
        if isinstance(sent, Cancelled):
            sent.__context__ = errors[-1] if errors else None
            errors.append(sent)
        else:
            index, place = branches[sent[0]]
            step(index, functools.partial(runs[index].send, (place, sent[1])))
    return results


def _begun(branch: Awaitable[Any], line: int) -> Run:
    run: Any = branch.__await__() if isinstance(branch, RoutineCall) else _answered(branch, line)
    return cast("Run", run)


def _raise_again(error: BaseException) -> NoReturn:
    """Raise an error the way it came about: while its context was being handled."""
    if error.__context__ is not None:
        try:
            _raise_again(error.__context__)
        except BaseException:  # noqa: BLE001 - it is the one just raised
            raise error  # noqa: B904 - its cause is decided already
    raise error
