"""Messages that would stay unacked for too long, or in too great a number: they go into the inbox.

What waits behind a burst leaves the memory for the inbox and comes back from there, before all that came later.
What an instance has taken stays with it; only that its next commit finds it in the inbox already.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from holdfast.processor.engine.arrival import Arrival, nothing
from holdfast.processor.engine.failures import STORAGE_PAUSE
from holdfast.processor.engine.provider import RouteKind, StoredMessage
from holdfast.schemas.errors import StorageError

if TYPE_CHECKING:
    from holdfast.processor.engine.engine import Engine
    from holdfast.processor.engine.holding import Holding

log = structlog.get_logger("holdfast.engine")


def look_after_unacked(engine: Engine) -> None:
    """Store what has been unacked for longer than ``ack_deadline``.

    So is what has been for more than one look, oldest first, until no more than half the prefetch is left: the other
    half is for who is faster.
    """
    settings, now = engine.runtime.settings, engine.runtime.now()
    slow: list[tuple[datetime, Holding, list[Arrival]]] = []
    for holding in engine.held.values():
        if holding.busy or holding.instance.is_unpersisted:
            unacked = _unacked(holding)
            oldest = min((arrival.delivered_at or arrival.received_at for arrival in unacked), default=now)
            if now - oldest >= timedelta(seconds=settings.runnable_detection):
                slow.append((oldest, holding, unacked))
    held = Counter(arrival.partition for _, _, unacked in slow for arrival in unacked)
    for oldest, holding, unacked in sorted(slow, key=lambda each: each[0]):
        is_crowded = any(held[arrival.partition] > settings.prefetch // 2 for arrival in unacked)
        if is_crowded or now - oldest >= timedelta(seconds=settings.ack_deadline):
            held -= Counter(arrival.partition for arrival in unacked)
            if not spill(holding):
                engine.spawn(store_what_is_taken(holding))


def spill(holding: Holding) -> bool:
    """Have what waits in memory go into the inbox, in order; the instance takes nothing up until it is there.

    What the instance has taken goes before it, as another host may find all of it there. False if nothing waits.
    """
    mailbox = holding.mailbox
    arrivals = mailbox.empty(keeping=_needed(holding))
    if arrivals:
        mailbox.is_stale = True
        mailbox.spilling = holding.engine.spawn(_spill(holding, deque(arrivals), mailbox.spilling))
    return bool(arrivals)


async def store_what_is_taken(holding: Holding) -> None:
    """Put what an instance has taken into the inbox, and what it is to begin with, so that it can be acked."""
    instance, mailbox = holding.instance, holding.mailbox
    arrivals = [*instance.unwritten.taken, *(a for a in mailbox.arrived if a in _needed(holding))]
    arrivals = [arrival for arrival in arrivals if arrival.stored is None]
    take_in = holding.runtime.take_in
    routes = await asyncio.gather(*(take_in.put(arrival.intake("buffered")) for arrival in arrivals))
    for arrival, route in zip(arrivals, routes, strict=True):
        is_held = arrival in instance.unwritten.taken or arrival in mailbox.arrived
        # One that is held no more was settled by a commit, or is on its way back: then its row is found there.
        if is_held and route.kind is not RouteKind.REUSED:
            arrival.stored = StoredMessage(
                sequence=0, kind="message", envelope=arrival.envelope, received_at=arrival.received_at
            )
            arrival.settle()
            arrival.settle = nothing


async def _spill(holding: Holding, arrivals: deque[Arrival], earlier: asyncio.Task[None] | None) -> None:
    if earlier is not None:
        await asyncio.wait([earlier])
    while arrivals:
        try:
            await store_what_is_taken(holding)
            await holding.engine.lanes.keep_in_order(arrivals)
        except StorageError as error:
            log.warning("store unreachable", error=str(error), instance_id=str(holding.instance.instance_id))
            await holding.runtime.environment.sleep(STORAGE_PAUSE)


def _unacked(holding: Holding) -> list[Arrival]:
    """Return what the broker still waits for an ack of."""
    return [a for a in (*holding.instance.unwritten.taken, *holding.mailbox.arrived) if a.stored is None]


def _needed(holding: Holding) -> list[Arrival]:
    """Return what has to stay in memory: the message that the instance begins with, and one that is being stored."""
    start = holding.mailbox.start(holding.instance.loaded.start_message_id)
    is_to_begin = holding.instance.state.version == 0 and not holding.instance.is_unpersisted
    found = [holding.mailbox.leaving, start if is_to_begin else None]
    return [arrival for arrival in found if arrival is not None]
