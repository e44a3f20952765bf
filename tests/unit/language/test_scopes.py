"""``async with``: entered and left as Python does it, on every way out, in memory and after a reload."""

import inspect
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.processor.core.machine import ROOT, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language import awaitables
from holdfast.processor.language.awaitables import (
    ActivityCall,
    Awaitable,
    Enter,
    Leave,
    NoPersist,
    TransactedReceive,
    TransactionScope,
)
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.processor.language.scopes import no_persist, transacted_receive, transaction
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.message import Message
from tests.support.twin import act, codec_reload, stored

SECOND = timedelta(seconds=1)


class Paid(Message, correlation="order", type="Paid"):
    order: str


if TYPE_CHECKING:
    Anything = Any
else:
    Anything = Paid


async def plain(x: Any) -> Any:
    async with transaction(SECOND):
        x += await act(x)
    return x


async def without_await_inside(x: Any) -> Any:
    async with no_persist():
        x += 1
    return x


async def named(x: Any) -> Any:
    async with transacted_receive(Paid, await act("key")) as paid:
        y = await act(paid)
    return paid, y


async def several(x: Any) -> Any:
    async with transaction() as a, transaction(SECOND), no_persist() as b:
        await act(a, b)
    return a, b


async def unpacked(x: Any) -> Any:
    places: dict[Any, Any] = {}
    async with transacted_receive(Anything, "key") as (places[await act("place")], *rest):
        await act(places, rest)
    return places, rest


async def returning(x: Any) -> Any:
    try:
        async with transaction(), no_persist():
            return await act(x)
    finally:
        await act("finally")


async def looping(x: Any) -> Any:
    seen = []
    for i in range(4):
        async with transaction():
            if i == 1:
                continue
            if i == 2:
                break
            seen.append(await act(i))
    else:
        return "never"
    return seen


async def failing(x: Any) -> Any:
    try:
        async with transaction():
            await act("before")
            raise ValueError(x)  # noqa: TRY301 - That it is raised in there is the point.
    except ValueError as error:
        return await act(str(error))


async def replacing(x: Any) -> Any:
    try:
        async with transaction():
            try:
                raise KeyError(x)  # noqa: TRY301 - The same.
            except KeyError as error:
                await act("handling")
                raise ValueError(x) from error
    except ValueError as error:
        return [repr(error), repr(error.__cause__), repr(error.__context__)]


FUNCTIONS = [plain, without_await_inside, named, several, unpacked, returning, looping, failing, replacing]


def answer(number: int, failing_at: int | None, awaited: Awaitable[Any]) -> Returned | Raised:
    if number == failing_at:
        return Raised(RuntimeError(number))
    if isinstance(awaited, Enter):
        return Returned([number, number + 1, number + 2])
    return Returned(number if isinstance(awaited, ActivityCall) else None)


def natively(function: Callable[..., Any], failing_at: int | None) -> tuple[list[str], str]:
    """Run it as a coroutine; return what it awaited, and its end."""
    coroutine = function(1)
    seen: list[str] = []
    given: Returned | Raised = Returned()
    while True:
        try:
            awaited = coroutine.send(given.value) if isinstance(given, Returned) else coroutine.throw(given.error)
        except StopIteration as stop:
            return seen, repr(stop.value)
        except Exception as error:  # noqa: BLE001 - the function may raise anything
            return seen, f"{error!r} {error.__context__!r}"
        given = answer(len(seen), failing_at, awaited)
        seen.append(repr(awaited))


def compiled(function: Callable[..., Any], failing_at: int | None, *, reload: bool) -> tuple[list[str], str]:
    program = stored(compile_workflow(function, name="w"))
    machine = Machine.start(program, {"x": 1})
    seen: list[str] = []
    while asks := machine.advance():
        if reload:
            machine = reloaded(program, machine)
            asks = machine.advance()
        (ask,) = asks
        given = answer(len(seen), failing_at, ask.awaited)
        seen.append(repr(ask.awaited))
        machine.answer(ask.path, given)
        if reload:
            machine = reloaded(program, machine)
    assert machine.outcome is not None
    if isinstance(machine.outcome, Returned):
        return seen, repr(machine.outcome.value)
    error = machine.outcome.error
    return seen, f"{error!r} {error.__context__!r}"


def reloaded(program: Program, machine: Machine) -> Machine:
    return Machine.restore({program.hash: program}, codec_reload(Paid)(machine.images()))


@pytest.mark.parametrize("reload", [False, True], ids=["in memory", "reloaded"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_scopes_are_entered_and_left_as_python_does(function: Callable[..., Any], reload: bool) -> None:  # noqa: FBT001 - given by pytest
    seen, _ = natively(function, None)
    assert any("Leave" in awaited for awaited in seen)
    for failing_at in (None, *range(len(seen))):
        assert compiled(function, failing_at, reload=reload) == natively(function, failing_at)


def test_leaving_tells_which_exception_leaves() -> None:
    seen, _ = compiled(failing, None, reload=True)
    assert seen == [
        repr(Enter(TransactionScope())),
        repr(act("before")),
        repr(Leave(TransactionScope(), ValueError(1))),
        repr(act("1")),
    ]


def test_entering_and_leaving_stand_at_the_line_of_the_scope() -> None:
    machine = Machine.start(compile_workflow(several, name="w"), {"x": 1})
    (ask,) = machine.advance()
    first = several.__code__.co_firstlineno
    assert (ask.line, ask.visit) == (first + 1, 1)
    machine.answer(ROOT, Raised(RuntimeError("no connection")))
    machine.advance()
    assert isinstance(machine.outcome, Raised)
    (entry,) = traceback.extract_tb(machine.outcome.error.__traceback__)
    lines, _ = inspect.getsourcelines(several)
    assert (entry.name, entry.line) == ("several", lines[1].strip())


def test_a_scope_function_that_was_replaced_is_missed_at_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile_workflow(plain, name="w")
    monkeypatch.setitem(plain.__globals__, "transaction", lambda timeout: timeout)
    machine = Machine.start(program, {"x": 1})
    assert machine.advance() == []
    assert "object has no attribute 'entering'" in repr(machine.outcome)


def test_scopes_are_data() -> None:
    assert transaction() == TransactionScope(None)
    assert transaction(SECOND) == TransactionScope(SECOND)
    assert transacted_receive(Paid, 7, SECOND) == TransactedReceive("Paid", "7", SECOND)
    assert no_persist() == NoPersist()


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: transaction(5), TypeError, "the timeout of transaction"),  # type: ignore[arg-type]
    (lambda: transaction(timedelta(0)), ValueError, "must be positive"),
    (lambda: transacted_receive("Paid", "k"), TypeError, r"transacted_receive\(\) takes a Message class"),  # type: ignore[arg-type]
    (lambda: transacted_receive(Paid, "k", 5), TypeError, "the timeout of transacted_receive"),  # type: ignore[arg-type]
    (lambda: transacted_receive(Paid, ""), InvalidMessage, "empty"),
    (lambda: awaitables.reply("yes"), TypeError, "takes a Message"),  # type: ignore[arg-type]
    (lambda: awaitables.defer(transaction), TypeError, "takes a call of a record activity"),  # type: ignore[arg-type]
    (lambda: awaitables.suspend(5), TypeError, "takes the reason"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
