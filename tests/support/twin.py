"""Run a workflow function twice, as Python runs it and as a machine runs it, and compare everything.

``effects`` decides what each awaited thing gives: it is called with the number of the await, from 0, and what is
awaited. It must make a new exception or value at each call. Code under test may call ``note`` to leave a mark between
the awaits. Where a ``gather`` waits for several things, ``ORDERS`` says which of them is answered next.
"""

import contextlib
import copy
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any, Literal

import orjson

from holdfast.processor.core.frame import FrameImage
from holdfast.processor.core.machine import ROOT, Ask, Machine
from holdfast.processor.core.machine import place as place_of
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import STORED, ActivityCall, Awaitable
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.processor.language.routine import RESERVED, Routine, reachable
from holdfast.schemas.errors import Cancelled, CompensationFailed
from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference, shown
from tests.support.native import Functions, Natively

Effects = Callable[[int, Awaitable[Any]], Returned | Raised]
Images = dict[str, FrameImage]
Reload = Callable[[Images], Images]

Order = Literal["first", "last", "alternate"]
ORDERS: tuple[Order, ...] = ("first", "last", "alternate")
"""Which of the things that a run waits for at once is answered next."""

_log: list[str] = []


class Exhausted(BaseException):
    """Ends a loop that has gone on for long enough."""


@dataclass(frozen=True)
class Result:
    """All that a run shows: its value or its error, what it did in order, and the variables that it left.

    No variables are left if there was anything to be settled at its end, or if that failed.
    """

    value: Any
    error: BaseException | None
    log: list[str]
    variables: dict[str, Any]

    @classmethod
    def of(cls, value: Any, error: BaseException | None, variables: dict[str, Any]) -> "Result":
        """Return what the run that ends now shows."""
        if isinstance(error, CompensationFailed):
            # What it says is Holdfast's own business, and what it holds may be changed by what is left of the run.
            return cls(None, CompensationFailed(shown(error.__cause__)), _log.copy(), {})
        return cls(value, error, _log.copy(), variables)

    def difference(self, other: "Result") -> str | None:
        """Say where two results differ first, or ``None``."""
        if self.log != other.log:
            return f"effects: {self.log} and {other.log}"
        return difference(self._compared(), other._compared())

    def _compared(self) -> dict[str, Any]:
        # Functions, classes and generators are not kept by a workflow, so they are nobody's final variables.
        kept = {name: self.variables[name] for name in sorted(self.variables) if not _is_code(self.variables[name])}
        return {"value": self.value, "error": self.error, "variables": kept}


def act(*args: Any, **kwargs: Any) -> ActivityCall[Any]:
    """Give something to await."""
    return ActivityCall("act", args, kwargs)


def note(mark: Any) -> Any:
    """Log a mark, and give it back."""
    _log.append(f"note {shown(mark)}")
    return mark


def tick(limit: int) -> None:
    """Log a turn of a loop, and raise ``Exhausted`` if that makes more than ``limit`` of all loops of the run.

    As the first statement of each loop it ends every run: from then on a loop is left as soon as its next turn begins.
    """
    _log.append("tick")
    if _log.count("tick") > limit:
        raise Exhausted


def run_native(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    effects: Effects,
    routines: Functions | None = None,
    *,
    order: Order = "first",
    settles: bool = True,
    cancel_at: int | None = None,
) -> Result:
    """Run the function as a coroutine, and the routines that it calls as coroutines that it awaits."""
    _log.clear()
    if routines is None:
        routines = {name: r.function for name, r in reachable(function.__globals__.values()).items()}
    value, error = None, None
    with _final_variables(function.__code__) as variables, Natively(routines) as native:
        compensations = native.compensations
        run = compensations.whole(function(**copy.deepcopy(dict(arguments))).__await__(), settles=settles)
        try:
            pending = compensations.go_on(functools.partial(next, run))
            for number in itertools.count():
                if number == cancel_at and not compensations.is_settling:
                    pending = compensations.go_on(functools.partial(run.send, Cancelled()))
                else:
                    index = _next(order, number, len(pending))
                    answer = index, _performed(effects, number, *pending[index])
                    pending = compensations.go_on(functools.partial(run.send, answer))
        except StopIteration as stop:
            value = stop.value
        except BaseException as raised:  # noqa: BLE001 - the function may raise anything
            error = raised
        result = Result.of(value, error, {} if compensations.is_settling else variables.copy())
        compensations.abandon(run)
    return result


def run_machine(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    effects: Effects,
    reload: Reload | None = None,
    program: Program | None = None,
    *,
    order: Order = "first",
    settles: bool = True,
    cancel_at: int | None = None,
    further: Sequence[Program] = (),
) -> Result:
    """Run the function's program, by default one that was stored and read, with a reload around each answer.

    A reload may have frames go on in ``further`` programs. At its end compensable scopes are confirmed, or, if it
    raises and that ``settles``, undone. Instead of the answer numbered ``cancel_at`` the instance is cancelled.
    """
    program = program or _stored(function)
    routines = routines_of(program)
    programs = {p.hash: p for p in (program, *routines.values(), *further)}
    _log.clear()
    machine = Machine.start(program, copy.deepcopy(dict(arguments)), routines.__getitem__)
    pending: dict[str, Ask] = {}
    is_settling = False

    def reloaded() -> Machine:
        if reload is None:
            return machine
        pending.clear()
        return Machine.restore(programs, reload(machine.images()), routines.__getitem__)

    def advance() -> None:
        asks = machine.advance()
        for path in machine.withdrawn:
            del pending[path]
        pending.update({ask.path: ask for ask in asks})

    advance()
    for number in itertools.count():
        if machine.outcome is not None and not is_settling and _is_to_settle(machine.outcome, settles=settles):
            is_settling = machine.settle("confirm" if isinstance(machine.outcome, Returned) else "undo")
            advance()
        if machine.outcome is not None:
            break
        machine = reloaded()
        advance()
        if number != cancel_at or not machine.cancel():
            ask = pending.pop(sorted(pending, key=place_of)[_next(order, number, len(pending))])
            machine.answer(ask.path, _performed(effects, number, ask.awaited, _line(machine, ask)))
        machine = reloaded()
        advance()
    assert machine.outcome is not None
    root = machine.frames[ROOT].variables
    variables = {} if is_settling else {name: value for name, value in root.items() if name[0] != "$"}
    if isinstance(machine.outcome, Returned):
        return Result.of(machine.outcome.value, None, variables)
    return Result.of(None, machine.outcome.error, variables)


def _is_to_settle(outcome: Returned | Raised, *, settles: bool) -> bool:
    return isinstance(outcome, Returned) or (settles and not isinstance(outcome.error, CompensationFailed))


def _line(machine: Machine, ask: Ask) -> int:
    """Return the user's line at which something is awaited, or 0 if Holdfast itself awaits it."""
    frame = machine.frames.get(ask.path)
    return 0 if frame is not None and frame.program.name.startswith(RESERVED) else ask.line


def codec_reload(*classes: type, modules: tuple[str, ...] = ()) -> Reload:
    """Return a reload by way of JSON, for variables of the given classes and modules beside Python's own types."""
    types = Types.of(*STORED, *classes, modules=modules)

    def reload(images: Images) -> Images:
        variables = {
            f"{path}.{name}": value for path, image in images.items() for name, value in image.variables.items()
        }
        restored = decode(orjson.loads(orjson.dumps(encode(variables, types))), types)
        return {
            path: replace(image, variables={name: restored[f"{path}.{name}"] for name in image.variables})
            for path, image in images.items()
        }

    return reload


def compare(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    effects: Effects,
    *classes: type,
    modules: tuple[str, ...] = (),
    order: Order = "first",
) -> Result:
    """Check that the function gives the same natively, in a machine, and in a machine reloaded at each await."""
    native = run_native(function, arguments, effects, order=order)
    for reload in (None, codec_reload(*classes, modules=modules)):
        machine = run_machine(function, arguments, effects, reload, order=order)
        found = native.difference(machine)
        assert found is None, f"{function.__name__}, {'reloaded' if reload else 'in memory'}: {found}"
    return native


def stored(compiled: Program) -> Program:
    """Give the program that is read from the stored form of another."""
    program = Program.from_json(orjson.loads(orjson.dumps(compiled.to_json())), compiled.namespace)
    assert program.hash == compiled.hash
    return program


@functools.lru_cache(maxsize=8)
def _stored(function: Callable[..., Any]) -> Program:
    return stored(compile_workflow(function, name="twin"))


def _performed(effects: Effects, number: int, awaited: Awaitable[Any], line: int) -> Returned | Raised:
    _log.append(f"await {shown(awaited)} at line {line}")
    return effects(number, awaited)


def routines_of(program: Program) -> dict[str, Program]:
    """Return the programs of the routines that a program may call, as read from their stored form."""
    namespace = program.namespace or {}
    named = [namespace[name] for name in program.names if name in namespace]
    return {name: _stored_routine(routine) for name, routine in reachable(named).items()}


@functools.lru_cache(maxsize=64)
def _stored_routine(routine: Routine[Any, Any]) -> Program:
    return stored(routine.program)


def _next(order: Order, number: int, count: int) -> int:
    """Pick which of several things is answered with the answer of that number."""
    return 0 if order == "first" or (order == "alternate" and number % 2 == 0) else count - 1


def _is_code(value: Any) -> bool:
    return callable(value) or hasattr(value, "gi_frame")


@contextlib.contextmanager
def _final_variables(code: CodeType) -> Iterator[dict[str, Any]]:
    """Give the variables that a function had each time it was left, so in the end the last ones."""
    variables: dict[str, Any] = {}

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "return" and frame.f_code is code:
            variables.clear()
            variables.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield variables
    finally:
        sys.setprofile(before)
