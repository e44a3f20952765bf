"""A subflow that runs in its parent's machine: entered at an ask, told of when it ends, and found again in data."""

from typing import Any

import pytest

from holdfast.processor.core.machine import MAX_DEPTH, Left, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import Running, SubflowCall
from holdfast.processor.language.compensable import STORED
from holdfast.processor.language.compensating import compensate
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import compensable
from holdfast.processor.language.subflows import run
from holdfast.schemas.errors import Cancelled, CompensationFailed
from holdfast.schemas.message import Message
from tests.support.twin import act, codec_reload

app = App("subflows")


class Asked(Message, correlation="key"):
    key: str


@app.activity
async def undo() -> None: ...


@app.workflow(start=Asked, persistence="in_memory")
async def child(asked: Asked) -> str:
    try:
        first = await act(asked.key)
        return f"{first} {await inner(asked.key)}"
    finally:
        await act("clean")


@routine
async def inner(key: str) -> str:
    async with compensable() as scope:
        scope.undo(undo)
        answer: str = await act(f"inner {key}")
        return answer


async def parent() -> list[Any]:
    both: Any
    first = await run(child, Asked(key="a"))
    try:
        both = await gather(run(child, Asked(key="b")), run(child, Asked(key="c")))
    except ValueError as error:
        both = [repr(error)]
    return [first, *both]


PARENT = compile_workflow(parent, name="parent")
CHILD = app.workflows["child"].program
PROGRAMS = {p.hash: p for p in (PARENT, CHILD, inner.program)}


def start() -> Machine:
    return Machine.start(PARENT, {}, {"inner": inner.program}.__getitem__)


def reloaded(machine: Machine) -> Machine:
    images = codec_reload(Asked, *STORED)(machine.images())
    return Machine.restore(PROGRAMS, images, {"inner": inner.program}.__getitem__)


def enter(machine: Machine, path: str, child: str) -> str:
    return machine.enter(path, CHILD, {"asked": Asked(key=child)}, child)


def children(machine: Machine) -> dict[str, str]:
    return {path: frame.variables["$child"] for path, frame in machine.frames.items() if "$child" in frame.variables}


def one(machine: Machine) -> tuple[str, Any]:
    (ask,) = machine.advance()
    return ask.path, ask.awaited


@pytest.mark.parametrize("reload", [False, True], ids=["in memory", "reloaded"])
def test_a_subflow_runs_as_a_frame_and_its_result_goes_to_who_ran_it(reload: bool) -> None:  # noqa: FBT001 - given by pytest
    machine = start()
    assert one(machine) == ("0", SubflowCall("child", Asked(key="a"), "run"))
    assert enter(machine, "0", "a") == "0.1"
    assert one(machine) == ("0.1", act("a"))
    for path, given, asked in (
        ("0.1", 1, ("0.1.2", act("inner a"))),
        ("0.1.2", 2, ("0.1", act("clean"))),
    ):
        machine.answer(path, Returned(given))
        assert children(machine) == {"0.1": "a"}
        if reload:
            machine = reloaded(machine)
        assert children(machine) == {"0.1": "a"}
        assert one(machine) == asked
        assert machine.left == []
    machine.answer("0.1", Returned())
    asks = machine.advance()
    assert machine.left == [Left("a", "0.1", Returned("1 2"))]
    assert children(machine) == {}
    assert [ask.path for ask in asks] == ["0.2-1", "0.2-2"]


def in_branches() -> Machine:
    machine = start()
    machine.advance()
    machine.answer("0", Returned("first"))
    machine.advance()
    assert enter(machine, "0.2-2", "c") == "0.2-2"
    assert one(machine) == ("0.2-2", act("c"))
    assert enter(machine, "0.2-1", "b") == "0.2-1"
    assert one(machine) == ("0.2-1", act("b"))
    assert children(machine) == {"0.2-1": "b", "0.2-2": "c"}
    return machine


def test_branches_of_a_gather_are_entered_too_and_an_exception_crosses() -> None:
    machine = reloaded(in_branches())
    assert {ask.path for ask in machine.advance()} == {"0.2-1", "0.2-2"}
    machine.answer("0.2-1", Raised(ValueError("bad")))
    assert one(machine) == ("0.2-1", act("clean"))
    machine.answer("0.2-1", Returned())
    # The other one is cancelled, and cleans up before it leaves.
    assert one(machine) == ("0.2-2", act("clean"))
    assert [(left.child, left.path, repr(left.outcome)) for left in machine.left] == [
        ("b", "0.2-1", "Raised(error=ValueError('bad'))")
    ]
    machine.answer("0.2-2", Returned())
    assert machine.advance() == []
    (left,) = machine.left
    assert isinstance(left.outcome, Raised)
    assert (left.child, type(left.outcome.error)) == ("c", Cancelled)
    assert machine.outcome == Returned(["first", "ValueError('bad')"])


def test_what_is_compensable_in_a_subflow_is_settled_with_its_parent() -> None:
    machine = in_branches()
    machine.answer("0.2-1", Returned(1))
    machine.advance()
    machine.answer("0.2-1.2", Raised(KeyError("bad")))
    machine.advance()
    machine.answer("0.2-1", Returned())
    machine.advance()
    machine.answer("0.2-2", Returned())
    machine.advance()
    assert machine.settle("undo")
    assert one(machine) == ("0.3~1", undo())
    machine.answer("0.3~1", Returned())
    assert machine.advance() == []
    assert repr(machine.outcome) == "Raised(error=KeyError('bad'))"
    assert not machine.settle("undo")


async def failing_beside_a_subflow() -> None:
    async with compensable() as scope:
        scope.undo(undo)
    await gather(compensate(scope), run(child, Asked(key="b")))


def test_an_undo_that_fails_ends_subflows_too() -> None:
    machine = Machine.start(compile_workflow(failing_beside_a_subflow, name="w"), {})
    machine.advance()
    enter(machine, "0.3-2", "b")
    machine.advance()
    machine.answer("0.3-1.1", Raised(KeyError("undo")))
    assert machine.advance() == []
    assert isinstance(machine.outcome, Raised)
    assert isinstance(machine.outcome.error, CompensationFailed)
    assert machine.left == [Left("b", "0.3-2", machine.outcome)]
    assert machine.withdrawn == ["0.3-2"]


def test_subflows_of_subflows_have_an_end() -> None:
    machine = Machine.start(compile_workflow(grandparent, name="w"), {})
    path = "0"
    for _ in range(MAX_DEPTH):
        machine.advance()
        path = machine.enter(path, machine.frames["0"].program, {}, "again")
    machine.advance()
    with pytest.raises(RecursionError, match=f"more than {MAX_DEPTH} deep"):
        machine.enter(path, CHILD, {}, "too deep")


async def grandparent() -> Any:
    return await run(child, Asked(key="deep"))


def test_a_subflow_may_run_another() -> None:
    program = compile_workflow(grandparent, name="grandparent")
    machine = start()
    machine.advance()
    assert machine.enter("0", program, {}, "outer") == "0.1"
    machine.advance()
    assert enter(machine, "0.1", "inner") == "0.1.1"
    assert children(machine) == {"0.1": "outer", "0.1.1": "inner"}
    machine.advance()
    machine.answer("0.1.1", Raised(ValueError("x")))
    machine.advance()
    machine.answer("0.1.1", Returned())
    machine.advance()
    assert [left.child for left in machine.left] == ["inner", "outer"]
    assert repr(machine.outcome) == "Raised(error=ValueError('x'))"


def test_what_waits_for_no_subflow_cannot_be_entered() -> None:
    machine = start()
    machine.advance()
    enter(machine, "0", "a")
    machine.advance()
    assert machine.frames["0"].awaiting == Running()
    for path in ("0", "0.1", "0.7-1"):
        with pytest.raises(RuntimeError):
            enter(machine, path, "again")
