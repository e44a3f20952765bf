"""What Python itself does with what a workflow awaits: routines run as coroutines, branches of a ``gather`` by turns.

A coroutine yields all that it waits for at once and is sent which of these has been answered, and how, or that it is
cancelled. (An exception that is thrown into it would not know what is being handled there.)
"""

import contextlib
import functools
import inspect
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import copy_context
from types import FrameType
from typing import Any, NoReturn
from unittest import mock

from holdfast.processor.core.outcomes import Returned
from holdfast.processor.language.awaitables import Awaitable, CompensableScope, Enter, Gather, Leave, RoutineCall
from holdfast.processor.language.routine import RESERVED
from holdfast.schemas.errors import Cancelled
from tests.support.native_compensation import Compensations, Pending, Run, begin_branch, shielded
from tests.support.native_source import on_its_way

Functions = Mapping[str, Callable[..., Any]]


class Natively(contextlib.ExitStack):
    """While it is open coroutines may await what a workflow may; ``functions`` are the routines, by name."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions
        self.compensations = Compensations(self._begun)

        def wait(awaited: Awaitable[Any]) -> Run:
            frame = sys._getframe(1)
            if isinstance(awaited, Enter | Leave):
                # What awaits it is called by ``async with``.
                assert frame.f_back is not None
                frame = frame.f_back
            return self._awaited(awaited, frame)

        self.enter_context(mock.patch.object(Awaitable, "__await__", wait))

    def _awaited(self, awaited: Awaitable[Any], frame: FrameType) -> Run:
        line = frame.f_lineno
        match awaited:
            case Leave(scope=CompensableScope(), error=error):
                return (yield from self.compensations.leave(frame, error))
            case Leave(error=error):
                with on_its_way(error):
                    return (yield from shielded(self._left(awaited, frame)))
        yield from self.compensations.due(frame)
        match awaited:
            case Enter(scope=CompensableScope()):
                return self.compensations.enter()
            case Gather():
                return (yield from self._gathered(awaited, line))
            case RoutineCall(routine=name) if name.startswith(RESERVED):
                return (yield from self.compensations.called(name, **awaited.arguments))
        return (yield from self._begun(awaited, line))

    def _left(self, awaited: Leave, frame: FrameType) -> Run:
        yield from self.compensations.due(frame)
        return (yield from _answered(awaited, frame.f_lineno))

    def _begun(self, awaited: Awaitable[Any], line: int) -> Run:
        """Begin what stands by itself, in a branch of a ``gather`` for instance."""
        if not isinstance(awaited, RoutineCall):
            return _answered(awaited, line)
        if awaited.routine.startswith(RESERVED):
            return self.compensations.called(awaited.routine, **awaited.arguments, is_branch=True)
        function = self.functions[awaited.routine]
        bound = inspect.BoundArguments(inspect.signature(function), OrderedDict(awaited.arguments))
        run: Run = function(*bound.args, **bound.kwargs).__await__()
        return run

    def _gathered(self, gathered: Gather, line: int) -> Run:
        """Run the branches of a ``gather`` by turns; on an error cancel the others, let them end, and raise it."""
        runs = [self._begun(branch, line) for branch in gathered.branches]
        contexts = [copy_context() for _ in runs]
        mark = object()
        for context in contexts:
            context.run(begin_branch, mark)
        results: list[Any] = [None] * len(runs)
        waiting: dict[int, Pending] = {}
        errors: list[BaseException] = []

        def step(index: int, go: Callable[[], Pending]) -> None:
            if self.compensations.is_halted:
                return
            waiting.pop(index, None)
            try:
                waiting[index] = contexts[index].run(go)
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
                    step(index, functools.partial(runs[index].send, Cancelled()))
            if not waiting:
                self.compensations.hand_over(mark, errors[-1])
                _raise_again(errors[-1])
            branches = [(index, place) for index in sorted(waiting) for place in range(len(waiting[index]))]
            sent = yield [waiting[index][place] for index, place in branches]
            if isinstance(sent, Cancelled):
                sent.__context__ = errors[-1] if errors else None
                errors.append(sent)
            else:
                index, place = branches[sent[0]]
                step(index, functools.partial(runs[index].send, (place, sent[1])))
        return results


def _answered(awaited: Awaitable[Any], line: int) -> Run:
    """Await natively: an error comes from within the await, as that of a function that runs there."""
    sent = yield [(awaited, line)]
    if isinstance(sent, Cancelled):
        raise sent
    _, answer = sent
    if isinstance(answer, Returned):
        return answer.value
    return _raise_again(answer.error)


def _raise_again(error: BaseException) -> NoReturn:
    """Raise an error the way it came about: while its context was being handled."""
    if error.__context__ is not None:
        try:
            _raise_again(error.__context__)
        except BaseException:  # noqa: BLE001 - it is the one just raised
            raise error  # noqa: B904 - its cause is decided already
    raise error
