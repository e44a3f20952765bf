"""Where a message goes: to a burst, into the inbox, or to the dead letters; rows M1 to M9 of the protocol."""

import asyncio
from dataclasses import replace

import pytest
from pydantic import field_validator

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.message import Envelope, Message

app = App("lines")
gates: dict[str, asyncio.Event] = {}


class Opened(Message, correlation="key"):
    key: str


class Item(Message, correlation="key"):
    key: str
    number: int = 0


class Note(Message, correlation="key"):
    key: str


class Picky(Message, correlation="key"):
    key: str

    @field_validator("key")
    @classmethod
    def check(cls, key: str) -> str:
        raise LookupError(key)


class Closed(Message, correlation="key"):
    key: str


@app.activity
async def work(key: str) -> None:
    gate = gates.get(key)
    if gate is not None:
        await gate.wait()


@app.workflow(start=Opened)
async def collect(start: Opened) -> list[int]:
    numbers: list[int] = []
    await work(start.key)
    while len(numbers) < 3:
        item = await receive(Item, start.key)
        numbers.append(item.number)
        await work(start.key)
    await receive(Closed, start.key)
    return numbers


@app.activity
async def tell(note: Note | Picky) -> None:
    """Make the app know a type that no workflow takes."""


@pytest.fixture(autouse=True)
def _no_gates() -> None:
    gates.clear()


async def test_a_burst_gets_what_came_meanwhile_in_order_and_once() -> None:
    world = World(app)
    host = await world.host()
    gates["k"] = asyncio.Event()
    start = await host.deliver(Opened(key="k"), "m0")
    items = [await host.deliver(Item(key="k", number=n), f"m{n}") for n in (1, 2, 3)]
    assert not start.acked
    assert not any(item.acked for item in items)
    gates["k"].set()
    await world.rest()
    assert all(item.acked for item in items)
    await host.deliver(Closed(key="k"), "m4")
    assert world.state.result == [1, 2, 3]
    assert [world.verdict(f"m{n}") for n in range(5)] == [("applied", None)] * 5


async def test_an_early_message_waits_in_the_inbox_until_its_bookmark_opens() -> None:
    world = World(app)
    host = await world.host()
    early = await host.deliver(Item(key="k", number=1), "m1")
    assert early.acked
    assert world.verdict("m1") == ("buffered", None)
    await host.deliver(Opened(key="k"), "m0")
    assert world.verdict("m1") == ("applied", None)
    assert list(world.state.bookmarks) == ["0.4"]


async def test_a_message_that_is_not_waited_for_yet_is_stored_when_the_burst_ends() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Opened(key="k"), "m0")
    closed = await host.deliver(Closed(key="k"), "m9")
    assert closed.acked
    assert world.verdict("m9") == ("buffered", None)
    for number in (1, 2, 3):
        await host.deliver(Item(key="k", number=number), f"m{number}")
    assert world.state.result == [1, 2, 3]
    assert world.verdict("m9") == ("applied", None)


async def test_a_message_that_comes_twice_is_applied_once() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Opened(key="k"), "m0")
    first = await host.deliver(Item(key="k", number=1), "m1")
    second = await host.deliver(Item(key="k", number=1), "m1")
    again = await host.deliver(Opened(key="k"), "m0")
    assert first.acked
    assert second.acked
    assert again.acked
    assert len(world.store.tables.instances) == 1
    assert (await world.types()).count("MessageReceived") == 1


async def test_doubles_that_come_together_are_applied_once() -> None:
    world = World(app)
    host = await world.host()
    gates["k"] = asyncio.Event()
    await host.deliver(Opened(key="k"), "m0")
    doubles = [host.put(Item(key="k", number=1).envelope("m1")) for _ in range(3)]
    gates["k"].set()
    await world.advance(1)
    assert [double.count for double in doubles] == [1, 1, 1]
    assert (await world.types()).count("MessageReceived") == 1


async def test_an_id_that_comes_again_with_another_body_is_refused() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Opened(key="k"), "m0")
    await host.deliver(Item(key="k", number=1), "m1")
    other = await host.deliver(Item(key="k", number=2), "m1")
    assert other.acked
    assert (await world.types()).count("MessageReceived") == 1
    assert [row.reason for row in world.store.tables.inbox.values() if row.verdict == "dead_lettered"] == [
        "message_id_reused"
    ]


async def test_a_message_for_a_finished_instance_is_rejected() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Opened(key="k"), "m0")
    await host.deliver(Item(key="k"), "left-over-first")
    for number in (2, 3):
        await host.deliver(Item(key="k", number=number), f"m{number}")
    await host.deliver(Closed(key="k"), "m4")
    late = await host.deliver(Item(key="k"), "late")
    restart = await host.deliver(Opened(key="k"), "m00")
    assert late.acked
    assert restart.acked
    assert world.verdict("late") == ("rejected", "completed")
    assert world.store.tables.inbox["late"].instance_id == world.instance_id
    assert world.verdict("m00") == ("rejected", "completed")


async def test_a_second_start_message_for_a_living_instance_is_rejected_at_its_end() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Opened(key="k"), "m0")
    await host.deliver(Opened(key="k"), "m00")
    assert world.verdict("m00") == ("buffered", None)
    for number in (1, 2, 3):
        await host.deliver(Item(key="k", number=number), f"m{number}")
    await host.deliver(Closed(key="k"), "m4")
    assert world.verdict("m00") == ("rejected", "completed")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not_json"),
        (b"[" * 200 + b"]" * 200, "too_deep"),
        (b'{"key": "k", "number": "many"}', "invalid_body"),
        (b'{"key": "other"}', "correlation_mismatch"),
    ],
)
async def test_a_body_that_breaks_the_contract_is_dead_lettered_with_its_reason(body: bytes, reason: str) -> None:
    world = World(app)
    host = await world.host()
    delivered = host.put(Envelope(message_id="bad", type="Item", key="k", body=body))
    await world.rest()
    assert delivered.acked
    assert world.verdict("bad") == ("dead_lettered", reason)


async def test_a_validator_that_fails_makes_a_dead_letter() -> None:
    world = World(app)
    host = await world.host()
    envelope = Envelope(message_id="m0", type="Picky", key="k", body=b'{"key": "k"}')
    delivered = host.put(envelope)
    await world.rest()
    assert delivered.acked
    assert world.verdict("m0") == ("dead_lettered", "invalid_body")


async def test_a_type_that_no_host_knows_is_dead_lettered_and_one_that_another_knows_is_kept() -> None:
    world = World(app)
    host = await world.host()
    host.put(Envelope(message_id="u1", type="Strange", key="k", body=b"{}"))
    await world.rest()
    assert world.verdict("u1") == ("dead_lettered", "unknown_type")
    await world.host()
    (_, newer) = world.store.tables.hosts.values()
    newer.host = replace(newer.host, message_types=("Strange",))
    host.put(Envelope(message_id="u2", type="Strange", key="k", body=b"{}"))
    await world.rest()
    assert world.verdict("u2") == ("buffered", None)


async def test_a_message_that_nobody_claims_expires() -> None:
    world = World(app)
    host = await world.host()
    await host.deliver(Note(key="k"), "n1")
    assert world.verdict("n1") == ("buffered", None)
    await world.advance(8 * 86400)
    await world.store.expire(world.settings.message_ttl, 100)
    assert world.verdict("n1") == ("expired", None)


# Protocol: D2, D12.
async def test_a_redelivered_message_that_never_reaches_a_commit_is_given_up() -> None:
    world = World(app, max_attempts=2)
    gates["k"] = asyncio.Event()
    for attempt in range(3):
        host = await world.host()
        delivered = host.put(Opened(key="k").envelope("m0"), redelivered=attempt > 0)
        await world.rest()
        assert not delivered.acked
        await host.die()
        await world.store.close_host(host.runtime.host_id)
    host = await world.host()
    delivered = host.put(Opened(key="k").envelope("m0"), redelivered=True)
    await world.rest()
    assert delivered.acked
    assert world.verdict("m0") == ("dead_lettered", "attempts_exhausted")


async def test_what_the_consumer_found_wrong_is_kept_with_its_reason() -> None:
    world = World(app)
    host = await world.host()
    settled: list[bool] = []
    host.engine.deliver(
        Arrival(
            envelope=Envelope(message_id="bad", type="", key="", body=b"{}"),
            received_at=world.time,
            problem=InvalidMessage("missing_type", "type is empty"),
            settle=lambda: settled.append(True),
        )
    )
    await world.rest()
    assert settled == [True]
    assert world.verdict("bad") == ("dead_lettered", "missing_type")
