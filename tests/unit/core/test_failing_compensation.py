"""Compensation that fails, is itself interrupted or compensable, or is misused."""

from holdfast.processor.core.machine import ROOT, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Leave, NoPersist
from holdfast.processor.language.compensable import STORED
from holdfast.processor.language.compensating import compensate
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import compensable, no_persist
from holdfast.schemas.errors import CompensationError, CompensationFailed, ScopeError
from tests.support.twin import codec_reload
from tests.unit.core.compensations import (
    Broken,
    Drive,
    around_a_routine,
    book,
    caught,
    confirm,
    do,
    register,
    two_scopes,
    undo,
)


async def failing_compensation() -> str:
    async with compensable() as a:
        register(a, "a")
        a.undo(undo, "bad")
    try:
        await compensate(a)
        return "undone"
    except CompensationFailed:
        return "caught"


def test_an_undo_that_fails_ends_the_instance_whoever_would_catch_it(drives: Drive) -> None:
    for policy in ("cancel", "abandon"):
        run = drives(failing_compensation, failing={"undo bad"}, policy=policy)
        assert run.log == ["undo bad"]
        assert isinstance(run.error, CompensationFailed)
        assert str(run.error) == "undo, which was to undo a scope, raised Broken('undo bad')"
        assert repr(run.error.__cause__) == "Broken('undo bad')"


def test_so_does_one_that_fails_at_the_end_and_it_remembers_why_it_ran(drives: Drive) -> None:
    run = drives(two_scopes, failing={"do end", "undo b"})
    assert run.log[4:] == ["undo c", "undo a again", "undo b"]
    assert isinstance(run.error, CompensationFailed)
    assert repr(run.error.__cause__.__context__ if run.error.__cause__ else None) == "Broken('do end')"
    run = drives(two_scopes, failing={"confirm a"})
    assert run.log[4:] == ["confirm a"]
    assert isinstance(run.error, CompensationFailed)


def test_so_does_one_that_fails_while_a_scope_is_cancelled_with_all_branches(drives: Drive) -> None:
    run = drives(side_by_side, failing={"do first", "undo a"})
    assert run.log == ["do first", "undo a"]
    assert isinstance(run.error, CompensationFailed)


def test_what_other_branches_wait_for_is_taken_back_then() -> None:
    program = compile_workflow(side_by_side, name="w")
    machine = Machine.start(program, {}, {"catching": catching.program}.__getitem__)
    machine.advance()
    machine.answer("0.1-1", Raised(Broken()))
    assert [(ask.path, ask.awaited) for ask in machine.advance()] == [("0.1-1.4~1", undo("a"))]
    machine.answer("0.1-1.4~1", Raised(Broken()))
    assert machine.advance() == []
    assert machine.withdrawn == ["0.1-2"]
    assert set(machine.frames) == {"0"}


def test_so_does_one_that_raises_what_is_no_exception_of_programs(drives: Drive) -> None:
    for failing in ({"do end"}, {"do inside"}):
        run = drives(exiting_undo, failing=failing)
        assert run.log[-1] == min(failing)
        assert isinstance(run.error, CompensationFailed)
        assert repr(run.error.__cause__) == "SystemExit('not undone')"


async def exiting_undo() -> None:
    async with compensable() as a:
        a.undo(undo, "never")
        a.undo(exiting)
    try:
        async with compensable() as b:
            b.undo(exiting)
            await do("inside")
    except Broken:
        await do("goes on")
    await do("end")


@routine
async def exiting() -> None:
    raise SystemExit("not undone")


def test_a_cancel_that_comes_meanwhile_lets_the_scope_around_end() -> None:
    program = compile_workflow(not_persisting, name="w")
    for reload in (False, True):
        machine = Machine.start(program, {})
        (entering,) = machine.advance()
        machine.answer(entering.path, Returned())
        (undoing,) = machine.advance()
        assert machine.cancel()
        assert machine.advance() == []
        machine.answer(undoing.path, Returned())
        if reload:
            machine = Machine.restore({program.hash: program}, codec_reload(*STORED)(machine.images()))
        (leaving,) = machine.advance()
        assert leaving.awaited == Leave(NoPersist())
        machine.answer(leaving.path, Returned())
        machine.advance()
        assert repr(machine.outcome) == "Raised(error=Cancelled())"


async def not_persisting() -> None:
    async with no_persist():
        try:
            async with compensable() as a:
                a.undo(undo, "a")
                raise KeyError  # noqa: TRY301 - That it is raised in there is the point.
        except KeyError:
            pass


async def side_by_side() -> None:
    await gather(catching(), do("other"))


@routine
async def catching() -> None:
    try:
        async with compensable() as a:
            a.undo(undo, "a")
            await do("first")
    except Broken:
        await do("caught")


async def undoing_while_cancelled() -> None:
    async with compensable() as a:
        a.undo(undo, "a")
        a.undo(undo, "a again")
    try:
        await compensate(a)
    finally:
        await do("finally")


def test_what_undoes_is_not_interrupted_by_a_cancel_which_is_raised_behind_it(drives: Drive) -> None:
    run = drives(undoing_while_cancelled, cancel_at="undo a again")
    assert run.log == ["cancelled at undo a again", "undo a again", "undo a", "do finally"]
    assert repr(run.error) == "Cancelled()"
    run = drives(caught, failing={"do second"}, cancel_at="undo a")
    assert run.log == ["do first", "do second", "undo a again", "cancelled at undo a", "undo a"]
    assert repr(run.error) == "Cancelled()"


async def leaving_after_a_failure() -> None:
    async with compensable() as outer:
        outer.undo(undo, "outer")
        try:
            async with compensable() as inner:
                inner.undo(undo, "inner")
                await do("fail")
        except Broken:
            pass


def test_a_scope_whose_end_had_to_wait_is_left_by_the_cancel_that_came_meanwhile(drives: Drive) -> None:
    run = drives(leaving_after_a_failure, failing={"do fail"}, cancel_at="undo inner")
    assert run.log == ["do fail", "cancelled at undo inner", "undo inner", "undo outer"]
    assert repr(run.error) == "Cancelled()"


@routine
async def careful(what: str) -> None:
    async with compensable() as outer:
        register(outer, what)
        async with compensable() as inner:
            register(inner, f"{what} inside")
        await do(what)


async def undone_carefully() -> None:
    async with compensable() as a:
        a.undo(careful, "refund")
    await compensate(a)
    await do("end")


def test_a_scope_inside_of_compensation_is_confirmed_at_its_end(drives: Drive) -> None:
    confirmed = ["do refund", "confirm refund", "confirm refund inside"]
    run = drives(undone_carefully, failing={"do end"})
    assert run.log == [*confirmed, "do end"]
    run = drives(undone_carefully, failing={"do refund"})
    assert run.log == ["do refund"]
    assert isinstance(run.error, CompensationFailed)


async def settled_carefully() -> None:
    async with compensable() as a:
        a.undo(careful, "refund")
    await do("end")


def test_settling_ends(drives: Drive) -> None:
    run = drives(settled_carefully, failing={"do end"})
    assert run.log == ["do end", "do refund", "confirm refund", "confirm refund inside"]
    assert repr(run.error) == "Broken('do end')"


def test_a_transaction_around_makes_it_a_scope_error() -> None:
    program = compile_workflow(around_a_routine, name="w")
    programs = {"book": book.program}
    for transactions, fails in (({"0"}, True), ({"0.2"}, True), ({"0.1"}, False)):
        machine = Machine.start(program, {}, programs.__getitem__)
        machine.transactions = frozenset(transactions)
        machine.advance()
        assert (machine.outcome is not None) is fails
        if isinstance(machine.outcome, Raised):
            assert isinstance(machine.outcome.error, ScopeError)
            assert machine.outcome.error.what == "compensable() inside a transaction"


async def misused() -> list[str]:
    said = []
    async with compensable() as a:
        for wrong in (print, "undo"):
            try:
                a.undo(wrong, 1)  # type: ignore[arg-type]
            except TypeError as error:
                said.append(str(error))
    try:
        a.confirm(confirm, "late")
    except CompensationError as error:
        said.append(str(error))
    try:
        await compensate("a")  # type: ignore[arg-type]
    except TypeError as error:
        said.append(str(error))
    return said


def test_misuse_is_told(drives: Drive) -> None:
    run = drives(misused)
    assert isinstance(run.outcome, Returned)
    assert run.outcome.value == [
        "undo() takes an activity or a routine and its arguments, not <built-in function print>",
        "undo() takes an activity or a routine and its arguments, not 'undo'",
        "confirm() is for the body of the compensable scope, and this one is completed",
        "only what compensable() gave can be compensated or confirmed, not 'a'",
    ]


def test_an_instance_that_has_ended_or_is_being_settled_cannot_be_cancelled() -> None:
    machine = Machine.start(compile_workflow(two_scopes, name="w"), {})
    while machine.advance():
        machine.answer("0", Returned())
    assert not machine.cancel()
    assert machine.settle("confirm")
    assert not machine.cancel()
    assert "$cancelled" not in machine.frames[ROOT].variables


def test_cancelled_before_it_began_it_does_nothing() -> None:
    machine = Machine.start(compile_workflow(two_scopes, name="w"), {})
    assert machine.cancel()
    assert machine.advance() == []
    assert repr(machine.outcome) == "Raised(error=Cancelled())"
    assert not machine.settle("undo")
