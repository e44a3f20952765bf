"""What is left of an instance in memory once it was let go of: nothing, and without the collector's help."""

import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta

import pytest

from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, first_of, receive, send
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("leavers")


class Begun(Message, correlation="key"):
    key: str


class Item(Message, correlation="key"):
    key: str


class Told(Message, correlation="key"):
    key: str


@app.activity
async def work(key: str) -> str:
    return key


@app.workflow(start=Begun)
async def waits(begun: Begun) -> None:
    await work(begun.key)
    await send(Told(key=begun.key))
    await first_of(item=receive(Item, begun.key), late=delay(timedelta(hours=1)))
    await receive(Item, begun.key)


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize("settings", [{}, {"on_idle": "unload"}, {"max_loaded": 1}, {"on_idle": "none"}])
async def test_an_instance_that_was_let_go_of_leaves_nothing_behind(settings: dict[str, object]) -> None:
    world = World(app, **settings)
    host = await world.host()
    engine = host.engine
    seen: list[weakref.ref[LiveInstance]] = []
    add = engine._add

    def watched(instance: LiveInstance) -> object:
        seen.append(weakref.ref(instance))
        return add(instance)

    engine._add = watched  # type: ignore[method-assign,assignment] # the test looks on
    for number in range(5):
        await host.deliver(Begun(key=f"k{number}"), f"m{number}")
        await host.deliver(Item(key=f"k{number}"), f"i{number}")
    await engine.unload_idle(0)
    await world.rest()
    assert engine.held == {}
    assert len(seen) >= 5
    assert [reference() for reference in seen if reference() is not None] == []
    assert not engine._idle
    assert not engine._by_key
    assert not engine._tasks
    assert not engine._to_wake
    assert not engine.lanes._lanes
