"""What an order costs the engine, by measures that no other load on the machine disturbs."""

import gc
import weakref
from typing import get_args

import pytest

from benchmarks.calls import count, report
from benchmarks.order import OrderPaid, OrderPlaced, app
from holdfast.processor.language.options import Persistence
from holdfast.processor.testing.world import World

CALLS: dict[Persistence, int] = {"in_memory": 950, "regular": 1250}
"""How many function calls an order may cost: a fifth more than it did when this was written."""


@pytest.mark.parametrize("persistence", get_args(Persistence))
def test_an_order_takes_no_more_calls_than_it_may(persistence: Persistence) -> None:
    found = count(persistence)
    assert 0 < sum(found.values()) < CALLS[persistence], report({persistence: found})


async def test_a_closed_instance_is_gone_without_the_garbage_collector() -> None:
    world = World(app)
    host = await world.host()
    gc.disable()
    try:
        await host.deliver(OrderPlaced(order_id="1", padding=""), "placed")
        (holding,) = host.engine.held.values()
        held = weakref.ref(holding.instance)
        del holding
        await host.deliver(OrderPaid(order_id="1", padding=""), "paid")
        assert world.state.outcome == "completed"
        assert held() is None
    finally:
        gc.enable()
