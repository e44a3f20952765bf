"""A partition is given up: bursts end, locks go back, and what was not acked is left to the broker."""

import asyncio

import pytest

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.hand_over import hand_over
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("hand-over")
gates: list[asyncio.Event] = []


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


@app.activity
async def pass_gate(key: str) -> str:
    await gates[-1].wait()
    return key


@app.workflow(start=Asked)
async def ask(asked: Asked) -> str:
    await receive(Answered, asked.key)
    await pass_gate(asked.key)
    await receive(Answered, asked.key)
    return asked.key


@pytest.fixture
def gate() -> asyncio.Event:
    """What the activity waits for."""
    gates.append(asyncio.Event())
    return gates[-1]


def put(
    host: SimulatedHost, message: Message, message_id: str, partition: int, *, redelivered: bool = False
) -> Delivered:
    """Hand a message of a partition over as the broker would."""
    delivered = Delivered()
    host.engine.deliver(
        Arrival(
            envelope=message.envelope(message_id),
            received_at=host.runtime.now(),
            partition=partition,
            redelivered=redelivered,
            settle=delivered.settle,
        )
    )
    return delivered


async def begun(world: World, host: SimulatedHost, key: str, partition: int) -> None:
    """Have an instance of a partition idle in a host's hands."""
    put(host, Asked(key=key), f"start-{key}", partition)
    await world.rest()


def owners(world: World) -> dict[str, bool]:
    """Return whether the instance of each key is locked."""
    return {r.registration.correlation_key: r.owner is not None for r in world.store.tables.instances.values()}


async def test_idle_instances_of_the_partition_are_let_go_and_others_are_not() -> None:
    world = World(app)
    host = await world.host()
    await begun(world, host, "here", 1)
    await begun(world, host, "there", 2)
    assert await hand_over(host.engine, 1, 20)
    assert owners(world) == {"here": False, "there": True}
    assert [h.instance.loaded.correlation_key for h in host.engine.held.values()] == ["there"]


async def test_a_burst_comes_to_its_end_before_the_partition_is_given_up(gate: asyncio.Event) -> None:
    world = World(app)
    host = await world.host()
    await begun(world, host, "k", 1)
    answered = put(host, Answered(key="k"), "m1", 1)
    await world.rest()
    leaving = asyncio.create_task(hand_over(host.engine, 1, 20))
    await world.advance(1)
    assert not leaving.done()
    assert owners(world) == {"k": True}
    gate.set()
    await world.advance(1)
    assert await leaving
    assert answered.acked
    assert owners(world) == {"k": False}
    assert await world.commits() == ["idle", "idle"]


async def test_messages_that_no_burst_took_are_left_to_the_next_consumer(gate: asyncio.Event) -> None:
    world = World(app)
    host, heir = await world.host(), await world.host()
    await begun(world, host, "k", 1)
    first = put(host, Answered(key="k"), "m1", 1)
    await world.rest()
    second = put(host, Answered(key="k"), "m2", 1)
    await world.rest()
    leaving = asyncio.create_task(hand_over(host.engine, 1, 20))
    await world.rest()
    gate.set()
    await world.advance(1)
    assert await leaving
    assert (first.acked, second.count) == (True, 0)
    assert world.verdict("m2") is None
    again = put(heir, Answered(key="k"), "m2", 1, redelivered=True)
    await world.rest()
    assert again.acked
    assert world.state.result == "k"


async def test_a_burst_that_takes_too_long_is_not_cut_and_its_instance_goes_afterwards(gate: asyncio.Event) -> None:
    world = World(app)
    host, heir = await world.host(), await world.host()
    await begun(world, host, "k", 1)
    put(host, Answered(key="k"), "m1", 1)
    await world.rest()
    leaving = asyncio.create_task(hand_over(host.engine, 1, 20))
    await world.advance(21)
    assert leaving.done()
    assert not await leaving
    # Its channel is closed, so the message comes to the heir as well, which stores it for whoever has the instance.
    again = put(heir, Answered(key="k"), "m1", 1, redelivered=True)
    later = put(heir, Answered(key="k"), "m2", 1)
    await world.rest()
    assert (again.acked, later.acked) == (True, True)
    assert owners(world) == {"k": True}
    gate.set()
    await world.rest()
    assert owners(world) == {"k": False}
    await heir.detect()
    assert world.state.result == "k"
    assert (world.verdict("m1"), world.verdict("m2")) == (("applied", None), ("applied", None))


# Protocol: D19.
async def test_a_host_that_dies_in_the_middle_of_a_hand_over_leaves_its_burst_to_the_new_owner(
    gate: asyncio.Event,
) -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host, heir = await world.host(), await world.host()
    await begun(world, host, "k", 1)
    put(host, Answered(key="k"), "m1", 1)
    await world.rest()
    leaving = asyncio.create_task(hand_over(host.engine, 1, 20))
    await world.rest()
    leaving.cancel()
    await host.die()
    assert await heir.renew()
    again = put(heir, Answered(key="k"), "m1", 1, redelivered=True)
    await world.rest()
    assert (again.acked, world.verdict("m1")) == (True, ("buffered", None))
    gate.set()
    await world.advance(20)
    assert await heir.renew()
    await world.advance(11)
    await heir.detect()
    assert world.verdict("m1") == ("applied", None)
    assert await world.commits() == ["idle", "idle"]


async def test_a_partition_that_was_given_up_can_be_taken_again(gate: asyncio.Event) -> None:
    gate.set()
    world = World(app)
    host = await world.host()
    await begun(world, host, "k", 1)
    await hand_over(host.engine, 1, 20)
    for number in (1, 2):
        put(host, Answered(key="k"), f"m{number}", 1)
        await world.rest()
    assert world.state.result == "k"


async def test_what_waits_to_be_run_alone_is_given_back_without_being_tried() -> None:
    world = World(app)
    host = await world.host()
    async with host.engine.alone:
        waiting = put(host, Asked(key="k"), "m1", 1, redelivered=True)
        await world.rest()
        assert await hand_over(host.engine, 1, 20)
    await world.rest()
    assert waiting.count == 0
    assert world.store.tables.instances == {}
    assert world.store.tables.attempts == {}
