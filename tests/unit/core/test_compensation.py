"""Compensable scopes: what is undone, confirmed and cancelled, when, and in which order."""

import pytest

from holdfast.processor.core.outcomes import Returned
from holdfast.processor.language.compensating import compensate
from holdfast.processor.language.compensating import confirm as confirm_now
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import compensable
from holdfast.schemas.errors import CompensationError
from tests.unit.core.compensations import (
    Broken,
    Drive,
    around_a_routine,
    book,
    cancel,
    caught,
    confirm,
    do,
    register,
    two_scopes,
    undo,
)


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


async def failing_around_others() -> None:
    try:
        async with compensable():
            async with compensable() as inner:
                register(inner, "inner")
            await do("fail")
    except Broken:
        await do("caught")


def test_a_failed_scope_without_actions_undoes_what_completed_inside(drives: Drive) -> None:
    run = drives(failing_around_others, failing={"do fail"})
    assert run.log == ["do fail", "undo inner", "do caught"]


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
