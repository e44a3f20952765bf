"""Routines in a machine: frames and their paths, tracebacks, and coming back from data."""

import inspect
import traceback
from typing import Any

import pytest

from holdfast.processor.core.machine import MAX_DEPTH, ROOT, Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import ActivityCall, Running
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.processor.language.routine import Routine, reachable, routine
from holdfast.schemas.errors import AppError
from tests.support.twin import act, codec_reload


@routine
async def inner(x: int) -> int:
    y: int = await act(x)
    if y < 0:
        raise ValueError(y)
    return y + 1


@routine
async def outer(x: int) -> int:
    await act("before")
    return await inner(x) * 2


async def calling(x: int) -> int:
    total = await outer(x)
    total += await inner(total)
    return total


@routine
async def endless(depth: int) -> int:
    return await endless(depth + 1)


async def falling() -> str:
    try:
        await endless(1)
    except RecursionError as error:
        return str(error)
    return "no end"


ROUTINES = {r.name: r.program for r in (inner, outer, endless)}


def start(function: Any, **arguments: Any) -> tuple[Program, Machine]:
    program = compile_workflow(function, name="calling")
    return program, Machine.start(program, arguments, ROUTINES.__getitem__)


def line_of(function: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_a_call_runs_as_a_frame_named_after_the_await_that_made_it() -> None:
    _, machine = start(calling, x=1)
    (first,) = machine.advance()
    assert (first.path, first.visit, first.awaited) == ("0.1", 1, ActivityCall("act", ("before",)))
    assert first.line == line_of(outer.function, '"before"')
    machine.answer("0.1", Returned())
    (second,) = machine.advance()
    assert (second.path, second.visit, second.awaited) == ("0.1.2", 1, ActivityCall("act", (1,)))
    machine.answer("0.1.2", Returned(3))
    (third,) = machine.advance()
    assert (third.path, third.awaited) == ("0.2", ActivityCall("act", (8,)))
    assert set(machine.frames) == {ROOT, "0.2"}
    machine.answer("0.2", Returned(1))
    assert machine.advance() == []
    assert machine.outcome == Returned(10)


def test_every_frame_is_stored_with_its_own_program_and_variables() -> None:
    program, machine = start(calling, x=1)
    machine.advance()
    machine.answer("0.1", Returned())
    asks = machine.advance()
    images = machine.images()
    assert {path: image.program for path, image in images.items()} == {
        "0": program.hash,
        "0.1": outer.program.hash,
        "0.1.2": inner.program.hash,
    }
    assert images["0"].variables == {"x": 1, "$await": Running()}
    programs = {p.hash: p for p in (program, *ROUTINES.values())}
    restored = Machine.restore(programs, codec_reload()(images), ROUTINES.__getitem__)
    assert restored.advance() == asks
    restored.answer("0.1.2", Returned(3))
    assert [ask.path for ask in restored.advance()] == ["0.2"]


def test_a_running_frame_keeps_its_program_and_the_next_call_takes_the_new_one() -> None:
    program, machine = start(calling, x=1)
    machine.advance()
    machine.answer("0.1", Returned())
    machine.advance()
    newer = {**ROUTINES, "inner": compile_workflow(newer_inner, name="inner")}
    programs = {p.hash: p for p in (program, *ROUTINES.values())}
    restored = Machine.restore(programs, machine.images(), newer.__getitem__)
    restored.advance()
    restored.answer("0.1.2", Returned(3))
    restored.advance()
    assert restored.outcome == Returned(8 + 100)


async def newer_inner(x: int) -> int:
    return 100


def test_a_traceback_shows_every_frame() -> None:
    _, machine = start(calling, x=1)
    machine.advance()
    machine.answer("0.1", Returned())
    machine.advance()
    machine.answer("0.1.2", Returned(-1))
    machine.advance()
    assert isinstance(machine.outcome, Raised)
    frames = traceback.extract_tb(machine.outcome.error.__traceback__)
    assert [(frame.name, frame.line) for frame in frames] == [
        ("calling", "total = await outer(x)"),
        ("outer", "return await inner(x) * 2"),
        ("inner", "raise ValueError(y)"),
    ]
    assert set(machine.frames) == {ROOT}


def test_recursion_has_an_end() -> None:
    _, machine = start(falling)
    machine.advance()
    assert machine.outcome == Returned(f"routines call each other more than {MAX_DEPTH} deep")


def test_an_unknown_routine_is_an_error_at_its_await() -> None:
    machine = Machine.start(compile_workflow(calling, name="calling"), {"x": 1})
    machine.advance()
    assert isinstance(machine.outcome, Raised)
    assert isinstance(machine.outcome.error, AppError)
    frames = traceback.extract_tb(machine.outcome.error.__traceback__)
    assert [frame.name for frame in frames] == ["calling"]


def test_the_hash_of_a_caller_does_not_depend_on_what_it_calls() -> None:
    before = outer.program.hash
    assert compile_workflow(newer_inner, name="inner").hash != inner.program.hash
    assert compile_workflow(outer.function, name="outer").hash == before


def test_arguments_are_bound_when_the_routine_is_called() -> None:
    assert inner(x=5).arguments == {"x": 5}
    with pytest.raises(TypeError, match=r"inner\(\) missing 1 required positional argument: 'x'"):
        inner()  # type: ignore[call-arg] # to see it refused


def test_two_routines_of_one_name_are_refused() -> None:
    other: Routine[Any, Any] = Routine(newer_inner, name="inner")
    assert reachable([inner, inner, outer]) == {"inner": inner, "outer": outer}
    with pytest.raises(AppError, match="two routines are named 'inner'"):
        reachable([inner, other])


def test_an_ask_of_a_frame_that_has_ended_cannot_be_answered() -> None:
    _, machine = start(calling, x=1)
    ask: Ask = machine.advance()[0]
    machine.answer(ask.path, Returned())
    machine.advance()
    with pytest.raises(RuntimeError, match="waits for nothing"):
        machine.answer(ask.path, Returned())
