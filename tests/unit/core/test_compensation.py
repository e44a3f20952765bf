"""Compensable scopes: what is undone, confirmed and cancelled, when, and in which order."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.processor.core.machine import Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.compensable import Compensable
from holdfast.processor.language.compensating import compensate
from holdfast.processor.language.compensating import confirm as confirm_now
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import compensable
from holdfast.schemas.errors import CompensationError, CompensationFailed, ScopeError
from tests.unit.core.compensations import Broken, Run, cancel, confirm, do, drive, undo

Drive = Callable[..., Run]


@pytest.fixture(params=[False, True], ids=["in memory", "reloaded"])
def drives(request: pytest.FixtureRequest) -> Drive:
    """Run a workflow in memory, or stored and restored around every answer."""

    def driven(function: Callable[..., Any], **options: Any) -> Run:
        run = drive(function, reload=request.param, **options)
        assert len(set(run.places)) == len(run.places), "no place is used twice"
        return run

    return driven


def register(scope: Compensable, what: str) -> None:
    scope.undo(undo, what)
    scope.confirm(confirm, what)


async def two_scopes() -> str:
    async with compensable() as a:
        await do("a")
        register(a, "a")
        async with compensable() as b:
            await do("b")
            register(b, "b")
        a.undo(undo, "a again")
        a.confirm(confirm, "a again")
    async with compensable() as c:
        await do("c")
        register(c, "c")
    await do("end")
    return "done"


def test_what_completed_is_undone_newest_first_when_an_exception_ends_the_workflow(drives: Drive) -> None:
    run = drives(two_scopes, failing={"do end"})
    assert run.log == ["do a", "do b", "do c", "do end", "undo c", "undo a again", "undo b", "undo a"]
    assert repr(run.error) == "Broken('do end')"


def test_what_completed_is_confirmed_oldest_first_when_the_workflow_returns(drives: Drive) -> None:
    run = drives(two_scopes)
    assert run.log == ["do a", "do b", "do c", "do end", "confirm a", "confirm b", "confirm a again", "confirm c"]
    assert run.outcome == Returned("done")


def test_nothing_is_undone_for_an_exception_that_nobody_caught_if_the_policy_is_to_abandon(drives: Drive) -> None:
    run = drives(two_scopes, failing={"do end"}, policy="abandon")
    assert run.log == ["do a", "do b", "do c", "do end"]


def test_a_scope_that_failed_is_undone_together_with_those_that_completed(drives: Drive) -> None:
    run = drives(two_scopes, failing={"do c"})
    assert run.log[3:] == ["undo a again", "undo b", "undo a"]
    run = drives(two_scopes, failing={"do b"})
    assert run.log == ["do a", "do b", "undo a"]


def test_a_cancelled_instance_runs_finally_and_then_compensates(drives: Drive) -> None:
    run = drives(cleaning, cancel_at="do wait")
    assert run.log == ["do a", "cancelled at do wait", "do clean", "cancel b", "undo a"]
    assert repr(run.error) == "Cancelled()"
    assert run.withdrawn == ["0"]


async def cleaning() -> None:
    async with compensable() as a:
        await do("a")
        register(a, "a")
    async with compensable() as b:
        b.undo(undo, "b")
        b.cancel(cancel, "b")
        try:
            await do("wait")
        finally:
            await do("clean")


async def caught() -> str:
    try:
        async with compensable() as a:
            a.undo(undo, "a")
            await do("first")
            a.undo(undo, "a again")
            await do("second")
    except Broken:
        pass
    await do("caught")
    await do("next")
    return "done"


def test_a_scope_whose_exception_was_caught_is_cancelled_at_the_next_await(drives: Drive) -> None:
    run = drives(caught, failing={"do second"})
    assert run.log == ["do first", "do second", "undo a again", "undo a", "do caught", "do next"]
    assert run.outcome == Returned("done")
    run = drives(caught, failing={"do first"})
    assert run.log == ["do first", "undo a", "do caught", "do next"]
    assert run.places == [("0", 2), ("0.4~1", 1), ("0", 4), ("0", 5)]


def test_what_was_cancelled_is_not_undone_again(drives: Drive) -> None:
    run = drives(caught, failing={"do first", "do next"})
    assert run.log == ["do first", "undo a", "do caught", "do next"]


async def handled() -> None:
    try:
        async with compensable() as outer:
            outer.undo(undo, "outer")
            async with compensable() as inner:
                inner.undo(undo, "inner")
                inner.confirm(confirm, "inner")
            async with compensable() as failing:
                failing.undo(undo, "failing")
                failing.cancel(cancel, "failing")
                failing.cancel(cancel, "failing again")
                await do("fail")
    except Broken:
        await do("handle")


def test_in_the_handler_too_and_what_is_inside_of_a_failed_scope_is_undone(drives: Drive) -> None:
    run = drives(handled, failing={"do fail"})
    assert run.log == ["do fail", "cancel failing again", "cancel failing", "undo inner", "undo outer", "do handle"]


async def passing_through_finally() -> None:
    try:
        try:
            async with compensable() as a:
                a.undo(undo, "a")
                await do("fail")
        except Broken as error:
            raise KeyError from error
        finally:
            await do("finally")
    except KeyError:
        await do("caught")


def test_while_the_exception_is_on_its_way_nothing_is_cancelled(drives: Drive) -> None:
    run = drives(passing_through_finally, failing={"do fail"})
    assert run.log == ["do fail", "do finally", "undo a", "do caught"]


def test_what_failed_and_was_caught_without_a_further_await_is_cancelled_before_the_rest_is_confirmed(
    drives: Drive,
) -> None:
    run = drives(caught_at_the_end, failing={"do fail"})
    assert run.log == ["do fail", "undo b", "confirm a"]


async def caught_at_the_end() -> None:
    async with compensable() as a:
        register(a, "a")
    try:
        async with compensable() as b:
            register(b, "b")
            await do("fail")
    except Broken:
        pass


async def on_purpose() -> list[str]:
    said = []
    async with compensable() as outer:
        register(outer, "outer")
        async with compensable() as inner:
            register(inner, "inner")
        for is_undo in (True, False):
            try:
                await (compensate(outer) if is_undo else confirm_now(outer))
            except CompensationError as error:
                said.append(str(error))
    await do("before")
    await compensate(outer)
    await do("after")
    for scope in (outer, inner):
        try:
            await confirm_now(scope)
        except CompensationError as error:
            said.append(str(error))
    async with compensable() as other:
        register(other, "other")
        other.confirm(confirm, "other again")
    await confirm_now(other)
    try:
        await compensate(other)
    except CompensationError as error:
        said.append(str(error))
    await do("end")
    return said


def test_scopes_are_undone_or_confirmed_on_purpose_and_once(drives: Drive) -> None:
    for failing in (set(), {"do end"}):
        run = drives(on_purpose, failing=failing)
        undone = ["do before", "undo inner", "undo outer", "do after"]
        assert run.log == [*undone, "confirm other", "confirm other again", "do end"]
    run = drives(on_purpose)
    assert isinstance(run.outcome, Returned)
    assert run.outcome.value == [
        "only a completed scope can be undone, and this one is active",
        "only a completed scope can be confirmed, and this one is active",
        "only a completed scope can be confirmed, and this one is undone",
        "only a completed scope can be confirmed, and this one is undone",
        "only a completed scope can be undone, and this one is confirmed",
    ]


@routine
async def book(what: str) -> Compensable:
    async with compensable() as scope:
        register(scope, what)
        await do(what)
    return scope


async def in_loops_and_routines() -> None:
    async with compensable() as outer:
        for number in range(2):
            async with compensable() as each:
                register(each, f"turn {number}")
                await book(f"book {number}")
        register(outer, "outer")
    flights = await gather(book("left"), book("right"))
    await compensate(flights[0])
    await do("end")


def test_scopes_in_loops_routines_and_branches_are_in_one_order(drives: Drive) -> None:
    run = drives(in_loops_and_routines, failing={"do end"})
    begun = ["do book 0", "do book 1", "do left", "do right", "undo left", "do end"]
    assert run.log == [*begun, "undo right", "undo outer", "undo book 1", "undo turn 1", "undo book 0", "undo turn 0"]
    confirmed = ["turn 0", "book 0", "turn 1", "book 1", "outer", "right"]
    assert drives(in_loops_and_routines).log == [*begun, *(f"confirm {what}" for what in confirmed)]


def test_what_was_opened_inside_of_a_scope_in_a_routine_is_undone_with_it(drives: Drive) -> None:
    run = drives(around_a_routine)
    assert run.log == ["do inner", "undo inner", "undo outer", "do end"]


async def around_a_routine() -> None:
    async with compensable() as outer:
        register(outer, "outer")
        await book("inner")
    await compensate(outer)
    await do("end")


@routine
async def half_done(what: str) -> None:
    async with compensable() as scope:
        scope.undo(undo, what)
        scope.cancel(cancel, what)
        await do(what)


async def gathering() -> None:
    try:
        try:
            await gather(half_done("left"), half_done("right"))
        finally:
            await do("finally")
    except Broken:
        await do("caught")


async def gathering_uncaught() -> None:
    try:
        await gather(half_done("left"), half_done("right"))
    finally:
        await do("finally")


@pytest.mark.parametrize("last", [False, True])
def test_scopes_in_branches_are_cancelled_when_the_exception_of_the_gather_was_caught(
    drives: Drive,
    last: bool,  # noqa: FBT001 - given by pytest
) -> None:
    first = "do right" if last else "do left"
    run = drives(gathering, failing={first}, last=last)
    assert run.log == [first, "do finally", "cancel right", "cancel left", "do caught"]
    run = drives(gathering_uncaught, failing={first}, last=last, policy="abandon")
    assert run.log == [first, "do finally"]
    run = drives(gathering_uncaught, failing={first}, last=last)
    assert run.log == [first, "do finally", "cancel right", "cancel left"]


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
    assert not machine.is_cancelled


def test_cancelled_before_it_began_it_does_nothing() -> None:
    machine = Machine.start(compile_workflow(two_scopes, name="w"), {})
    assert machine.cancel()
    assert machine.advance() == []
    assert repr(machine.outcome) == "Raised(error=Cancelled())"
    assert not machine.settle("undo")
