"""The machine: what it asks, what it keeps, and how it comes back."""

import inspect
import traceback
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.core.machine import ROOT, Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import ActivityCall, delay
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import NotPersistable
from tests.support.twin import act, codec_reload


def fail(text: str) -> None:
    raise ValueError(text)


async def counting(n: int) -> int:
    total = 0
    for i in range(n):
        total += await act(i)
    return total


async def failing(x: int) -> None:
    y = x + 1
    await act(y)
    fail(str(y))


async def waiting(x: int) -> None:
    y = x
    await act(
        y,
    )


async def catching(x: int) -> None:
    try:
        fail("first")
    except ValueError as error:
        await act(str(error))
        raise


async def with_helper(items: list[int]) -> list[int]:
    def key(item: int) -> int:
        return -item

    generator = (item for item in items)
    items.sort(key=key)
    await act(max(generator))
    return items


async def keeping_a_function(items: list[Any]) -> None:
    items.append(lambda: 1)
    await act(1)


async def empty() -> None:
    pass


def program_of(function: Any) -> Program:
    return compile_workflow(function, name=function.__name__)


def line_of(function: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def error_of(machine: Machine) -> BaseException:
    assert isinstance(machine.outcome, Raised)
    return machine.outcome.error


def test_asks_name_frame_step_line_and_visit() -> None:
    machine = Machine.start(program_of(counting), {"n": 2})
    (first,) = machine.advance()
    assert first == Ask(
        path=ROOT,
        step=first.step,
        line=line_of(counting, "await"),
        visit=1,
        awaited=ActivityCall("act", (0,)),
    )
    assert machine.advance() == []
    machine.answer(ROOT, Returned(5))
    (second,) = machine.advance()
    assert (second.step, second.visit) == (first.step, 2)
    machine.answer(ROOT, Returned(6))
    assert machine.advance() == []
    assert machine.outcome == Returned(11)


def test_function_without_await_ends_at_once() -> None:
    machine = Machine.start(program_of(empty), {})
    assert machine.outcome is None
    assert machine.advance() == []
    assert machine.outcome == Returned(None)


def test_restored_machine_repeats_its_asks_from_data() -> None:
    program = program_of(counting)
    machine = Machine.start(program, {"n": 2})
    asks = machine.advance()
    images = codec_reload()(machine.images())
    restored = Machine.restore({program.hash: program}, images)
    assert restored.advance() == asks
    assert restored.advance() == []
    # The first machine is not touched by what the second one does.
    restored.answer(ROOT, Returned(1))
    restored.advance()
    assert machine.images()[ROOT].variables["$await"] == ActivityCall("act", (0,))


@pytest.mark.parametrize("result", [Returned(7), Raised(KeyError("gone"))])
def test_answer_that_was_not_used_yet_survives_a_reload(result: Returned | Raised) -> None:
    program = program_of(counting)
    machine = Machine.start(program, {"n": 1})
    machine.advance()
    machine.answer(ROOT, result)
    restored = Machine.restore({program.hash: program}, codec_reload()(machine.images()))
    assert restored.advance() == []
    if isinstance(result, Returned):
        assert restored.outcome == result
    else:
        assert repr(error_of(restored)) == "KeyError('gone')"


def test_machine_can_be_restored_before_it_began() -> None:
    program = program_of(counting)
    images = Machine.start(program, {"n": 0}).images()
    assert (images[ROOT].step, images[ROOT].line) == (0, line_of(counting, "async def"))
    restored = Machine.restore({program.hash: program}, images)
    restored.advance()
    assert restored.outcome == Returned(0)


def test_answer_to_a_frame_that_waits_for_nothing_is_an_error() -> None:
    machine = Machine.start(program_of(counting), {"n": 1})
    with pytest.raises(RuntimeError, match="waits for nothing"):
        machine.answer(ROOT, Returned(1))
    machine.advance()
    machine.answer(ROOT, Returned(1))
    with pytest.raises(RuntimeError, match="waits for nothing"):
        machine.answer(ROOT, Returned(1))
    machine.advance()
    with pytest.raises(RuntimeError, match="waits for nothing"):
        machine.answer(ROOT, Returned(1))


def test_image_has_the_users_variables_and_only_the_hidden_ones_in_use() -> None:
    machine = Machine.start(program_of(counting), {"n": 2})
    machine.advance()
    machine.answer(ROOT, Returned(5))
    machine.advance()
    variables = machine.images()[ROOT].variables
    assert {name for name in variables if name[0] != "$"} == {"n", "total", "i"}
    (loop,) = [value for name, value in variables.items() if name.startswith("$for")]
    assert loop == [range(2), 2]
    assert {name[:4] for name in variables if name[0] == "$"} == {"$for", "$awa"}


def test_functions_that_are_used_up_are_not_kept() -> None:
    program = program_of(with_helper)
    machine = Machine.start(program, {"items": [1, 3, 2]})
    machine.advance()
    assert set(machine.images()[ROOT].variables) == {"items", "$await"}


def test_function_in_a_variable_is_not_persistable() -> None:
    machine = Machine.start(program_of(keeping_a_function), {"items": []})
    machine.advance()
    with pytest.raises(NotPersistable, match=r"0\.items"):
        codec_reload()(machine.images())


def test_traceback_begins_in_the_users_function() -> None:
    machine = Machine.start(program_of(failing), {"x": 1})
    machine.advance()
    machine.answer(ROOT, Returned(None))
    machine.advance()
    frames = traceback.extract_tb(error_of(machine).__traceback__)
    assert [(frame.name, frame.line) for frame in frames] == [
        ("failing", "fail(str(y))"),
        ("fail", "raise ValueError(text)"),
    ]
    assert {frame.filename for frame in frames} == {__file__}


def test_error_of_an_activity_seems_to_come_from_its_await() -> None:
    def activity() -> None:
        fail("inside")

    with pytest.raises(ValueError, match="inside") as caught:
        activity()
    error = caught.value
    machine = Machine.start(program_of(waiting), {"x": 1})
    machine.advance()
    machine.answer(ROOT, Raised(error))
    machine.advance()
    assert error_of(machine) is error
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames] == [
        "waiting",
        "test_error_of_an_activity_seems_to_come_from_its_await",
        "activity",
        "fail",
    ]
    assert frames[0].lineno == line_of(waiting, "await act(")


def test_reraised_error_keeps_its_traceback() -> None:
    machine = Machine.start(program_of(catching), {"x": 1})
    machine.advance()
    machine.answer(ROOT, Returned(None))
    machine.advance()
    frames = traceback.extract_tb(error_of(machine).__traceback__)
    assert [(frame.name, frame.line) for frame in frames] == [
        ("catching", 'fail("first")'),
        ("fail", "raise ValueError(text)"),
    ]


def test_error_with_a_history_keeps_it_and_gains_what_was_handled() -> None:
    machine = Machine.start(program_of(catching), {"x": 1})
    machine.advance()
    cause = KeyError("cause")
    error = RuntimeError("failed")
    error.__cause__ = error.__context__ = cause
    machine.answer(ROOT, Raised(error))
    machine.advance()
    assert error_of(machine) is error
    assert error.__context__ is cause
    assert repr(cause.__context__) == "ValueError('first')"


def test_awaiting_what_is_not_for_workflows_is_an_error_in_the_workflow() -> None:
    async def coroutine() -> None:
        pass

    program = program_of(awaits_argument)
    machine = Machine.start(program, {"x": coroutine()})
    machine.advance()
    assert isinstance(error_of(machine), TypeError)
    assert "put other asynchronous code into an activity" in str(error_of(machine))
    assert Machine.start(program, {"x": delay(timedelta(1))}).advance()[0].awaited == delay(timedelta(1))


async def awaits_argument(x: Any) -> Any:
    return await x


def test_starting_a_machine_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(counting)
    Machine.start(program, {"n": 1})
    monkeypatch.setattr("builtins.compile", None)
    machine = Machine.start(program, {"n": 0})
    machine.advance()
    assert machine.outcome == Returned(0)
