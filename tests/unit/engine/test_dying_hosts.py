"""A host that dies at any one of its calls to the store, before or after its work; rows D1 to D11 of the protocol."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import checkpoint, delay, receive, send
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("mortal")


class Placed(Message, correlation="key"):
    key: str


class Paid(Message, correlation="key"):
    key: str
    number: int = 0


class Early(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str


@app.activity
async def work() -> None:
    """Do nothing."""


@app.workflow(start=Placed)
async def order(start: Placed) -> list[int]:
    await work()
    numbers: list[int] = []
    while len(numbers) < 3:
        paid = await receive(Paid, start.key)
        numbers.append(paid.number)
        await work()
        await send(Shipped(key=start.key))
        await checkpoint()
    await receive(Early, start.key)
    await delay(timedelta(seconds=3))
    await work()
    return numbers


CALLS = frozenset({"route", "register", "load", "release", "commit", "take_in", "attempt", "wakeups"})


class Mortal:
    """The store as one host sees it that dies at the call of that number."""

    def __init__(self, store: Any, number: int, *, after: bool) -> None:
        self._store = store
        self._number = number
        self._after = after
        self.calls = 0

    @property
    def is_dead(self) -> bool:
        return self.calls >= self._number

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


MESSAGES: tuple[Message, ...] = (
    Placed(key="k"),
    Early(key="k"),
    Paid(key="k", number=1),
    Paid(key="k", number=2),
    Paid(key="k", number=3),
)


async def _put(
    host: SimulatedHost, *, redelivered: bool = False, without: frozenset[int] = frozenset()
) -> list[Delivered]:
    return [
        host.put(message.envelope(f"m{place}"), redelivered=redelivered)
        for place, message in enumerate(MESSAGES)
        if place not in without
    ]


# Protocol: D1, D2, D3, D5, D8, D9, D10, D11.
@pytest.mark.parametrize("lapsed", [False, True], ids=["lock alive at redelivery", "lock lapsed at redelivery"])
@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_another_host_finishes_what_a_dead_one_began(
    after: bool,  # noqa: FBT001  Parameters come by position or name as pytest likes.
    lapsed: bool,  # noqa: FBT001
) -> None:
    number, is_dead = 1, True
    while is_dead:
        world = World(app)
        store = world.store
        mortal = world.store = Mortal(store, number, after=after)  # type: ignore[assignment]  # It stands in for it.
        first = await world.host()
        world.store = store
        delivered = await _put(first)
        for _ in range(5):
            await world.rest()
            if mortal.is_dead:
                break
            await world.advance(1)
            await first.detect()
        is_dead = mortal.is_dead
        await first.die()
        second = await world.host()
        if lapsed:
            store.tables.hosts.pop(first.runtime.host_id)
        acked = frozenset(place for place, delivery in enumerate(delivered) if delivery.acked)
        again = await _put(second, redelivered=True, without=acked)
        await world.rest()
        store.tables.hosts.pop(first.runtime.host_id, None)
        for _ in range(10):
            await world.advance(2)
            await second.detect()
        assert all(delivery.acked for delivery in again), number
        assert world.row.is_completed, number
        assert world.state.result == [1, 2, 3], number
        assert [world.verdict(f"m{place}") for place in range(5)] == [("applied", None)] * 5
        assert len(store.tables.outbox) == 3
        number += 1
