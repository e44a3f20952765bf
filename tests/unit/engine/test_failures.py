"""What goes wrong and what becomes of it: policies, suspension, lost locks, a store that fails; rows C and D."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast.processor.engine.provider import Batch
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import checkpoint, delay, receive, send
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store.memory import MemoryUnitOfWork
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import CommitOutcomeUnknown, StorageError
from holdfast.schemas.message import Message

app = App("faults")
calls: list[str] = []
broken: set[str] = set()
gates: dict[str, asyncio.Event] = {}


class Began(Message, correlation="key"):
    key: str


class Tried(Message, correlation="key"):
    key: str


class Ticked(Message, correlation="key"):
    key: str


class Went(Message, correlation="key"):
    key: str


class Repeated(Message, correlation="key"):
    key: str


class Listed(Message, correlation="key"):
    key: str


class Item(Message, correlation="key"):
    key: str
    number: int


class Noted(Message, correlation="key"):
    key: str


class Done(Message, correlation="key"):
    key: str


class BrokenError(Exception):
    pass


@app.activity
async def first(key: str) -> str:
    calls.append(f"first {key}")
    return key


@app.activity(retry=Retry(attempts=1))
async def second(key: str) -> str:
    calls.append(f"second {key}")
    if key in gates:
        await gates[key].wait()
    if key in broken:
        raise BrokenError(key)
    return key


@app.workflow(start=Began)
async def careful(start: Began) -> str:
    await first(start.key)
    went = await receive(Went, start.key)
    await second(went.key)
    await send(Done(key=start.key))
    await first("last " + start.key)
    return went.key


@app.activity
async def note(tx: Transaction, key: str) -> None:
    await tx.execute("note %s", (key,))
    await gates[key].wait()


@app.workflow(start=Noted)
async def noting(start: Noted) -> None:
    await note(start.key)


@app.workflow(start=Tried, on_unhandled="abandon")
async def stubborn(start: Tried) -> str:
    return await second(start.key)


@app.workflow(start=Ticked, on_unhandled="abandon")
async def ticking(start: Ticked) -> str:
    await delay(timedelta(seconds=10))
    return await second(start.key)


@app.workflow(start=Repeated, on_unhandled="abandon")
async def repeating(start: Repeated) -> str:
    for _ in range(3):
        await delay(timedelta(seconds=10))
        await second(start.key)
        await checkpoint()
    return start.key


@app.workflow(start=Listed, on_unhandled="abandon")
async def listing(start: Listed) -> list[int]:
    numbers = []
    for _ in range(2):
        item = await receive(Item, start.key)
        await second(start.key)
        numbers.append(item.number)
    return numbers


@pytest.fixture(autouse=True)
def _whole() -> None:
    calls.clear()
    broken.clear()
    gates.clear()


async def test_an_unhandled_exception_suspends_at_the_last_persistence_point_and_keeps_the_message() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    broken.add("k")
    went = await host.deliver(Went(key="k"), "m1")
    assert went.acked
    assert world.verdict("m1") == ("buffered", None)
    row, state = world.row, world.state
    assert (row.is_suspended, row.suspension_reason, row.owner) == (True, "unhandled_exception", None)
    assert state.suspension_exception_name == f"{__name__}.BrokenError"
    assert list(state.bookmarks) == ["0.2"]
    assert "ActivityFailed" not in await world.types()
    assert world.published == []


async def test_resume_goes_on_from_the_last_persistence_point_with_the_message_that_was_kept() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    broken.add("k")
    await host.deliver(Went(key="k"), "m1")
    more = await host.deliver(Went(key="k"), "m2")
    assert more.acked
    assert world.verdict("m2") == ("buffered", None)
    broken.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.result == "k"
    assert world.verdict("m1") == ("applied", None)
    assert world.verdict("m2") == ("rejected", "completed")
    resumed = next(e.event for e in await world.events() if type(e.event).__name__ == "InstanceResumed")
    assert (resumed.by, resumed.why) == ("tester", "because")  # type: ignore[union-attr] # told by name


async def test_an_instance_that_was_never_persisted_is_suspended_without_an_event_and_resumes_from_the_start() -> None:
    world = World(app)
    host = await world.host()
    broken.add("k")
    app.workflows["stubborn"].__dict__["on_unhandled"] = "abandon_and_suspend"
    try:
        started = await host.deliver(Tried(key="k"), "m0")
        assert started.acked
        row = world.row
        assert (row.is_initialized, row.suspension_reason) == (False, "unhandled_exception")
        assert row.suspension_exception_name == f"{__name__}.BrokenError"
        assert world.verdict("m0") == ("buffered", None)
        assert await world.events() == []
        broken.clear()
        await host.command(world.instance_id, "resume")
        assert world.state.result == "k"
        assert world.verdict("m0") == ("applied", None)
    finally:
        app.workflows["stubborn"].__dict__["on_unhandled"] = "abandon"


async def test_abandon_tries_the_message_again_and_then_gives_it_up() -> None:
    world = World(app, max_attempts=3)
    host = await world.host()
    broken.add("k")
    started = await host.deliver(Tried(key="k"), "m0")
    assert not started.acked
    await world.advance(60)
    assert calls == ["second k"] * 3
    assert started.count == 1
    assert world.verdict("m0") == ("dead_lettered", "unhandled_exception")
    assert (world.row.is_initialized, world.row.is_suspended, world.row.owner) == (False, False, None)


async def test_a_message_that_is_abandoned_waits_though_another_of_its_key_is_on_its_way() -> None:
    world = World(app, max_attempts=3)
    host = await world.host()
    broken.add("k")
    await host.deliver(Tried(key="k"), "m0")
    host.put(Went(key="k").envelope("m1"))
    await world.rest()
    assert calls == ["second k"]
    broken.clear()
    await world.advance(0.1)
    assert calls == ["second k"] * 2
    assert world.state.outcome == "completed"


async def test_abandon_that_succeeds_at_last_leaves_no_trace_of_the_failures() -> None:
    world = World(app, max_attempts=3)
    host = await world.host()
    broken.add("k")
    started = await host.deliver(Tried(key="k"), "m0")
    broken.clear()
    await world.advance(60)
    assert started.acked
    assert world.state.outcome == "completed"
    assert len(world.store.tables.instances) == 1
    assert world.store.tables.attempts == {}


async def test_abandon_without_a_message_to_give_up_suspends_in_the_end() -> None:
    world = World(app, max_attempts=2)
    host = await world.host()
    await host.deliver(Ticked(key="k"), "m0")
    broken.add("k")
    await world.advance(10)
    await host.detect()
    await world.advance(60)
    assert calls == ["second k"] * 2
    assert (world.row.is_suspended, world.state.suspension_exception_name) == (True, f"{__name__}.BrokenError")


# Protocol: D3, I5.
async def test_failures_before_a_persistence_point_do_not_count_after_it() -> None:
    world = World(app, max_attempts=2)
    host = await world.host()
    await host.deliver(Repeated(key="k"), "m0")
    for _ in range(3):
        broken.add("k")
        await world.advance(10)
        await host.detect()
        broken.clear()
        await world.advance(1)
    assert world.state.result == "k"


async def test_an_abandoned_message_stays_before_those_that_come_while_the_lock_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Listed(key="k"), "m0")
    release, released = world.store.release, asyncio.Event()

    async def slow(host_id: UUID, instance_ids: Sequence[UUID]) -> None:
        await released.wait()
        await release(host_id, instance_ids)

    monkeypatch.setattr(world.store, "release", slow)
    broken.add("k")
    await host.deliver(Item(key="k", number=1), "m1")
    broken.clear()
    await host.deliver(Item(key="k", number=2), "m2")
    released.set()
    await world.advance(10)
    assert world.state.result == [1, 2]
    assert calls == ["second k"] * 3


async def test_a_host_that_dies_in_a_burst_is_followed_by_another_behind_the_last_persistence_point() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    gates["last k"] = asyncio.Event()
    gates["k"] = asyncio.Event()
    went = await host.deliver(Went(key="k"), "m1")
    assert not went.acked
    await host.die()
    gates.clear()
    other = await world.host()
    again = await other.deliver(Went(key="k"), "m1", redelivered=True)
    assert again.acked
    assert world.verdict("m1") == ("buffered", None)
    await world.advance(31)
    successor = await world.host()
    await successor.detect()
    assert world.state.result == "k"
    assert calls == ["first k", "second k", "second k", "first last k"]
    assert world.row.token == 2
    assert len(world.published) == 1


# Protocol: D5, D8, I7.
async def test_an_interrupted_burst_is_continued_from_its_pending_call_and_nothing_persisted_runs_again() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    real = first.function

    async def hang(key: str) -> str:
        calls.append(f"hanging {key}")
        await asyncio.get_running_loop().create_future()
        return key

    first.function = hang
    await host.deliver(Went(key="k"), "m1")
    assert calls[-1] == "hanging last k"
    assert world.row.must_go_on
    await host.die()
    first.function = real
    await world.advance(31)
    successor = await world.host()
    await successor.detect()
    assert world.state.result == "k"
    assert calls == ["first k", "second k", "hanging last k", "first last k"]
    duplicate = await successor.deliver(Went(key="k"), "m1", redelivered=True)
    assert duplicate.acked


# Protocol: C2, I2.
async def test_a_host_whose_lease_lapsed_commits_nothing_and_leaves_the_message_to_others() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    await world.advance(31)
    before = len(await world.events())
    went = await host.deliver(Went(key="k"), "m1")
    assert len(await world.events()) == before
    assert went.acked
    assert world.verdict("m1") == ("buffered", None)
    assert host.runtime.lease_in_doubt.is_set()
    assert not await host.renew()
    successor = await world.host()
    await successor.detect()
    assert world.state.result == "k"


class _Failing:
    """Makes the next commits fail before or after they are done."""

    def __init__(self, world: World, error: Exception, *, done: bool) -> None:
        self.serve = world.store.commit
        self.error = error
        self.done = done
        self.left = 1

    async def __call__(self, batches: Sequence[Batch]) -> Sequence[Any]:
        if not self.left:
            return await self.serve(batches)
        self.left -= 1
        if self.done:
            await self.serve(batches)
        raise self.error


# Protocol: C4, C5.
@pytest.mark.parametrize("done", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("error", [StorageError("gone"), CommitOutcomeUnknown("who knows")], ids=["gone", "unknown"])
async def test_a_store_that_fails_under_a_commit_costs_a_reload_and_nothing_else(
    error: Exception,
    done: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
) -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Began(key="k"), "m0")
    host.runtime.commit._serve = _Failing(world, error, done=done)
    went = await host.deliver(Went(key="k"), "m1")
    await world.advance(5)
    assert went.acked
    assert world.state.result == "k"
    assert (await world.types()).count("MessageReceived") == 1
    assert calls.count("first last k") == 1
    assert calls.count("second k") == (1 if done else 2)


async def test_a_bug_in_the_engine_is_tried_again_and_ends_as_a_dead_letter() -> None:
    world = World(app, max_attempts=2)
    host = await world.host()

    async def explode(_batches: Sequence[Batch]) -> Sequence[Any]:
        raise RuntimeError("bug")

    host.runtime.commit._serve = explode
    began = await host.deliver(Began(key="k"), "m0")
    await world.advance(30)
    assert began.acked
    assert world.verdict("m0") == ("dead_lettered", "attempts_exhausted")


async def test_a_host_that_let_go_of_everything_takes_nothing_more() -> None:
    world = World(app)
    host = await world.host()
    await host.die()
    began = await host.deliver(Began(key="k"), "m0")
    await world.advance(10)
    await host.detect()
    assert not began.acked
    assert not world.store.tables.instances


async def test_a_host_that_lets_go_of_everything_ends_the_transactions_of_its_bursts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(app)
    host = await world.host()
    begin, ended = world.store.begin, []

    @asynccontextmanager
    async def watched(host_id: UUID) -> AsyncIterator[MemoryUnitOfWork]:
        try:
            async with begin(host_id) as unit:
                yield unit
        finally:
            ended.append(host_id)

    monkeypatch.setattr(world.store, "begin", watched)
    gates["k"] = asyncio.Event()
    await host.deliver(Noted(key="k"), "m0")
    assert not ended
    await host.die()
    assert ended == [host.runtime.host_id]
