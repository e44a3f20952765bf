"""Timers that somebody fires, reschedules or cancels: what the workflow sees of it, and what the log says."""

from datetime import timedelta
from typing import Any

import pytest

from holdfast import App, Message, Retry, delay, first_of, gather, receive
from holdfast.events.types import TimerCancelled, TimerFired, TimerRescheduled
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.control import Command

app = App("timers")
ran: list[str] = []
failing: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    failing.clear()


class Raced(Message, correlation="key"):
    key: str


class Waited(Raced): ...


class Slept(Raced): ...


class Tried(Raced): ...


class Paid(Raced): ...


@app.workflow(start=Raced)
async def raced(start: Raced) -> str:
    outcome = await first_of(paid=receive(Paid, start.key), late=delay(timedelta(hours=1)))
    return outcome.name


@app.workflow(start=Waited)
async def waited(start: Waited) -> str:
    try:
        await receive(Paid, start.key, timeout=timedelta(hours=1))
    except TimeoutError:
        return "timed out"
    return "paid"


@app.workflow(start=Slept)
async def slept(start: Slept) -> None:
    await gather(delay(timedelta(hours=1)), delay(timedelta(hours=2)))


@app.activity(retry=Retry(attempts=3, delay=timedelta(hours=1), max_delay=timedelta(hours=1)))
async def attempt() -> str:
    ran.append("attempt")
    if "attempt" in failing:
        raise ValueError("attempt")
    return "done"


@app.workflow(start=Tried)
async def tried(start: Tried) -> str:
    return await attempt()


async def begin(message: Message) -> tuple[World, SimulatedHost]:
    world = World(app, time_to_unload=1e9)
    host = await world.host()
    await host.deliver(message, "m1")
    return world, host


async def give(world: World, host: SimulatedHost, command: str, timer: str, **about: Any) -> tuple[str, str | None]:
    """Give a command about a timer, and return its verdict."""
    given = Command(command=command, by="ann", why="because", timer=timer, **about)
    verdict = world.verdict(await host.command(world.instance_id, given))
    assert verdict is not None
    return verdict


async def last(world: World, kind: type[Any]) -> Any:
    """Return the last event of a type."""
    return [recorded.event for recorded in await world.events() if isinstance(recorded.event, kind)][-1]


def due_in(world: World, **time: float) -> str:
    return (world.now() + timedelta(**time)).isoformat()


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_a_timer_fires_as_though_it_were_due(is_loaded: bool) -> None:  # noqa: FBT001  By name.
    world, host = await begin(Raced(key="kay"))
    if not is_loaded:
        await host.engine.unload_idle(0)
    assert await give(world, host, "fire_timer", "0.1/late") == ("applied", None)
    assert world.state.result == "late"
    fired = await last(world, TimerFired)
    assert (fired.bookmark, fired.by, fired.why) == ("0.1/late", "ann", "because")


async def test_a_timeout_fires_too() -> None:
    world, host = await begin(Waited(key="kay"))
    assert await give(world, host, "fire_timer", "0.1:timeout") == ("applied", None)
    assert world.state.result == "timed out"


async def test_a_message_that_came_before_wins_over_a_timer_that_is_fired() -> None:
    world, host = await begin(Raced(key="kay"))
    await host.engine.unload_idle(0)
    await host.command(world.instance_id, "suspend")
    await host.deliver(Paid(key="kay"), "m2")
    assert world.verdict("m2") == ("buffered", None)
    assert await give(world, host, "fire_timer", "0.1/late") == ("rejected", "not_applicable")
    await host.command(world.instance_id, "resume")
    assert world.state.result == "paid"


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize(("new", "early", "late"), [({"minutes": 5}, 299, 2), ({"hours": 3}, 10_000, 900)])
async def test_a_timer_that_is_rescheduled_fires_at_its_new_time(
    is_loaded: bool,  # noqa: FBT001  By name.
    new: dict[str, float],
    early: float,
    late: float,
) -> None:
    world, host = await begin(Raced(key="kay"))
    if not is_loaded:
        await host.engine.unload_idle(0)
    due = due_in(world, **new)
    assert await give(world, host, "reschedule_timer", "0.1/late", due=due) == ("applied", None)
    rescheduled = await last(world, TimerRescheduled)
    assert (rescheduled.due, rescheduled.by, rescheduled.why) == (due, "ann", "because")
    assert world.state.execution_status == "idle"
    await world.advance(early)
    await host.detect()
    assert world.state.result is None
    await world.advance(late)
    await host.detect()
    assert world.state.result == "late"


async def test_a_timer_of_a_suspended_instance_is_rescheduled_where_it_stands() -> None:
    world, host = await begin(Raced(key="kay"))
    await host.command(world.instance_id, "suspend")
    due = due_in(world, minutes=5)
    assert await give(world, host, "reschedule_timer", "0.1/late", due=due) == ("applied", None)
    assert (world.state.bookmarks["0.1/late"].due, world.state.is_suspended, world.row.owner) == (due, True, None)
    assert await give(world, host, "fire_timer", "0.1/late") == ("rejected", "not_applicable")
    await world.advance(301)
    await host.command(world.instance_id, "resume")
    await host.detect()
    assert world.state.result == "late"


async def test_a_branch_whose_timer_is_cancelled_never_comes_first() -> None:
    world, host = await begin(Raced(key="kay"))
    assert await give(world, host, "cancel_timer", "0.1/late") == ("applied", None)
    cancelled = await last(world, TimerCancelled)
    assert (cancelled.bookmark, cancelled.by, cancelled.why) == ("0.1/late", "ann", "because")
    await world.advance(7200)
    await host.detect()
    assert (world.state.result, list(world.state.bookmarks)) == (None, ["0.1/paid"])
    await host.deliver(Paid(key="kay"), "m2")
    assert world.state.result == "paid"


async def test_a_receive_whose_timeout_is_cancelled_waits_without_a_limit_also_after_a_restart() -> None:
    world, host = await begin(Waited(key="kay"))
    await give(world, host, "cancel_timer", "0.1:timeout")
    await host.engine.unload_idle(0)
    await world.advance(7200)
    await host.detect()
    await host.deliver(Paid(key="kay"), "m2")
    assert world.state.result == "paid"


async def test_what_nothing_else_would_end_is_not_cancelled() -> None:
    world, host = await begin(Slept(key="kay"))
    version = world.state.version
    assert await give(world, host, "cancel_timer", "0.1-1.1") == ("rejected", "not_applicable")
    assert world.state.version == version
    assert await give(world, host, "fire_timer", "0.1-2.1") == ("applied", None)
    assert await give(world, host, "fire_timer", "0.1-1.1") == ("applied", None)
    assert world.state.outcome == "completed"


async def test_the_next_attempt_of_an_activity_is_made_sooner_or_later_but_made() -> None:
    failing.add("attempt")
    world, host = await begin(Tried(key="kay"))
    assert await give(world, host, "cancel_timer", "0.1:retry-1") == ("rejected", "not_applicable")
    assert await give(world, host, "fire_timer", "0.1:retry-1") == ("applied", None)
    assert ran == ["attempt"] * 2
    failing.clear()
    due = due_in(world, minutes=5)
    assert await give(world, host, "reschedule_timer", "0.1:retry-2", due=due) == ("applied", None)
    await world.advance(301)
    await host.detect()
    assert ran == ["attempt"] * 3
    assert world.state.result == "done"


@pytest.mark.parametrize("due", [None, "soon", "2026-02-01T12:00:00"])
async def test_what_is_no_moment_is_refused(due: str | None) -> None:
    world, host = await begin(Raced(key="kay"))
    assert await give(world, host, "reschedule_timer", "0.1/late", due=due) == ("rejected", "not_applicable")
