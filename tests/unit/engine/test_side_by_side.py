"""Routines and ``gather`` in the engine: what runs at the same time, what is durable when, and what is cancelled."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.engine.activities import activity_context
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import checkpoint, delay, first_of, receive, send
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import Cancelled
from holdfast.schemas.message import Message

app = App("beside")
calls: list[Any] = []
gates: dict[str, asyncio.Event] = {}
thread_gate = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    thread_gate.clear()
    for name in ("a", "b", "c"):
        gates[name] = asyncio.Event()


class Called(Message, correlation="key"):
    key: str


class Gathered(Message, correlation="key"):
    key: str
    persistence: str = "regular"


class Hurried(Message, correlation="key"):
    key: str


class Waited(Message, correlation="key"):
    key: str


class Recorded(Message, correlation="key"):
    key: str


class Failed(Message, correlation="key"):
    key: str


class Threaded(Message, correlation="key"):
    key: str


class Answer(Message, correlation="key"):
    key: str
    value: int = 0


class Report(Message, correlation="key"):
    key: str


@app.activity
async def note(value: Any) -> Any:
    calls.append((value, activity_context().idempotency_key.split("/", 1)[1]))
    return value


@app.activity
async def gated(name: str) -> str:
    calls.append(f"begins {name}")
    try:
        await gates[name].wait()
    except asyncio.CancelledError:
        calls.append(f"cancelled {name}")
        raise
    calls.append(f"ends {name}")
    return name


@app.activity
async def refuse(name: str) -> None:
    raise ValueError(name)


@app.activity
def threaded() -> str:
    thread_gate.wait()
    calls.append("thread ends")
    return "thread"


@app.activity
async def record(tx: Transaction, name: str) -> str:
    calls.append(f"begins {name}")
    await tx.execute("insert", (name,))
    await asyncio.sleep(0)
    calls.append(f"ends {name}")
    return name


@routine
async def ask(key: str, *, times: int) -> int:
    total = 0
    for _ in range(times):
        answer = await receive(Answer, key)
        total += answer.value
        await note(total)
    return total


@routine
async def then(name: str, value: Any) -> Any:
    first = await gated(name)
    return [first, await note(value)]


@app.workflow(start=Called)
async def call(start: Called) -> int:
    return await ask(start.key, times=2) + 100


@app.workflow(start=Gathered)
async def gathered(start: Gathered) -> Any:
    return await gather(gated("a"), then("b", "after b"), note("c"))


@app.workflow(start=Hurried, persistence="in_memory")
async def hurried(start: Hurried) -> Any:
    return await gather(gated("a"), then("b", "after b"))


@app.workflow(start=Waited)
async def waited(start: Waited) -> Any:
    answer, _, outcome, total = await gather(
        receive(Answer, start.key),
        delay(timedelta(minutes=1)),
        first_of(late=delay(timedelta(minutes=2)), never=delay(timedelta(days=1))),
        ask(start.key + "!", times=1),
    )
    return [answer.value, outcome.name, total]


@app.workflow(start=Recorded)
async def recorded(start: Recorded) -> Any:
    return await gather(record("x"), gated("a"), record("y"))


@routine
async def cleaning(key: str) -> None:
    try:
        await receive(Answer, key)
    except Cancelled:
        await checkpoint()
        await send(Report(key=key))
        raise


@app.workflow(start=Failed)
async def failed(start: Failed) -> str:
    try:
        await gather(receive(Answer, start.key), cleaning(start.key + "!"), breaking(start.key))
    except ValueError as error:
        answer = await receive(Answer, start.key)
        return f"{error} {answer.value}"
    return "nothing"


@routine
async def breaking(key: str) -> None:
    await receive(Report, key)
    await gather(gated("a"), refuse("broken"))


@app.workflow(start=Threaded)
async def beside_a_thread(start: Threaded) -> str:
    try:
        await gather(threaded(), refuse("thread"))
    except ValueError as error:
        return str(error)
    return "nothing"


async def begun(message: Message) -> tuple[World, SimulatedHost]:
    world = World(app)
    host = await world.host()
    await host.deliver(message, "m0")
    return world, host


async def test_a_routine_is_a_frame_that_is_stored_and_loaded_with_its_own_program() -> None:
    world, host = await begun(Called(key="k"))
    assert set(world.state.frames) == {"0", "0.1"}
    assert world.state.frames["0.1"].program == ask.program.hash
    assert world.store.tables.programs[ask.program.hash].workflow == "ask"
    assert list(world.state.bookmarks) == ["0.1.1"]
    for number, value in enumerate((3, 4), 1):
        await host.engine.unload_idle(0)
        await host.deliver(Answer(key="k", value=value), f"m{number}")
    assert world.state.result == 107
    assert world.state.frames == {}
    (step,) = {key.split("/")[1] for _, key in calls}
    assert [key for _, key in calls] == [f"0.1/{step}/{visit}/note" for visit in (2, 4)]
    assert await world.commits() == ["idle", "idle", "completed"]


async def test_activities_run_at_the_same_time_and_each_result_is_durable_before_more_begin() -> None:
    world, _host = await begun(Gathered(key="k"))
    assert calls[:2] == ["begins a", "begins b"]
    assert calls[2][0] == "c"
    gates["b"].set()
    await world.rest()
    # What followed in the branch of b began while a was running, and only when the other results were durable.
    assert calls[3] == "ends b"
    assert calls[4][0] == "after b"
    assert calls[4][1].startswith("0.1-2/")
    assert await world.commits() == ["activity_completed"]
    assert (await world.types()).count("ActivityCompleted") == 2
    gates["a"].set()
    await world.rest()
    assert world.state.result == ["a", ["b", "after b"], "c"]
    assert await world.commits() == ["activity_completed", "completed"]


async def test_in_memory_a_gather_is_part_of_one_commit() -> None:
    world, _host = await begun(Hurried(key="k"))
    gates["a"].set()
    await world.rest()
    gates["b"].set()
    await world.rest()
    assert world.state.result == ["a", ["b", "after b"]]
    assert await world.commits() == ["completed"]


async def test_after_a_crash_only_what_was_not_persisted_runs_again() -> None:
    world, host = await begun(Gathered(key="k"))
    gates["b"].set()
    await world.rest()
    assert await world.commits() == ["activity_completed"]
    keys = [call[1] for call in calls if isinstance(call, tuple)]
    await host.die()
    assert calls[-1] == "cancelled a"
    calls.clear()
    await world.store.close_host(host.runtime.host_id)
    other = await world.host()
    await other.detect()
    # Neither b nor c: they were persisted. The activity after b had not been.
    assert calls[0] == "begins a"
    assert calls[1] == ("after b", keys[-1])
    gates["a"].set()
    await world.rest()
    assert world.state.result == ["a", ["b", "after b"], "c"]


async def test_waits_of_a_gather_are_open_together_and_end_one_by_one() -> None:
    world, host = await begun(Waited(key="k"))
    assert set(world.state.bookmarks) == {"0.1-1.1", "0.1-2.1", "0.1-3.1/late", "0.1-3.1/never", "0.1-4.1"}
    await host.deliver(Answer(key="k!", value=5), "m1")
    assert set(world.state.bookmarks) == {"0.1-1.1", "0.1-2.1", "0.1-3.1/late", "0.1-3.1/never"}
    await host.engine.unload_idle(0)
    await world.advance(60)
    await host.detect()
    await host.deliver(Answer(key="k", value=7), "m2")
    assert set(world.state.bookmarks) == {"0.1-3.1/late", "0.1-3.1/never"}
    await world.advance(60)
    await host.detect()
    assert world.state.result == [7, "late", 5]


async def test_record_activities_of_a_gather_run_one_at_a_time() -> None:
    world, _host = await begun(Recorded(key="k"))
    gates["a"].set()
    await world.rest()
    records = [call for call in calls if call[-1] in "xy"]
    assert records == ["begins x", "ends x", "begins y", "ends y"]
    assert world.state.result == ["x", "a", "y"]
    assert [parameters for _, parameters in world.sql] == [("x",), ("y",)]


async def test_the_first_exception_cancels_the_others_and_closes_their_bookmarks() -> None:
    world, host = await begun(Failed(key="k"))
    assert set(world.state.bookmarks) == {"0.1-1.1", "0.1-2.1", "0.1-3.1"}
    await host.deliver(Report(key="k"), "m1")
    assert calls == ["begins a", "cancelled a"]
    assert [message.key for message in world.published] == ["k!"]
    # The workflow waits for the same message again, at a bookmark of its own.
    assert set(world.state.bookmarks) == {"0.2"}
    assert set(world.state.frames) == {"0"}
    closed = [e.event for e in await world.events() if type(e.event).__name__ == "BookmarkClosed"]
    assert sorted(event.bookmark for event in closed) == ["0.1-1.1", "0.1-2.1"]  # type: ignore[union-attr] # told by name
    failures = [e.event for e in await world.events() if type(e.event).__name__ == "ActivityFailed"]
    assert [event.activity for event in failures] == ["refuse", "gated"]  # type: ignore[union-attr] # told by name
    await host.engine.unload_idle(0)
    await host.deliver(Answer(key="k", value=1), "m2")
    assert world.state.result == "broken 1"
    assert "checkpoint" in await world.commits()


async def test_a_thread_is_waited_for() -> None:
    world, host = await begun(Threaded(key="k"))
    assert calls == []
    (holding,) = host.engine.held.values()
    assert holding.task is not None
    thread_gate.set()
    await holding.task
    assert calls == ["thread ends"]
    assert world.state.result == "thread"
    types = await world.types()
    assert (types.count("ActivityCompleted"), types.count("ActivityFailed")) == (1, 1)
