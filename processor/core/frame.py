"""One running call: a program, a place in it, and variables.

``Frame.run`` interprets the steps of a program; what lies between two steps of control flow is native
code, the program's blocks. All that a frame knows while it waits is in ``variables``: the user's under
their names, its own under names that begin with ``$``:

    $await     what the frame waits for
    $answer    what came back, until the frame goes on
    $raised    the exception that came back, until the frame goes on
    $return    the value of a ``return`` on its way out
    $t…        values held while an expression waits
    $for…      a ``for`` loop's sequence and the index of its next item
    $match…    the subject of a ``match`` whose guard waits
    $scope…    the scope of an ``async with``
    $caught…   the exception that an ``except`` clause handles
    $pending…  how a ``finally`` clause goes on: an exception, a step, or a step and a return value
    $cancel    the exception to go on with when what undoes, confirms or cancels, or ends a scope, has ended
    $child     the subflow whose first frame it is

and in the workflow's own frame

    $ledger    the compensable scopes
    $cancelled is there once the instance was cancelled
    $ended     how the workflow ended, while compensable scopes are settled: ``Ended`` or an exception

They are plain data, so that a frame can be stored and restored at any await.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable
from holdfast.processor.language.linking import AWAIT, JUMP, LEAVE, NEXT, RAISE, RESUME, RUN, UNBIND, Code
from holdfast.processor.language.program import Program

Variables = dict[str, Any]

ROOT = "0"
"""The path of an instance's first frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameImage:
    """A frame as data.

    ``program`` is the program's hash, ``step`` the step at which the frame stands and ``line`` that
    step's line in the user's file, ``visits`` the number of awaits so far. ``variables`` are the live
    objects themselves, not copies.
    """

    program: str
    step: int
    line: int
    visits: int
    variables: Variables


class Frame:
    """The live form of one call; ``outcome`` is set once it has ended.

    ``outer`` is the exception that was being handled where the call was made.
    """

    __slots__ = ("asked", "code", "outcome", "outer", "program", "step", "variables", "visits", "was_left")

    def __init__(self, program: Program, *, step: int, visits: int, variables: Variables) -> None:
        self.program = program
        self.code: Code = program.code
        self.step = step
        self.visits = visits
        self.variables = variables
        self.asked = False
        self.was_left = False
        self.outcome: Returned | Raised | None = None
        self.outer: BaseException | None = None

    @classmethod
    def begin(cls, program: Program, arguments: Mapping[str, Any], outer: BaseException | None) -> Frame:
        """Return a call that has not run yet; ``arguments`` are the program's parameters by name."""
        frame = cls(program, step=0, visits=0, variables=dict(arguments))
        frame.outer = outer
        return frame

    @property
    def can_run(self) -> bool:
        """Whether the frame has neither ended nor waits for anything."""
        return self.outcome is None and "$await" not in self.variables

    @property
    def awaiting(self) -> Awaitable[Any] | None:
        """What the frame waits for, or ``None`` if it can run or has ended."""
        return self.variables.get("$await") if self.outcome is None else None

    @property
    def line(self) -> int:
        """The line of the user's file at which the frame stands."""
        return self.code.lines[self.step]

    @property
    def kept(self) -> set[str]:
        """The hidden variables that the frame can still need."""
        return self.code.kept[self.step][0]

    @property
    def handling(self) -> BaseException | None:
        """The exception that is being handled where the frame waits, or with which it ended."""
        if "$ended" in self.variables:
            ended = self.variables["$ended"]
            return ended if isinstance(ended, BaseException) else None
        return _handled(self.code.steps[self.step][3], self.variables, self.outer)

    def image(self) -> FrameImage:
        """Return the frame as data: what the rest of the run can still need, and every variable of the user."""
        live, dropped = self.code.kept[self.step]
        variables = {
            name: value
            for name, value in self.variables.items()
            if (name in live if name[0] == "$" else not (name in dropped and _is_code(value)))
        }
        return FrameImage(
            program=self.program.hash, step=self.step, line=self.line, visits=self.visits, variables=variables
        )

    def answer(self, result: Returned | Raised, *, was_left: bool = False) -> None:
        """Take the answer to what the frame waits for; it ``was_left`` by an exception if that was a further frame."""
        variables = self.variables
        if self.outcome is not None or "$await" not in variables:
            raise RuntimeError("this frame waits for nothing")
        self.was_left = was_left
        del variables["$await"]
        if isinstance(result, Returned):
            variables["$answer"] = result.value
        else:
            variables["$raised"] = result.error

    def interrupt(self, error: BaseException) -> None:
        """Have the frame go on with ``error`` at its await, whatever answer was on its way."""
        self.was_left = False
        for name in ("$await", "$answer"):
            self.variables.pop(name, None)
        self.variables["$raised"] = error

    def run(self) -> None:
        """Go on until the frame waits or ends."""
        variables = self.variables
        steps = self.code.steps
        outer = self.outer
        pc = self.step
        thrown = variables.pop("$raised", None)
        if "$answer" in variables:
            variables[steps[pc][1]] = variables.pop("$answer")
            pc += 1
        while True:
            raised: BaseException | None = None
            try:
                if thrown is not None:
                    self.throw(pc, thrown)
                while raised is None:
                    op, a, b, c = steps[pc]
                    if op == RUN:
                        handled = outer if c is None else _handled(c, variables, outer)
                        pc = b[a(variables) if handled is None else _run_handling(handled, a, variables)]
                    elif op == AWAIT:
                        awaited = variables["$await"]
                        self.visits += 1
                        if not isinstance(awaited, Awaitable):
                            del variables["$await"]
                            self.throw(pc, _not_awaitable(awaited))
                        self.step = pc
                        self.asked = False
                        return
                    elif op == NEXT:
                        walk = variables[a]
                        try:
                            variables[b] = walk[0][walk[1]]
                        except IndexError:
                            pc = c
                        else:
                            walk[1] += 1
                            pc += 1
                    elif op == JUMP:
                        pc = a
                    elif op == LEAVE:
                        variables[a] = [pc + 1, variables.pop("$return")] if c else pc + 1
                        pc = b
                    elif op == RESUME:
                        pending = variables.pop(a)
                        if isinstance(pending, BaseException):
                            raised = pending
                        elif isinstance(pending, list):
                            pc, variables["$return"] = pending
                        else:
                            pc = pending
                    elif op == RAISE:
                        raised = variables.pop(a)
                    elif op == UNBIND:
                        variables.pop(a, None)
                        pc += 1
                    else:
                        self.step = pc
                        self.outcome = Returned(variables.pop("$return") if a else None)
                        return
            except BaseException as error:  # noqa: BLE001 - Whatever user code raises takes the road that Python gives it.
                raised = error
                raised.__traceback__ = _users(raised.__traceback__)
            thrown = None
            catch = self.code.catches[pc]
            if catch is None:
                self.step = pc
                self.outcome = Raised(_escaped(raised))
                return
            slot, pc = catch
            variables[slot] = raised

    def throw(self, pc: int, error: BaseException) -> None:
        """Raise ``error`` from the line of the await at ``pc``, as if the awaited thing had raised it there."""
        throw = self.code.thrower(pc)
        if self.was_left:
            # It only passes through, with the context that it got where it was raised.
            self.was_left = False
            throw(error)
        handled = _handled(self.code.steps[pc][3], self.variables, self.outer)
        if handled is None:
            throw(error)
        elif error.__context__ is None:
            _run_handling(handled, throw, error)
        else:
            # It brings a history of its own, at whose end stands what the workflow was handling.
            _append_context(error, handled)
            throw(error)


def _handled(slots: tuple[str, ...] | None, variables: Variables, outer: BaseException | None) -> BaseException | None:
    """Return the exception that is being handled: that of the innermost clause, given their slots, or ``outer``."""
    for slot in slots or ():
        value = variables[slot]
        if isinstance(value, BaseException):
            return value
    return outer


def _run_handling(handled: BaseException, function: Any, argument: Any) -> Any:
    """Call ``function`` as the body of an ``except`` clause that handles ``handled``."""
    traceback, context = handled.__traceback__, handled.__context__
    try:
        raise handled  # noqa: TRY301 - Being raised and caught here is what makes it the one that is handled.
    except BaseException:  # noqa: BLE001 - It is the one just raised.
        handled.__traceback__ = traceback
        handled.__context__ = context
        return function(argument)


def _append_context(error: BaseException, handled: BaseException) -> None:
    """Put ``handled`` at the end of the chain of contexts of ``error``, unless that would close a circle."""
    behind = _contexts(handled)
    chain = _contexts(error)
    if not {id(link) for link in behind} & {id(link) for link in chain}:
        chain[-1].__context__ = handled


def _contexts(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (context := chain[-1].__context__) is not None and all(context is not link for link in chain):
        chain.append(context)
    return chain


def _not_awaitable(value: object) -> TypeError:
    """Return the error of awaiting something that is not for workflows."""
    if inspect.iscoroutine(value):
        value.close()
    if not hasattr(type(value), "__await__"):
        return TypeError(f"object {type(value).__name__} can't be used in 'await' expression")
    return TypeError(
        f"a workflow cannot await a {type(value).__name__}: it awaits activities, routines, subflows, receive(), "
        "send(), delay(), first_of(), gather(), checkpoint() and the like; put other asynchronous code into an "
        "activity, or make the function a @routine"
    )


def _escaped(error: BaseException) -> BaseException:
    """Return what a coroutine raises when ``error`` leaves its body (PEP 479)."""
    if not isinstance(error, StopIteration):
        return error
    replacement = RuntimeError("coroutine raised StopIteration")
    replacement.__cause__ = replacement.__context__ = error
    return replacement


def _is_code(value: object) -> bool:
    return callable(value) or inspect.isgenerator(value)


def _users(traceback: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the user's function."""
    while traceback is not None and traceback.tb_frame.f_code in _INTERPRETER:
        traceback = traceback.tb_next
    return traceback


_INTERPRETER: frozenset[CodeType] = frozenset(function.__code__ for function in (Frame.run, Frame.throw, _run_handling))
