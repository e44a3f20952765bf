"""What would be undone, as the log tells it, beside what then is."""

from typing import Any

import pytest

from holdfast import App, Message, compensable, compensate, confirm, receive, routine
from holdfast.processor.cli.compensation import lines
from holdfast.projections.compensation import Compensation, preview
from holdfast.testing import Simulation

app = App("previews")
ran: list[str] = []


class Begun(Message, correlation="key"):
    key: str


class Regular(Begun): ...


class AtOnce(Begun): ...


class HalfWay(Begun): ...


class Slow(Begun): ...


class Went(Begun): ...


class Ending(Begun):
    is_undone: bool


@app.activity
async def tidy() -> None:
    ran.append("undo all")


@app.activity
async def undo(what: str, times: int = 1) -> None:
    ran.append(f"undo {what}" + f" {times}" * (times > 1))


@app.activity
async def accept(what: str) -> None:
    ran.append(f"confirm {what}")


@app.activity
async def withdraw(what: str) -> None:
    ran.append(f"cancel {what}")


@routine
async def undo_slowly(what: str) -> None:
    await receive(Went, what)
    await undo(what)


async def book(key: str) -> None:
    async with compensable() as outer:
        outer.undo(undo, "outer", times=2)
        outer.confirm(accept, "outer")
        async with compensable() as inner:
            inner.undo(undo, "inner")
        outer.undo(undo, "outer again")
    async with compensable() as other:
        other.undo(undo, "other")
        other.confirm(accept, "other")
        await receive(Went, f"{key}/first")
    await confirm(other)
    async with compensable() as last:
        last.undo(undo, "last")
    await receive(Went, f"{key}/second")


book_in_frame = routine(book)


@app.workflow(start=Regular)
async def regular(begun: Regular) -> None:
    await book_in_frame(begun.key)


@app.workflow(start=AtOnce, persistence="in_memory")
async def at_once(begun: AtOnce) -> None:
    await book_in_frame(begun.key)


@app.workflow(start=HalfWay)
async def half_way(begun: HalfWay) -> None:
    async with compensable() as done:
        done.undo(undo, "done")
    async with compensable() as open_one:
        open_one.undo(undo, "open")
        open_one.cancel(withdraw, "open")
        await receive(Went, begun.key)


@app.workflow(start=Slow)
async def slow(begun: Slow) -> None:
    async with compensable() as first:
        first.undo(undo, "first")
    async with compensable() as second:
        second.undo(undo, "second")
        second.undo(undo_slowly, begun.key)
        second.confirm(accept, "second")
    await compensate(second)
    await receive(Went, "never")


@app.workflow(start=Ending, persistence="in_memory")
async def ending(begun: Ending) -> None:
    async with compensable() as scope:
        scope.undo(tidy)
        scope.undo(tidy)
        scope.confirm(accept, "all")
    await receive(Went, begun.key)
    if begun.is_undone:
        await compensate(scope)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


async def previewed(world: Simulation) -> Compensation:
    return preview([recorded.event for recorded in await world.history(world.instance())])


def calls(actions: Any) -> list[str]:
    """Return actions as the activities note that they ran."""
    noted = []
    for each in actions:
        what = each.arguments[0] if each.arguments else each.keywords["what"]
        noted.append(f"{each.kind} {what}" + "".join(f" {n}" for name, n in each.keywords.items() if name == "times"))
    return noted


def fates(found: Compensation) -> dict[str, str]:
    return {noted: gone.fate for gone in found.gone for noted in calls([gone.action])}


@pytest.mark.parametrize("message", [Regular(key="k"), AtOnce(key="k")], ids=["regular", "in_memory"])
@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_what_is_previewed_is_what_a_cancel_then_calls(message: Begun, is_confirmed: bool) -> None:  # noqa: FBT001  A case.
    async with Simulation(app) as world:
        await world.deliver(message)
        if is_confirmed:
            await world.deliver(Went(key="k/first"))
            assert ran == ["confirm other"]
            ran.clear()
        found = await previewed(world)
        top = "undo last" if is_confirmed else "undo other"
        assert calls(found.due) == [top, "undo outer again", "undo inner", "undo outer 2"]
        assert fates(found) == ({"undo other": "dropped", "confirm other": "called"} if is_confirmed else {})
        await world.command(world.instance(), "cancel")
        assert ran == calls(found.due)
        after = await previewed(world)
        assert (after.outcome, after.under_way, after.due, after.kept) == ("cancelled", (), (), ())
        assert {noted for noted, fate in fates(after).items() if fate == "called"} >= set(ran)


async def test_a_scope_that_is_open_is_cancelled_and_the_rest_is_undone() -> None:
    async with Simulation(app) as world:
        await world.deliver(HalfWay(key="k"))
        found = await previewed(world)
        assert calls(found.due) == ["cancel open", "undo done"]
        assert calls(found.kept) == ["undo open"]
        assert [(each.frame, each.status) for each in found.due] == [("0", "active"), ("0", "completed")]
        await world.command(world.instance(), "cancel")
        assert ran == calls(found.due)


async def test_what_is_under_way_is_ended_before_a_cancel_goes_on() -> None:
    async with Simulation(app) as world:
        await world.deliver(Slow(key="k"))
        found = await previewed(world)
        assert calls(found.under_way) == ["undo k", "undo second"]
        assert calls(found.due) == ["undo first"]
        assert fates(found) == {"confirm second": "dropped"}
        await world.command(world.instance(), "cancel")
        await world.deliver(Went(key="k"))
        assert ran == calls([*found.under_way, *found.due])
        after = await previewed(world)
        assert fates(after) == {
            "undo first": "called",
            "undo second": "called",
            "undo k": "called",
            "confirm second": "dropped",
        }


async def test_what_a_terminated_instance_had_registered_was_dropped() -> None:
    async with Simulation(app) as world:
        await world.deliver(HalfWay(key="k"))
        await world.command(world.instance(), "terminate")
        found = await previewed(world)
        assert set(fates(found).values()) == {"dropped"}
        assert lines(found) == [
            "Nothing can be undone any more: the instance is terminated.",
            "can no longer be called",
            "  1 undo undo('done'), scope 1 of frame 0 (completed): not called",
            "  2 undo undo('open'), scope 2 of frame 0 (active): not called",
            "  3 cancel withdraw('open'), scope 2 of frame 0 (active): not called",
        ]


async def test_a_preview_is_readable() -> None:
    async with Simulation(app) as world:
        await world.deliver(Slow(key="k"))
        found = await previewed(world)
        assert lines(found) == [
            f"As of version {found.version}; what was registered since is known to the worker alone.",
            "being called",
            "  3 undo undo_slowly(what='k'), scope 2 of frame 0 (undone)",
            "  2 undo undo('second'), scope 2 of frame 0 (undone)",
            "what a cancel would call, in order",
            "  1 undo undo('first'), scope 1 of frame 0 (completed)",
            "can no longer be called",
            "  4 confirm accept('second'), scope 2 of frame 0 (undone): not called",
        ]


@pytest.mark.parametrize(
    ("is_undone", "fate_of_undo", "fate_of_confirm"), [(False, "dropped", "called"), (True, "unknown", "dropped")]
)
async def test_of_a_last_burst_it_tells_what_the_log_tells_and_no_more(
    is_undone: bool,  # noqa: FBT001  A case.
    fate_of_undo: str,
    fate_of_confirm: str,
) -> None:
    async with Simulation(app) as world:
        await world.deliver(Ending(key="k", is_undone=is_undone))
        found = await previewed(world)
        assert [(each.name, each.number, each.arguments) for each in found.due] == [("tidy", 2, []), ("tidy", 1, [])]
        await world.deliver(Went(key="k"))
        assert ran == (["undo all"] * 2 if is_undone else ["confirm all"])
        found = await previewed(world)
        assert [gone.fate for gone in found.gone] == [fate_of_undo, fate_of_undo, fate_of_confirm]


def test_nothing_is_known_of_an_instance_without_events() -> None:
    assert lines(preview([])) == ["Nothing is known: the instance is not persisted."]
