"""``gather`` in a machine: paths, what is withdrawn, and coming back from data in the midst of it."""

from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.core.machine import Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Checkpoint, Ended, Gathering, Running, checkpoint, delay
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.schemas.errors import Cancelled
from tests.support.twin import act, codec_reload


@routine
async def branch(x: Any) -> Any:
    first = await act(x, 1)
    try:
        return first, await act(x, 2)
    except Cancelled:
        await act("cleaning")
        raise


async def gathering(x: Any) -> Any:
    await act(x)
    return await gather(act("direct"), branch("a"), delay(timedelta(1)))


PROGRAM = compile_workflow(gathering, name="gathering")
PROGRAMS = {p.hash: p for p in (PROGRAM, branch.program)}


def reloaded(machine: Machine) -> Machine:
    return Machine.restore(PROGRAMS, codec_reload()(machine.images()), {"branch": branch.program}.__getitem__)


def begun() -> Machine:
    machine = Machine.start(PROGRAM, {"x": 1}, {"branch": branch.program}.__getitem__)
    machine.advance()
    machine.answer("0", Returned())
    return machine


def paths(machine: Machine) -> list[tuple[str, int]]:
    return sorted((ask.path, ask.visit) for ask in machine.advance())


def test_branches_are_named_by_the_await_and_their_number() -> None:
    machine = begun()
    asks = machine.advance()
    assert sorted((ask.path, ask.visit) for ask in asks) == [("0.2-1", 1), ("0.2-2", 1), ("0.2-3", 1)]
    (step,) = {ask.step for ask in asks if ask.path != "0.2-2"}
    assert step == machine.frames["0"].step
    machine.answer("0.2-2", Returned(1))
    assert paths(machine) == [("0.2-2", 2)]


@pytest.mark.parametrize("order", [["0.2-1", "0.2-2", "0.2-3", "0.2-2"], ["0.2-2", "0.2-2", "0.2-3", "0.2-1"]])
def test_the_other_branches_are_asked_again_after_a_reload_and_what_is_answered_is_not(order: list[str]) -> None:
    machine = begun()
    machine.advance()
    open_ = {"0.2-1", "0.2-2", "0.2-3"}
    for number, path in enumerate(order):
        machine.answer(path, Returned(number))
        machine = reloaded(machine)
        asked = {ask.path for ask in machine.advance()}
        if path != "0.2-2" or "0.2-2" not in asked:
            open_.remove(path)
        assert asked == open_
    assert isinstance(machine.outcome, Returned)
    assert machine.outcome.value[1] == tuple(number for number, path in enumerate(order) if path == "0.2-2")


def test_what_waits_is_stored_as_data() -> None:
    machine = begun()
    machine.advance()
    machine.answer("0.2-1", Returned("d"))
    machine.advance()
    assert machine.images()["0"].variables["$await"] == Gathering([Ended("d"), Running(), delay(timedelta(1))])


def test_asks_of_cancelled_branches_are_withdrawn_and_not_to_be_answered() -> None:
    machine = begun()
    machine.advance()
    machine.answer("0.2-2", Returned(1))
    machine.advance()
    assert machine.withdrawn == []
    machine.answer("0.2-1", Raised(ValueError("direct")))
    (ask,) = machine.advance()
    assert ask.awaited == act("cleaning")
    assert sorted(machine.withdrawn) == ["0.2-2", "0.2-3"]
    with pytest.raises(RuntimeError, match=r"no branch 0\.2-3 that waits"):
        machine.answer("0.2-3", Returned())
    machine = reloaded(machine)
    assert machine.advance() == [ask]
    assert machine.withdrawn == []
    machine.answer("0.2-2", Returned())
    machine.advance()
    assert repr(machine.outcome) == "Raised(error=ValueError('direct'))"


def test_a_branch_that_fails_at_once_lets_nothing_be_asked() -> None:
    async def failing() -> None:
        await gather(act("never"), broken())

    machine = Machine.start(compile_workflow(failing, name="w"), {}, {"broken": broken.program}.__getitem__)
    assert machine.advance() == []
    assert machine.withdrawn == []
    assert repr(machine.outcome) == "Raised(error=KeyError(1))"


@routine
async def broken() -> None:
    raise KeyError(1)


def test_an_unknown_routine_fails_its_branch() -> None:
    async def failing() -> None:
        await gather(act("never"), broken())

    machine = Machine.start(compile_workflow(failing, name="w"), {})
    assert machine.advance() == []
    assert "no routine 'broken'" in repr(machine.outcome)


def test_a_branch_whose_answer_has_come_is_cancelled_nevertheless() -> None:
    machine = begun()
    machine.advance()
    machine.answer("0.2-2", Returned(1))
    machine.advance()
    machine.answer("0.2-2", Returned(2))
    machine.answer("0.2-1", Raised(ValueError("direct")))
    assert machine.advance() == []
    assert machine.withdrawn == ["0.2-3"]
    assert repr(machine.outcome) == "Raised(error=ValueError('direct'))"


@pytest.mark.parametrize("wrong", [checkpoint(), 1, None, gather()])
def test_only_activities_waits_and_routines_can_be_gathered(wrong: Any) -> None:
    assert checkpoint() == Checkpoint()
    with pytest.raises(TypeError, match="a branch of gather"):
        gather(act(), wrong)
