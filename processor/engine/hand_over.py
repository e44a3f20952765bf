"""How a host gives a partition up: no burst begins, those that run come to their end, and the locks go back.

What the host had in memory of the partition's messages is dropped, as it was not acked and comes again, in order, to
the next consumer once this one's channel is closed. Until then nobody else is given any, so the closing comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.processor.engine.engine import Engine

BEAT = 0.02
"""Seconds between two looks whether everything has come to its end."""


async def hand_over(engine: Engine, partition: int, seconds: float) -> bool:
    """Let go of all that belongs to a partition; False if some bursts went on after ``seconds``.

    Their instances stay in hand until they are idle. What comes for them meanwhile, whoever gets it stores, and this
    host finds it.
    """
    environment = engine.runtime.environment
    deadline = environment.monotonic() + seconds
    engine.leaving.add(partition)
    try:
        while True:
            held = [h for h in engine.held.values() if h.instance.loaded.partition == partition]
            for holding in held:
                holding.is_leaving = True
            await engine.unload([holding for holding in held if not holding.busy])
            is_done = not any(h.busy for h in held) and not engine.lanes.have(partition)
            if is_done or environment.monotonic() >= deadline:
                return is_done
            await environment.sleep(BEAT)
    finally:
        engine.lanes.give_back(partition)
        engine.leaving.discard(partition)
