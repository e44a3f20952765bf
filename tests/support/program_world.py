"""What generated workflow functions find around them: classes, functions, activities, and what these answer."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import (
    ActivityCall,
    Awaitable,
    Enter,
    FirstOf,
    Leave,
    Outcome,
    Receive,
    TransactedReceive,
    checkpoint,
    delay,
    first_of,
    receive,
    send,
)
from holdfast.processor.language.compensating import compensate, confirm
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import compensable, no_persist, transacted_receive, transaction
from holdfast.schemas.errors import Cancelled
from holdfast.schemas.message import Message
from tests.support.twin import Effects, Exhausted, note, tick


@dataclass
class Box:
    """A pair that logs when its truth is asked for."""

    value: Any = None
    other: Any = None

    def __bool__(self) -> bool:
        note("truth")
        return self.value is not None


class Ledger(BaseModel):
    """A model that takes anything, since what pydantic says of a wrong value has no stored form."""

    items: Any
    owner: Any = None


class Ping(Message, correlation="key"):
    key: str
    body: Any = None


class Failure(Exception):
    """An error that carries something which may change."""

    def __init__(self, *args: Any, load: Any = None) -> None:
        super().__init__(*args)
        self.load = load


class SpecialFailure(Failure):
    pass


CLASSES = (Box, Ledger, Ping, Failure, SpecialFailure, Exhausted)
"""The classes whose instances generated functions keep in variables."""

TURNS = 16
"""How many turns all loops of a run may take together, calls of routines included."""

AWAITS = 1000
"""How many awaits are more than any run can have."""

ERRORS: dict[str, Callable[[Any], BaseException]] = {
    "failure": lambda load: Failure("failed", load=load),
    "special": lambda load: SpecialFailure(load, load=[load]),
    "noted": lambda load: _noted(Failure(load)),
    "chained": lambda load: _chained(Failure("outer", load=load), SpecialFailure(load), None),
    "in context": lambda load: _chained(ValueError("outer"), None, Failure(load)),
    "value": lambda _load: ValueError("bad", 1),
    "key": lambda _load: KeyError("lost"),
    "timeout": lambda _load: TimeoutError("late"),
    "group": lambda load: ExceptionGroup("several", [Failure(load), ValueError(2)]),
    "exit": lambda _load: SystemExit(4),
    "interrupt": lambda _load: KeyboardInterrupt(),
}
"""The errors that an activity may raise, by name; each is given an argument of the activity."""


def _noted(error: Failure) -> Failure:
    error.add_note("a note")
    return error


def _chained(error: BaseException, cause: BaseException | None, context: BaseException | None) -> BaseException:
    if cause is not None:
        error.__cause__ = cause
    if context is not None:
        error.__context__ = context
    return error


def _grown(value: Any, number: int) -> Any:
    """Change an argument in place, as an activity that runs in the same process may."""
    match value:
        case list():
            value.append(number)
        case dict():
            value[f"n{number}"] = number
        case Box():
            value.other = number
    return value


def _fresh(number: int, load: Any) -> Any:
    inner = [number, load]
    return {"a": inner, "b": inner}


def effects_of(failures: Mapping[int, str]) -> Effects:
    """Answer what is awaited by its name and its number; ``failures`` names the awaits that fail, and how."""

    def effects(number: int, awaited: Awaitable[Any]) -> Returned | Raised:
        assert number < AWAITS, "it goes on and on"
        load = awaited.args[0] if isinstance(awaited, ActivityCall) and awaited.args else None
        if number in failures:
            return Raised(ERRORS[failures[number]](load))
        match awaited:
            case ActivityCall(activity="fail"):
                how = awaited.kwargs.get("how", "failure")
                return Raised(ERRORS[how](load))
            case ActivityCall(activity=name):
                return Returned(ANSWERS[name](number, awaited, load))
            case Receive(timeout=timeout):
                if timeout is not None and number % 2:
                    return Raised(TimeoutError("no message came"))
                return Returned(Ping(key=awaited.key, body=[number]))
            case FirstOf(branches=branches):
                names = list(branches)
                chosen = names[number % len(names)]
                branch = branches[chosen]
                if not isinstance(branch, Receive):
                    return Returned(Outcome(chosen))
                if branch.timeout is not None and number % 3:
                    return Raised(TimeoutError("no message came"))
                return Returned(Outcome(chosen, Ping(key=branch.key, body=number)))
            case Enter(scope=TransactedReceive(key=key)):
                return (
                    Raised(TimeoutError("no message came")) if number % 5 == 4 else Returned(Ping(key=key, body=load))
                )
            case Enter():
                return Returned([number] if number % 2 else None)
            case Leave() if number % 5 == 3:
                return Raised(Failure("not committed", load=number))
        return Returned(None)

    return effects


ANSWERS: dict[str, Callable[[int, ActivityCall[Any], Any], Any]] = {
    "number": lambda number, _call, _load: number % 8,
    "truth": lambda number, _call, _load: number % 2 == 0,
    "items": lambda number, _call, load: [number, load],
    "pair": lambda number, _call, load: (number, [load]),
    "fresh": lambda number, _call, load: _fresh(number, load),
    "same": lambda _number, _call, load: load,
    "named": lambda _number, call, _load: call.kwargs,
    "grow": lambda number, _call, load: _grown(load, number),
}
"""What the activities answer, by name, given the await's number, the call and its first argument."""


async def _performed(*args: Any, **kwargs: Any) -> None:
    """Stand for what activities do: the test answers for them."""


def given(names: str) -> list[Any]:
    """Give what some variables of a routine are bound to at first."""
    xs: list[Any] = [1, 2]
    box = Box(xs, 1)
    values = {
        "xs": xs,
        "ys": [xs],
        "ds": {"a": xs},
        "ss": {1, 2},
        "b": box,
        "c": Box(),
        "m": Ledger(items=[box]),
        "err": Failure(0, load=xs),
        "exc": KeyError(1),
        "s": "text",
        "u": None,
    }
    return [values.get(name, 1) for name in names.split()]


def turn() -> None:
    """Begin a turn of a loop, or a routine."""
    tick(TURNS)


def apply(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that was made on the spot."""
    return function(*args)


def handled() -> None:
    """Log which error is being handled."""
    note(type(sys.exc_info()[1]).__name__)


def boom(load: Any = None) -> Any:
    """Raise an error from outside of the generated function."""
    raise Failure(load, load=load)


@contextlib.contextmanager
def opened(value: Any) -> Iterator[Any]:
    """Log a way in and every way out."""
    note("enter")
    try:
        yield value
    finally:
        note("leave")


NAMES: dict[str, Any] = {
    **{name: Activity(_performed, name=name) for name in (*ANSWERS, "fail")},
    **{cls.__name__: cls for cls in CLASSES},
    "apply": apply,
    "boom": boom,
    "Cancelled": Cancelled,
    "checkpoint": checkpoint,
    "compensable": compensable,
    "compensate": compensate,
    "confirm": confirm,
    "delay": delay,
    "first_of": first_of,
    "gather": gather,
    "given": given,
    "handled": handled,
    "note": note,
    "no_persist": no_persist,
    "opened": opened,
    "Outcome": Outcome,
    "receive": receive,
    "routine": routine,
    "send": send,
    "suppress": contextlib.suppress,
    "timedelta": timedelta,
    "transacted_receive": transacted_receive,
    "transaction": transaction,
    "turn": turn,
}
"""The global names of every generated function."""
