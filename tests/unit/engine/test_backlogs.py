"""Timers wait for the messages that were there before the host, and these count from when they arrived."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.backlogs import LONG_AGO, Backlogs
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, first_of, receive
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.simulation import Simulation
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("backlogs")
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


@app.workflow(start=Asked)
async def wait_three_days(asked: Asked) -> str:
    outcome = await first_of(answer=receive(Answered, asked.key), late=delay(timedelta(days=3)))
    return outcome.name


def deliver(host: SimulatedHost, timestamp: int | None = None) -> Delivered:
    """Deliver the answer by partition 0, as the intake does."""
    delivered = Delivered()
    now = host.runtime.now()
    host.engine.deliver(
        Arrival(
            envelope=Answered(key="k").envelope("m1"),
            received_at=host.engine.backlogs.arrival(0, timestamp, now),
            partition=0,
            from_backlog=host.engine.backlogs.is_open(0),
            settle=delivered.settle,
        )
    )
    return delivered


async def after_four_days() -> tuple[World, SimulatedHost]:
    """Return a host that begins when the instance's timer has been due for a day, with its partition just taken."""
    world = World(app, lease=3600, host_lock_renewal=1000, timer_grace=60)
    host = await world.host()
    await host.deliver(Asked(key="k"), "m0")
    await host.die()
    await world.advance(4 * 86400)
    heir = await world.host()
    heir.engine.backlogs.open(0)
    return world, heir


async def test_a_due_timer_waits_for_the_backlog() -> None:
    world, host = await after_four_days()
    await host.detect()
    assert world.state.execution_status == "idle"
    assert await host.runtime.provider.next_timer(host.runtime.host_id, host.engine.backlogs.held_back) is None
    assert deliver(host).acked is False
    await world.rest()
    assert world.state.result == "answer"


async def test_a_timer_that_an_instance_in_hand_has_found_waits_too() -> None:
    world, host = await after_four_days()
    await host.engine.wake(world.instance_id)
    await world.rest()
    assert world.instance_id in host.engine.held
    assert world.state.execution_status == "idle"
    deliver(host)
    await world.rest()
    assert world.state.result == "answer"


async def test_a_due_timer_fires_once_the_backlog_is_consumed() -> None:
    world, host = await after_four_days()
    host.engine.backlogs.close(0)
    await host.detect()
    assert world.state.result == "late"


async def test_a_due_timer_fires_when_the_grace_has_passed() -> None:
    world, host = await after_four_days()
    await world.advance(59)
    await host.detect()
    assert world.state.execution_status == "idle"
    await world.advance(1)
    await host.detect()
    assert world.state.result == "late"


@pytest.mark.parametrize(("days", "result"), [(1, "answer"), (3.5, "late")], ids=["before", "after"])
async def test_of_a_message_with_a_timestamp_and_a_timer_the_earlier_wins(days: float, result: str) -> None:
    world, host = await after_four_days()
    began = (await world.events())[0].recorded_at
    deliver(host, int((began + timedelta(days=days)).timestamp()))
    host.engine.backlogs.close(0)
    await host.engine.wake(world.instance_id)
    await world.rest()
    assert world.state.result == result


async def test_a_message_of_the_backlog_that_is_stored_first_still_counts_from_its_arrival() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Asked(key="k"), "m0")
    # The lease of the one that fell lives on, so its successor can but store the message.
    world.settings = world.settings.model_copy(update={"lease": 1e6})
    await world.advance(4 * 86400)
    holder = await world.host()
    assert await holder.engine.hold(world.instance_id) is not None
    await holder.die()
    heir = await world.host()
    heir.engine.backlogs.open(0)
    assert not deliver(heir).acked
    await world.rest()
    assert world.verdict("m1") == ("buffered", None)
    heir.engine.backlogs.close(0)
    world.store.tables.hosts[holder.runtime.host_id].expiration = world.time
    await heir.detect()
    assert world.state.result == "answer"


async def test_in_a_simulation_a_message_counts_from_when_it_was_published() -> None:
    async with Simulation(app) as world:
        await world.deliver(Asked(key="early"))
        await world.deliver(Asked(key="late"))
        await world.crash()
        await world.advance(timedelta(days=2))
        await world.deliver(Answered(key="early"))
        await world.advance(timedelta(days=2))
        await world.deliver(Answered(key="late"))
        await world.start()
        assert world.instance("early").result == "answer"
        assert world.instance("late").result == "late"


@pytest.mark.parametrize(
    ("timestamp", "arrival"),
    [
        (None, LONG_AGO),
        (0, LONG_AGO),
        (int(NOW.timestamp()) - 60, NOW - timedelta(seconds=60)),
        (int(NOW.timestamp()), NOW),
        (int(NOW.timestamp()) + 60, LONG_AGO),
        (int(NOW.timestamp()) * 1000, LONG_AGO),
    ],
    ids=["none", "zero", "past", "now", "future", "milliseconds"],
)
def test_a_timestamp_counts_only_if_it_can_be(timestamp: int | None, arrival: datetime) -> None:
    backlogs = Backlogs(World(app), grace=60)
    backlogs.open(1)
    assert backlogs.arrival(1, timestamp, NOW) == arrival
    assert backlogs.arrival(2, timestamp, NOW) == NOW
    assert backlogs.arrival(None, timestamp, NOW) == NOW
