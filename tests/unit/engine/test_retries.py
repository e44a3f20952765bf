"""Long waits between attempts: the instance persists, may be unloaded, and goes on with the next attempt."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from holdfast import App, Message, Retry, Transaction, delay, gather, no_persist, receive, routine
from holdfast.processor.engine.activities import activity_context
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World

app = App("patient")
calls: list[tuple[str, int]] = []
keys: set[str] = set()
failures: dict[str, int] = {}
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    keys.clear()
    failures.clear()
    gates.clear()


class Begun(Message, correlation="key"):
    key: str


class Recorded(Begun): ...


class Paired(Begun): ...


class Beside(Begun): ...


class Broken(Begun): ...


class Outrun(Begun): ...


class Sheltered(Begun): ...


class Limited(Begun): ...


class Came(Begun): ...


def attempt(what: str) -> str:
    context = activity_context()
    calls.append((what, context.attempt))
    keys.add(context.idempotency_key)
    if failures.get(what, 0) >= context.attempt:
        raise ConnectionError(what)
    return what


PATIENT = Retry(attempts=4, delay=timedelta(minutes=1), factor=10, max_delay=timedelta(hours=1))


@app.activity(retry=PATIENT)
async def call(what: str) -> str:
    return attempt(what)


@app.activity(retry=PATIENT)
async def record(tx: Transaction, what: str) -> str:
    await tx.execute("insert", (what,))
    return attempt(what)


@app.activity
async def work(what: str) -> str:
    if what in gates:
        await gates[what].wait()
    calls.append((what, 1))
    return what


@app.activity(timeout=timedelta(minutes=5))
async def endless() -> None:
    await asyncio.get_running_loop().create_future()


@app.workflow(start=Begun)
async def begun(start: Begun) -> str:
    await work("before")
    return await call(start.key)


@app.workflow(start=Recorded, persistence="in_memory")
async def recorded(start: Recorded) -> str:
    await record("first")
    return await record(start.key)


@app.workflow(start=Paired)
async def paired(start: Paired) -> list[str]:
    left, right = await gather(call("left"), call("right"))
    return [left, right]


@app.workflow(start=Beside)
async def beside(start: Beside) -> list[Any]:
    called, worked, _ = await gather(call(start.key), work("long"), receive(Came, start.key))
    return [called, worked]


@routine
async def break_down(key: str) -> None:
    await receive(Came, key)
    raise ValueError(key)


@app.workflow(start=Broken)
async def broken(start: Broken) -> str:
    try:
        await gather(call(start.key), break_down(start.key))
    except ValueError:
        await delay(timedelta(hours=1))
    return "broken"


@routine
async def work_and_break_down(key: str) -> None:
    await work("long")
    raise ValueError(key)


@app.workflow(start=Outrun)
async def outrun(start: Outrun) -> str:
    try:
        await gather(call(start.key), work_and_break_down(start.key))
    except ValueError:
        await receive(Came, start.key)
    return "outrun"


@app.workflow(start=Sheltered)
async def sheltered(start: Sheltered) -> str:
    async with no_persist():
        return await call(start.key)


@app.workflow(start=Limited)
async def limited(start: Limited) -> str:
    try:
        await endless()
    except TimeoutError as error:
        return str(error)
    return ""


async def pass_time(world: World, host: SimulatedHost, seconds: float) -> None:
    await world.advance(seconds)
    await host.detect()


async def test_a_long_wait_persists_the_instance_and_a_timer_brings_the_next_attempt() -> None:
    failures["kay"] = 2
    world = World(app)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    assert world.state.execution_status == "idle"
    assert {name: mark.kind for name, mark in world.state.bookmarks.items()} == {"0.2:retry-1": "timer"}
    (under_way,) = world.state.calls.values()
    assert (under_way.status, under_way.attempts) == ("delayed", 1)
    await pass_time(world, host, 59)
    assert calls == [("before", 1), ("kay", 1)]
    await pass_time(world, host, 1)
    assert calls == [("before", 1), ("kay", 1), ("kay", 2)]
    await pass_time(world, host, 600)
    assert world.state.result == "kay"
    assert not world.state.calls
    assert await world.commits() == ["activity_completed", "idle", "idle", "completed"]
    completed = [e.event for e in await world.events() if type(e.event).__name__ == "ActivityCompleted"]
    assert [event.attempts for event in completed] == [1, 3]  # type: ignore[union-attr]  # Told by name.
    assert len(keys) == 1


async def test_another_host_goes_on_counting_after_one_that_fell() -> None:
    failures["kay"] = 2
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    await host.die()
    await world.advance(60)
    other = await world.host()
    await other.detect()
    assert calls[1:] == [("kay", 1), ("kay", 2)]
    await other.die()
    await world.advance(600)
    third = await world.host()
    await third.detect()
    assert calls[1:] == [("kay", 1), ("kay", 2), ("kay", 3)]
    assert world.state.result == "kay"
    assert len(keys) == 1


async def test_the_last_attempt_raises_and_counts_all() -> None:
    failures["kay"] = 4
    world = World(app)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    for _ in range(3):
        await pass_time(world, host, 3600)
    assert calls[-1] == ("kay", 4)
    assert world.state.suspension_exception_name == "ConnectionError"


async def test_a_transaction_does_not_stay_open_between_attempts_of_a_record_activity() -> None:
    failures["kay"] = 1
    world = World(app)
    host = await world.host()
    await host.deliver(Recorded(key="kay"), "m1")
    assert await world.commits() == ["idle"]
    await pass_time(world, host, 60)
    assert world.state.result == "kay"
    assert await world.commits() == ["idle", "completed"]


async def test_several_calls_of_a_gather_wait_each_for_its_own_time() -> None:
    failures.update(left=1, right=2)
    world = World(app)
    host = await world.host()
    await host.deliver(Paired(key="kay"), "m1")
    assert sorted(world.state.bookmarks) == ["0.1-1.1:retry-1", "0.1-2.1:retry-1"]
    await pass_time(world, host, 60)
    assert calls == [("left", 1), ("right", 1), ("left", 2), ("right", 2)]
    await pass_time(world, host, 600)
    assert world.state.result == ["left", "right"]


async def test_while_another_activity_runs_the_next_attempt_begins_when_it_is_due() -> None:
    failures["kay"] = 1
    gates["long"] = asyncio.Event()
    world = World(app)
    host = await world.host()
    await host.deliver(Beside(key="kay"), "m1")
    assert calls == [("kay", 1)]
    await world.advance(60)
    assert calls == [("kay", 1), ("kay", 2)]
    gates["long"].set()
    await world.rest()
    assert list(world.state.bookmarks) == ["0.1-3.1"]
    assert not world.state.calls
    await host.deliver(Came(key="kay"), "m2")
    assert world.state.outcome == "completed"


async def test_a_call_that_waits_longer_than_what_runs_beside_it_is_left_to_its_timer() -> None:
    failures["kay"] = 1
    gates["long"] = asyncio.Event()
    world = World(app)
    host = await world.host()
    await host.deliver(Beside(key="kay"), "m1")
    await world.advance(30)
    gates["long"].set()
    await world.rest()
    assert sorted(world.state.bookmarks) == ["0.1-1.1:retry-1", "0.1-3.1"]
    await pass_time(world, host, 30)
    assert calls[-1] == ("kay", 2)
    assert sorted(world.state.bookmarks) == ["0.1-3.1"]


async def test_a_call_that_is_cancelled_while_it_waits_is_tried_no_more() -> None:
    failures["kay"] = 4
    world = World(app)
    host = await world.host()
    await host.deliver(Broken(key="kay"), "m1")
    assert sorted(world.state.bookmarks) == ["0.1-1.1:retry-1", "0.1-2.1"]
    await host.deliver(Came(key="kay"), "m2")
    assert list(world.state.bookmarks) == ["0.2"]
    assert not world.state.calls
    failed = next(e.event for e in await world.events() if type(e.event).__name__ == "ActivityFailed")
    assert failed.attempts == 1  # type: ignore[union-attr]  # Told by name.
    await pass_time(world, host, 3600)
    assert world.state.result == "broken"
    assert calls == [("kay", 1)]


async def test_a_wait_that_is_over_before_it_was_persisted_leaves_no_timer() -> None:
    failures["kay"] = 4
    gates["long"] = asyncio.Event()
    world = World(app)
    host = await world.host()
    await host.deliver(Outrun(key="kay"), "m1")
    gates["long"].set()
    await world.rest()
    assert list(world.state.bookmarks) == ["0.2"]
    assert not world.state.calls
    await host.deliver(Came(key="kay"), "m2")
    assert world.state.result == "outrun"


async def test_cancel_ends_an_instance_whose_call_waits() -> None:
    failures["kay"] = 4
    world = World(app)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    await host.command(world.instance_id, "cancel")
    assert world.state.outcome == "cancelled"
    assert (dict(world.state.bookmarks), dict(world.state.calls)) == ({}, {})


async def test_a_suspended_instance_tries_nothing_until_it_is_resumed() -> None:
    failures["kay"] = 1
    world = World(app)
    host = await world.host()
    await host.deliver(Begun(key="kay"), "m1")
    await host.command(world.instance_id, "suspend")
    await pass_time(world, host, 3600)
    assert calls == [("before", 1), ("kay", 1)]
    await host.command(world.instance_id, "resume")
    assert world.state.result == "kay"


async def test_where_nothing_is_persisted_the_wait_passes_in_memory() -> None:
    failures["kay"] = 1
    world = World(app)
    host = await world.host()
    await host.deliver(Sheltered(key="kay"), "m1")
    assert world.row.state is None
    await world.advance(60)
    assert world.state.result == "kay"
    assert await world.commits() == ["completed"]


async def test_the_timeout_of_an_activity_goes_by_the_clock_of_the_host() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Limited(key="kay"), "m1")
    assert world.row.state is None
    await world.advance(300)
    assert world.state.result == "activity endless took longer than 0:05:00"
