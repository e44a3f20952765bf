"""The crash prover finds stores and engines that are broken, and scenarios that it cannot compare."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from holdfast import App, Message, NotDeterministic, Transaction, checkpoint, delay, receive, send
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.provider import Batch, Committed, Outgoing, Route, RouteKind
from holdfast.processor.store.memory import MemoryProvider
from holdfast.schemas.errors import AppError, HoldfastError
from holdfast.schemas.message import Envelope
from holdfast.testing import CrashReport, Simulation, crash_prover

app = App("proved")
numbers: Iterator[int] = count()
charged: list[str] = []


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


class Done(Message, correlation="key"):
    key: str


class Diced(Message, correlation="key"):
    key: str


class Charged(Message, correlation="key"):
    key: str


@dataclass
class Charge:
    amount: Decimal


@app.activity
async def look(key: str) -> str:
    return key.upper()


@app.activity
async def write(tx: Transaction, key: str) -> None:
    await tx.execute("insert into answers values (%s)", (key,))


@app.activity
async def dice() -> int:
    return next(numbers)


@app.workflow(start=Asked)
async def ask(asked: Asked) -> str:
    found = await look(asked.key)
    await write(found)
    await receive(Answered, asked.key)
    await write(asked.key)
    await send(Done(key=asked.key))
    await checkpoint()
    await delay(timedelta(hours=1))
    await send(Done(key=found))
    return found


@app.activity(repeatable=False)
async def charge(key: str) -> Charge:
    charged.append(key)
    return Charge(amount=Decimal("1.50"))


@app.workflow(start=Charged)
async def pay(start: Charged) -> Charge:
    found = await charge(start.key)
    await send(Done(key=start.key))
    return found


@app.workflow(start=Diced)
async def roll(diced: Diced) -> int:
    return await dice()


async def one_answer(world: Simulation) -> None:
    await world.deliver(Asked(key="a"))
    await world.deliver(Answered(key="a"))
    await world.advance(timedelta(hours=1))


class Broken:
    """A store that does not keep the laws of the port in one point."""

    def __init__(self, store: MemoryProvider) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Lagging(Broken):
    """Answers that a group is committed, and commits it with the host's next call."""

    def __init__(self, store: MemoryProvider) -> None:
        super().__init__(store)
        self._late: list[Batch] = []

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        await self._catch_up()
        self._late = list(batches)
        return [Committed("later") for _ in batches]

    async def wakeups(self, *args: Any) -> Any:
        await self._catch_up()
        return await self.store.wakeups(*args)

    async def runnable(self, *args: Any) -> Any:
        await self._catch_up()
        return await self.store.runnable(*args)

    async def _catch_up(self) -> None:
        late, self._late = self._late, []
        await self.store.commit(late)


class Doubling(Broken):
    """Gives a message another id each time that it is to be published."""

    async def outbox(self, *args: Any) -> Sequence[Outgoing]:
        rows = self.store.tables.outbox
        for message in await self.store.outbox(*args):
            row = rows.pop(message.message_id)
            row.message = replace(message, message_id=f"{message.message_id}+")
            rows[row.message.message_id] = row
        return await self.store.outbox(*args)


class Losing(Broken):
    """Leaves to each host what it has to publish, also to dead ones."""

    async def outbox(self, host_id: UUID, limit: int) -> Sequence[Outgoing]:
        rows = self.store.tables.outbox.values()
        return [row.message for row in rows if row.host_id == host_id][:limit]


class Forgetful(Broken):
    """Does not know a message again."""

    async def route(self, envelopes: Sequence[Envelope]) -> Sequence[Route]:
        routes = await self.store.route(envelopes)
        return [Route(RouteKind.NONE) if route.kind is RouteKind.DUPLICATE else route for route in routes]

    async def register(self, *args: Any) -> Any:
        self.store.tables.inbox.clear()
        return await self.store.register(*args)


async def test_a_scenario_that_survives_is_accounted_for_run_by_run() -> None:
    report = await crash_prover(app, one_answer)
    assert isinstance(report, CrashReport)
    assert report.failed == []
    assert [call for call in report.calls if call.startswith("commit")] == [
        "commit of ask/a (activity_completed)",
        "commit of ask/a (idle)",
        "commit of ask/a (checkpoint)",
        "commit of ask/a (idle)",
        "commit of ask/a (completed)",
    ]
    assert len(report.runs) == 4 * len(report.calls)
    first = next(run for run in report.runs if "checkpoint" in run.call and not run.after and run.late)
    assert first.survived == ["ask/a at version 6 (idle)"]
    assert first.redelivered == ["message-2"]
    assert first.repeated == ["ask/a/0/7/4/write"]
    assert "died before the commit of ask/a (checkpoint)\n" in str(report)
    assert "   delivered again: message-2\n   run again: ask/a/0/7/4/write" in str(first)


async def test_a_store_that_answers_before_it_has_committed_is_found() -> None:
    with pytest.raises(AssertionError, match="DIFFERS"):
        await crash_prover(app, one_answer, store=Lagging)


async def test_a_message_that_goes_out_under_two_ids_is_found() -> None:
    with pytest.raises(AssertionError, match=r"DIFFERS: message ask/a:\S+ is Done"):
        await crash_prover(app, one_answer, store=Doubling)


async def test_a_message_that_is_left_in_a_dead_hosts_outbox_is_found() -> None:
    with pytest.raises(AssertionError, match=r"DIFFERS: message ask/a:\S+ is missing, not Done"):
        await crash_prover(app, one_answer, store=Losing)


async def test_a_store_that_does_not_know_a_message_again_is_found() -> None:
    with pytest.raises(AssertionError, match="DIFFERS: verdict of message-1 is rejected"):
        await crash_prover(app, one_answer, store=Forgetful)


async def test_an_engine_that_acks_before_it_commits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Engine.deliver

    def ack_at_once(self: Engine, arrival: Arrival) -> None:
        arrival.settle()
        arrival.settle = lambda: None
        deliver(self, arrival)

    monkeypatch.setattr(Engine, "deliver", ack_at_once)
    with pytest.raises(AssertionError, match="DIFFERS: execution_status of ask/a is") as failure:
        await crash_prover(app, one_answer)
    assert "died before the registration of ask/a" in str(failure.value)
    assert "died after the commit of ask/a (completed)" not in str(failure.value)


async def test_what_is_in_doubt_is_resolved_by_what_became_of_it() -> None:
    async def scenario(world: Simulation) -> None:
        charged.clear()
        await world.deliver(Charged(key="a"))
        assert charged == ["a"]

    report = await crash_prover(app, scenario)
    resolved = {(run.call, run.after): run.resolved for run in report.runs if run.resolved}
    assert resolved == {
        ("commit of pay/a (activity_intent)", True): ["pay/a/0/1/1/charge (retry)"],
        ("commit of pay/a (completed)", False): ["pay/a/0/1/1/charge (done)"],
    }


async def test_a_scenario_whose_values_change_is_refused() -> None:
    async def scenario(world: Simulation) -> None:
        await world.deliver(Diced(key="a"))

    with pytest.raises(NotDeterministic, match="two runs without a crash differ: result of roll/a is 1, not 0"):
        await crash_prover(app, scenario)
    await crash_prover(app, scenario, stand_ins={dice: lambda: 6})


async def test_a_scenario_that_goes_another_way_is_refused() -> None:
    times = count()

    async def scenario(world: Simulation) -> None:
        await world.deliver(Asked(key=str(next(times))))

    with pytest.raises(NotDeterministic, match="call 1 that commits was, without a crash, once the registration of"):
        await crash_prover(app, scenario)


async def test_a_scenario_that_commits_nothing_is_refused() -> None:
    async def scenario(world: Simulation) -> None:
        await world.advance(5)

    with pytest.raises(AppError, match="commits nothing"):
        await crash_prover(app, scenario)


async def test_what_the_scenario_finds_wrong_after_a_crash_is_a_difference() -> None:
    async def scenario(world: Simulation) -> None:
        delivery = await world.deliver(Asked(key="a"))
        assert delivery.times == 1, "delivered again"

    with pytest.raises(AssertionError, match="DIFFERS: the scenario raised AssertionError: delivered again"):
        await crash_prover(app, scenario)


async def test_what_the_scenario_raises_without_a_crash_is_raised() -> None:
    async def scenario(world: Simulation) -> None:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        await crash_prover(app, scenario)
