"""A store that gives way under any one of its calls: nothing is lost, and what was persisted is not done again."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, receive, send
from holdfast.processor.language.scopes import transacted_receive
from holdfast.processor.testing.host import Delivered
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import StorageError
from holdfast.schemas.message import Message

app = App("shaken")
failures: dict[str, int] = {}


class Placed(Message, correlation="key"):
    key: str


class Abandoned(Message, correlation="key"):
    key: str


class Paid(Message, correlation="key"):
    key: str
    number: int = 0


class Early(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str


class FlakyError(Exception):
    pass


@app.activity(retry=Retry(attempts=1))
async def work(place: str) -> None:
    if failures.get(place):
        failures[place] -= 1
        raise FlakyError(place)


@app.workflow(start=Placed)
async def suspended(start: Placed) -> list[int]:
    await work("begin")
    numbers: list[int] = []
    while len(numbers) < 2:
        paid = await receive(Paid, start.key)
        numbers.append(paid.number)
        await work("paid")
    await receive(Early, start.key)
    await delay(timedelta(seconds=3))
    await work("end")
    await send(Shipped(key=start.key))
    return numbers


@app.workflow(start=Abandoned, on_unhandled="abandon")
async def abandoned(start: Abandoned) -> list[int]:
    await work("begin")
    numbers: list[int] = []
    while len(numbers) < 2:
        paid = await receive(Paid, start.key)
        numbers.append(paid.number)
        await work("paid")
    await receive(Early, start.key)
    await delay(timedelta(seconds=3))
    await work("end")
    await send(Shipped(key=start.key))
    return numbers


class Transacted(Message, correlation="key"):
    key: str


@app.workflow(start=Transacted)
async def transacted(start: Transacted) -> int:
    while True:
        try:
            async with transacted_receive(Paid, start.key) as paid:
                await work("paid")
        except FlakyError:
            continue
        return paid.number


CALLS = frozenset(
    {"route", "register", "load", "release", "commit", "suspend", "resume", "take_in", "attempt", "wakeups"}
)


class Shaken:
    """A store of which one call fails: the one of that number, before or after its work."""

    def __init__(self, store: Any, number: int, *, after: bool) -> None:
        self._store = store
        self._number = number
        self._after = after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._shaken(found) if name in CALLS else found

    def _shaken(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def shaken(*args: Any) -> Any:
            self.calls += 1
            if self.calls != self._number:
                return await call(*args)
            if self._after:
                await call(*args)
            raise StorageError("shaken")

        return shaken


async def _live(kind: Callable[..., Message], number: int, *, after: bool) -> tuple[World, Shaken, list[Delivered]]:
    """Run an instance from beginning to end on such a store; an operator resumes it whenever it is suspended."""
    world = World(app, time_to_unload=2.0, max_attempts=10)
    shaken = world.store = Shaken(world.store, number, after=after)  # type: ignore[assignment]  # It stands in for it.
    host = await world.host()
    messages = (kind(key="k"), Early(key="k"), Paid(key="k", number=1), Paid(key="k", number=2))
    delivered = [await host.deliver(message, f"m{place}") for place, message in enumerate(messages)]
    for _ in range(30):
        await world.advance(1)
        with suppress(StorageError):
            await host.detect()
            await host.engine.unload_idle(world.settings.time_to_unload)
            if _stands_still(world):
                await host.command(world.instance_id, "resume")
        if _is_over(world, delivered):
            break
    return world, shaken, delivered


def _stands_still(world: World) -> bool:
    tables = world.store.tables
    commanded = any(row.message.kind == "control" for row in tables.buffered())
    return any(row.is_suspended for row in tables.instances.values()) and not commanded


def _is_over(world: World, delivered: list[Delivered]) -> bool:
    closed = any(row.is_completed for row in world.store.tables.instances.values())
    return closed and all(delivery.acked for delivery in delivered)


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("kind", [Placed, Abandoned])
@pytest.mark.parametrize("failing", ["nothing", "begin", "paid", "end"])
async def test_a_call_that_fails_loses_no_message_and_no_order(
    kind: Callable[..., Message],
    failing: str,
    after: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
) -> None:
    number = total = 1
    while number <= total:
        failures.clear()
        failures[failing] = 1
        world, shaken, delivered = await _live(kind, number, after=after)
        assert _is_over(world, delivered), f"call {number} of {shaken.calls}"
        assert world.state.result == [1, 2], f"call {number} of {shaken.calls}"
        assert [world.verdict(f"m{place}") for place in range(4)] == [("applied", None)] * 4
        assert (await world.types()).count("MessageReceived") == 3
        assert [row.message.type for row in world.store.tables.outbox.values()] == ["Shipped"]
        total = shaken.calls
        number += 1


async def _live_transacted(number: int, *, after: bool) -> tuple[World, Shaken, list[Delivered]]:
    world = World(app)
    shaken = world.store = Shaken(world.store, number, after=after)  # type: ignore[assignment]  # It stands in for it.
    host = await world.host()
    delivered = []
    for body in (
        Transacted(key="k").envelope("m0"),
        Paid(key="k").envelope("m1"),
        Paid(key="k", number=2).envelope("m2"),
    ):
        invalid = replace(body, body=b"{}") if body.message_id == "m1" else body
        delivered.append(host.put(invalid))
        await world.advance(2)
    return world, shaken, delivered


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_what_a_workflow_could_not_take_is_in_somebodys_hands_though_a_call_fails(
    after: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
) -> None:
    number = total = 1
    while number <= total:
        failures.clear()
        failures["paid"] = 1
        world, shaken, delivered = await _live_transacted(number, after=after)
        assert _is_over(world, delivered), f"call {number} of {shaken.calls}"
        assert world.state.result == 2, f"call {number} of {shaken.calls}"
        assert [(world.verdict(f"m{place}") or ("",))[0] for place in range(3)] == [
            "applied",
            "dead_lettered",
            "applied",
        ]
        total = shaken.calls
        number += 1
