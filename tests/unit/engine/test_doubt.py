"""Activities that must not run twice: what is durable before they run, and what becomes of them when a host falls."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import (
    ActivityInDoubt,
    App,
    Message,
    ScopeError,
    Transaction,
    TransactionConflict,
    gather,
    no_persist,
    receive,
    routine,
    send,
    suspend,
    transaction,
)
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.rows import Rows
from holdfast.processor.testing.world import World
from holdfast.schemas.control import Command
from holdfast.schemas.errors import StorageError

app = App("doubtful")
ran: list[str] = []
gates: dict[str, asyncio.Event] = {}
refusing: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    gates.clear()
    refusing.clear()


class Receipt(Message):
    number: int


class Begun(Message, correlation="key"):
    key: str


class Hurried(Begun): ...


class Paired(Begun): ...


class Guarded(Begun): ...


class Scoped(Begun): ...


class Abandoned(Begun): ...


class Paused(Begun): ...


class Booked(Begun): ...


class Went(Begun): ...


class Told(Begun): ...


@app.activity
async def note(what: str) -> str:
    ran.append(what)
    if what in refusing:
        raise ValueError(what)
    return what


@app.activity(repeatable=False)
async def charge(what: str) -> Receipt:
    """Charge a card, as long as it takes the card's bank."""
    ran.append(f"charge {what}")
    if what in gates:
        await gates[what].wait()
    if what in refusing:
        raise ConnectionError(what)
    return Receipt(number=len(what))


@app.workflow(start=Begun)
async def regular(start: Begun) -> str:
    await note("before")
    try:
        receipt = await charge(start.key)
    except ActivityInDoubt as error:
        await note("failed")
        return str(error)
    await note("after")
    return f"receipt {receipt.number}"


@app.workflow(start=Hurried, persistence="in_memory")
async def hurried(start: Hurried) -> int:
    await note("before")
    receipt = await charge(start.key)
    await note("after")
    return receipt.number


@app.workflow(start=Paired)
async def paired(start: Paired) -> Any:
    try:
        first, second, _ = await gather(charge("left"), charge("right"), note("beside"))
    except ActivityInDoubt:
        return "one of them failed"
    return [first.number, second.number]


@routine
async def charge_in_full(what: str) -> int:
    receipt = await charge(what)
    return receipt.number


@app.workflow(start=Guarded)
async def guarded(start: Guarded) -> int:
    return await charge_in_full(start.key)


@app.workflow(start=Abandoned, on_unhandled="abandon", persistence="in_memory")
async def abandoned(start: Abandoned) -> int:
    await receive(Went, start.key)
    number = await charge_in_full(start.key)
    await note("after")
    return number


@app.activity
async def book(tx: Transaction, what: str) -> None:
    await tx.execute("book", (what,))


@app.workflow(start=Booked, persistence="in_memory")
async def booked(start: Booked) -> int:
    number = await charge_in_full(start.key)
    await book(start.key)
    return number


@app.workflow(start=Scoped)
async def scoped(start: Scoped) -> list[str]:
    said = []
    try:
        async with transaction():
            await charge_in_full(start.key)
    except ScopeError as error:
        said.append(error.what)
    try:
        async with no_persist():
            await charge_in_full(start.key)
    except ScopeError as error:
        said.append(error.what)
    return said


@routine
async def pause() -> None:
    await note("pausing")
    await suspend("a break")


@app.workflow(start=Paused)
async def paused(start: Paused) -> int:
    receipt, _ = await gather(charge(start.key), pause())
    await send(Told(key=start.key))
    return receipt.number


async def fallen(message: Message, *charged: str) -> tuple[World, SimulatedHost]:
    """Return a world in which a host fell while it charged, and another one that has taken over."""
    world = World(app, lease=30, host_lock_renewal=10)
    first = await world.host()
    for what in charged:
        gates[what] = asyncio.Event()
    await first.deliver(message, "m1")
    assert [f"charge {what}" for what in charged] == [what for what in ran if what.startswith("charge")]
    await first.die()
    gates.clear()
    await world.advance(31)
    other = await world.host()
    await other.detect()
    return world, other


def resolve(decision: Any, result: Any = None, call: str | None = None) -> Command:
    return Command(command="resolve", by="ann", why="the bank said so", decision=decision, result=result, call=call)


# Protocol: I15.
async def test_the_intent_commits_before_it_runs_and_what_came_of_it_before_the_next_activity() -> None:
    world = World(app)
    await (await world.host()).deliver(Begun(key="kay"), "m1")
    assert world.state.result == "receipt 3"
    assert await world.commits() == ["activity_completed", "activity_intent", "activity_completed", "completed"]


async def test_in_memory_mode_the_intent_is_the_one_further_transaction() -> None:
    world = World(app)
    await (await world.host()).deliver(Hurried(key="kay"), "m1")
    assert world.state.result == 3
    assert await world.commits() == ["activity_intent", "completed"]
    assert (await world.types())[:4] == ["InstanceStarted", "ActivityCompleted", "ActivityIntended", "Persisted"]


# Protocol: D16.
@pytest.mark.parametrize("message", [Begun(key="kay"), Hurried(key="kay")])
async def test_who_takes_over_from_a_host_that_fell_meanwhile_suspends_the_instance(message: Message) -> None:
    world, _ = await fallen(message, "kay")
    state = world.state
    assert ran.count("charge kay") == 1
    assert (state.is_suspended, state.suspension_reason) == (True, "in_doubt")
    (key,) = state.calls
    assert f"activity charge at line {state.calls[key].line} (call {key})" in (state.suspension_detail or "")
    assert f"holdfast resolve {world.instance_id} with --done RESULT, --retry or --fail" in (
        state.suspension_detail or ""
    )


async def test_a_call_that_was_done_gives_what_somebody_says_it_returned() -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    await host.command(world.instance_id, resolve("done", {"number": 12}))
    assert world.state.result == "receipt 12"
    assert ran == ["before", "charge kay", "after"]
    types = await world.types()
    assert types[types.index("ActivityResolved") :][:2] == ["ActivityResolved", "InstanceResumed"]
    resolved = next(e.event for e in await world.events() if type(e.event).__name__ == "ActivityResolved")
    assert (resolved.by, resolved.why, resolved.decision) == ("ann", "the bank said so", "done")  # type: ignore[union-attr]


async def test_a_call_that_was_not_done_runs_again_under_the_same_key_with_an_intent_of_its_own() -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    (key,) = world.state.calls
    await host.command(world.instance_id, resolve("retry"))
    assert world.state.result == "receipt 3"
    assert ran.count("charge kay") == 2
    intents = [e.event for e in await world.events() if type(e.event).__name__ == "ActivityIntended"]
    assert [intent.idempotency_key for intent in intents] == [key, key]  # type: ignore[union-attr]


async def test_a_call_that_is_given_up_raises_where_it_is_awaited() -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    await host.command(world.instance_id, resolve("fail"))
    assert world.state.result == "activity charge was given up as failed by ann: the bank said so"
    assert ran == ["before", "charge kay", "failed"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("resume", "an activity is in doubt: resolve says what became of it"),
        (resolve("done", {"numbers": []}), "the result is not what activity charge returns"),
        (resolve("done", call="another"), "call another is not in doubt"),
        (resolve("perhaps"), "'perhaps' is no decision"),
    ],
)
async def test_what_does_not_help_is_refused_and_says_why(command: str | Command, says: str) -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    row = world.store.tables.inbox[await host.command(world.instance_id, command)]
    assert (row.verdict, row.reason) == ("rejected", "not_applicable")
    assert says in (row.detail or "")
    assert world.state.suspension_reason == "in_doubt"
    assert ran.count("charge kay") == 1


@pytest.mark.parametrize(("command", "outcome"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_an_instance_in_doubt_can_be_ended(command: str, outcome: str) -> None:
    world, host = await fallen(Begun(key="kay"), "kay")
    await host.command(world.instance_id, command)
    assert world.state.outcome == outcome
    assert ran.count("charge kay") == 1


async def test_side_by_side_they_are_intended_in_one_commit_and_resolved_one_by_one() -> None:
    world, host = await fallen(Paired(key="kay"), "left", "right")
    assert (await world.commits()).count("activity_intent") == 1
    left, right = world.state.calls
    refused = world.store.tables.inbox[await host.command(world.instance_id, resolve("retry"))]
    assert refused.detail == f"several calls are in doubt, name one: {left}, {right}"
    await host.command(world.instance_id, resolve("done", {"number": 1}, call=left))
    assert (world.state.is_suspended, list(world.state.calls)) == (True, [right])
    await host.command(world.instance_id, resolve("retry"))
    assert world.state.result == [1, 5]
    assert (ran.count("charge left"), ran.count("charge right")) == (1, 2)


async def test_when_one_failed_nobody_needs_to_know_of_those_that_it_cancels() -> None:
    world, host = await fallen(Paired(key="kay"), "left", "right")
    left, _ = world.state.calls
    await host.command(world.instance_id, resolve("fail", call=left))
    assert world.state.result == "one of them failed"


async def test_a_host_that_loses_its_copy_meanwhile_does_not_run_it_again() -> None:
    world = World(app)
    commit, commits = world.store.commit, 0

    async def shaken(batches: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == 3:
            raise StorageError("shaken")
        return await commit(batches)

    world.store.commit = shaken  # type: ignore[method-assign]  # It stands in for it.
    await (await world.host()).deliver(Begun(key="kay"), "m1")
    await world.advance(1)
    assert world.state.suspension_reason == "in_doubt"
    assert ran.count("charge kay") == 1


@pytest.mark.parametrize("message", [Begun(key="kay"), Hurried(key="kay")])
async def test_what_is_known_to_be_done_is_kept_when_the_burst_goes_back(message: Message) -> None:
    world = World(app)
    host = await world.host()
    refusing.add("after")
    await host.deliver(message, "m1")
    assert world.state.suspension_reason == "unhandled_exception"
    assert not world.state.calls
    refusing.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.execution_status == "closed"
    assert ran == ["before", "charge kay", "after", "after"]


async def test_what_is_known_to_be_done_is_kept_when_a_message_is_tried_again() -> None:
    world = World(app)
    host = await world.host()
    refusing.add("after")
    await host.deliver(Abandoned(key="kay"), "m1")
    await host.deliver(Went(key="kay"), "m2")
    refusing.clear()
    await world.advance(10)
    assert world.state.result == 3
    assert ran.count("charge kay") == 1


async def test_what_is_known_to_be_done_is_kept_when_the_transaction_gives_way_to_another() -> None:
    world = World(app)
    answers = iter([TransactionConflict("a deadlock")])

    def answer(_query: Any, _params: Any) -> Rows:
        for error in answers:
            raise error
        return Rows()

    world.answer = answer
    host = await world.host()
    await host.deliver(Booked(key="kay"), "m1")
    await world.advance(1)
    assert world.state.result == 3
    assert ran == ["charge kay"]


async def test_an_exception_of_its_own_that_nobody_handles_leaves_it_in_doubt() -> None:
    world = World(app)
    host = await world.host()
    refusing.add("kay")
    await host.deliver(Guarded(key="kay"), "m1")
    assert world.state.suspension_exception_name == "ConnectionError"
    refusing.clear()
    await host.command(world.instance_id, "resume")
    assert world.state.suspension_reason == "in_doubt"
    await host.command(world.instance_id, resolve("retry"))
    assert (world.state.result, ran.count("charge kay")) == (3, 2)


async def test_nothing_is_intended_where_nothing_is_persisted() -> None:
    world = World(app)
    await (await world.host()).deliver(Scoped(key="kay"), "m1")
    assert world.state.result == [
        "charge(), which is not repeatable, inside a transaction",
        "charge(), which is not repeatable, inside no_persist()",
    ]
    assert ran == []


async def test_a_suspension_waits_for_what_must_not_run_twice() -> None:
    world = World(app)
    host = await world.host()
    gates["kay"] = asyncio.Event()
    await host.deliver(Paused(key="kay"), "m1")
    assert ran == ["charge kay", "pausing"]
    assert not world.state.is_suspended
    gates["kay"].set()
    await world.rest()
    assert world.state.suspension_reason == "requested"
    await host.command(world.instance_id, "resume")
    assert world.state.result == 3
    assert ran.count("charge kay") == 1


CALLS = frozenset({"register", "load", "release", "commit", "take_in", "attempt", "wakeups"})


class Mortal:
    """The store as one host sees it that dies at the call of that number."""

    def __init__(self, store: Any, number: int, *, after: bool) -> None:
        self._store = store
        self._number = number
        self._after = after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._mortal(found) if name in CALLS else found

    def _mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def mortal(*args: Any) -> Any:
            self.calls += 1
            if self.calls < self._number:
                return await call(*args)
            if self._after and self.calls == self._number:
                await call(*args)
            raise asyncio.CancelledError

        return mortal


# Protocol: D16, I15.
@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("message", [Begun(key="kay"), Hurried(key="kay"), Paired(key="kay")])
async def test_wherever_a_host_dies_it_runs_once_for_each_time_that_somebody_wants_it_to(
    message: Message,
    after: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
) -> None:
    number, has_died, in_doubt = 0, True, 0
    while has_died:
        ran.clear()
        number += 1
        world = World(app, lease=30, host_lock_renewal=10)
        mortal = Mortal(world.store, number, after=after)
        first = await world.host(mortal)  # type: ignore[arg-type]  # It stands in for it.
        delivered = await first.deliver(message, "m1")
        has_died = mortal.calls >= number
        await first.die()
        await world.advance(31)
        other = await world.host()
        if not delivered.acked:
            await other.deliver(message, "m1", redelivered=True)
        await other.detect()
        while world.state.is_suspended:
            assert world.state.suspension_reason == "in_doubt"
            in_doubt += 1
            (key, *_) = world.state.calls
            await other.command(world.instance_id, resolve("done", {"number": 3}, call=key))
        assert world.state.outcome == "completed"
        charges = [what for what in ran if what.startswith("charge")]
        assert len(charges) == len(set(charges))
    assert number > 3
    assert in_doubt > 0
