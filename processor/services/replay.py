"""Publishes history again, at a bounded rate, and keeps up to where all of it is confirmed.

The events go out in the order of the log, so in order for each instance, as the event feed publishes them and under the
same ids, with headers that say that they are replayed. A process that dies leaves no more behind than a chunk that is
out and not yet noted: whoever goes on publishes it again, under the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.processor.broker.frames import REPLAYED, REPLAYED_AT
from holdfast.processor.broker.publisher import Fate, InOrder, Publisher, Receipt
from holdfast.processor.core.token_bucket import TokenBucket
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.services.event_messages import event_messages
from holdfast.processor.store import replays
from holdfast.processor.store.connections import Connection, Connections
from holdfast.processor.store.replays import Replay
from holdfast.projections import horizon, selection
from holdfast.projections.lag import Progress
from holdfast.schemas.errors import BrokerError, ReplayStopped

T = TypeVar("T")

PAGE = 2000
"""Events of the log that are looked at together."""

CHUNK = 500
"""Messages that are on their way at a time at most; fewer at a lower rate, so that a chunk takes about a second."""

_PAUSE = 0.5
"""Seconds before another look, or another try."""


@dataclass(frozen=True, slots=True)
class ReplayStep(Progress):
    """How far a replay has come: ``replay`` is as it stands then."""

    replay: Replay


class Replayer:
    """Runs replays, one after the other.

    ``rate`` is how many messages a second are published at most, 0 for as many as the broker takes; ``patience`` how
    many seconds the broker may leave one unconfirmed.
    """

    def __init__(
        self,
        connections: Connections,
        publisher: Publisher,
        environment: Environment,
        *,
        rate: int,
        patience: float,
    ) -> None:
        self._connections = connections
        self._publisher = publisher
        self._environment = environment
        self._patience = patience
        self._bucket = TokenBucket(rate, environment.monotonic()) if rate else None
        self._chunk = min(rate, CHUNK) if rate else CHUNK

    async def run(self, replay: Replay) -> AsyncIterator[ReplayStep]:
        """Publish what of a replay is not out yet; yield how far it is, at first and after every chunk.

        Raises ``ReplayStopped`` at an event that the broker does not take, ``BrokerError`` if it is away or silent for
        too long, and ``ReplayRefused`` once another process has begun to run the replay. Then, as when the process
        dies, it can be run again.
        """
        yield _step(replay)
        if replay.finished_at is not None:
            return
        end = replay.selection.end
        while not await self._connections.run(lambda connection: horizon.is_settled(connection, end)):
            await self._environment.sleep(_PAUSE)
        while replay.selection.after < end:
            events, messages, page_end = await self._look(replay)
            if page_end == replay.selection.after:
                break  # What was there when it began is no longer in the log.
            for chunk in self._chunks(events, messages):
                replay = await self._publish(replay, *chunk)
                yield _step(replay)
            replay = await self._move(replay, page_end, replay.published)
        yield _step(await self._connections.run(lambda connection: replays.finish(connection, replay)))

    async def _look(self, replay: Replay) -> tuple[Sequence[RecordedEvent], list[Outgoing], Cursor]:
        async def work(connection: Connection) -> tuple[Sequence[RecordedEvent], list[Outgoing], Cursor]:
            page = await selection.read(connection, replay.selection, PAGE)
            messages = await event_messages(connection, replay.app, replay.destination.exchange, page.events)
            return page.events, messages, page.cursor or replay.selection.after

        return await self._connections.run(work)

    def _chunks(
        self, events: Sequence[RecordedEvent], messages: Sequence[Outgoing]
    ) -> Iterator[tuple[Sequence[RecordedEvent], Sequence[Outgoing]]]:
        for start in range(0, len(events), self._chunk):
            yield events[start : start + self._chunk], messages[start : start + self._chunk]

    async def _publish(self, replay: Replay, events: Sequence[RecordedEvent], messages: Sequence[Outgoing]) -> Replay:
        """Publish a chunk, and return the replay as it stands behind it.

        What comes before the first event that is not taken is kept as published, whatever goes wrong.
        """
        confirmed = [False] * len(messages)
        try:
            await self._confirm(replay, events, messages, confirmed)
        finally:
            done = confirmed.index(False) if False in confirmed else len(confirmed)
            if done:
                replay = await self._move(replay, events[done - 1].cursor, replay.published + done)
        return replay

    async def _confirm(
        self, replay: Replay, events: Sequence[RecordedEvent], messages: Sequence[Outgoing], confirmed: list[bool]
    ) -> None:
        """Publish messages until the broker has confirmed each one, and note which it has."""
        headers = {REPLAYED: replay.name, REPLAYED_AT: replay.started_at.isoformat()}
        heard = self._environment.monotonic()
        while not all(confirmed):
            missing = [place for place, is_confirmed in enumerate(confirmed) if not is_confirmed]
            in_order = InOrder(self._publisher)
            sent = [(place, await self._send(in_order, replay, messages[place], headers)) for place in missing]
            receipts = []
            for place, answer in sent:
                receipts.append(await self._within(asyncio.shield(answer)))
                confirmed[place] = receipts[-1].fate is Fate.CONFIRMED
            for place, receipt in zip(missing, receipts, strict=True):
                if receipt.fate is Fate.UNROUTABLE:
                    raise _stopped(events[place], receipt.reason)
            failed = [receipt for receipt in receipts if receipt.fate is Fate.FAILED]
            if len(failed) < len(receipts):
                heard = self._environment.monotonic()
            elif self._environment.monotonic() - heard > self._patience:
                raise BrokerError(f"RabbitMQ has taken no message for {self._patience:g} s: {failed[0].reason}")
            if failed:
                await self._environment.sleep(_PAUSE)

    async def _send(
        self, in_order: InOrder, replay: Replay, message: Outgoing, headers: Mapping[str, str]
    ) -> asyncio.Future[Receipt]:
        if self._bucket is not None:
            while wait := self._bucket.take(self._environment.monotonic()):
                await self._environment.sleep(wait)
        to = replay.destination
        return await self._within(
            in_order.send(to.exchange, to.routing_key(message.routing_key), message, headers=headers)
        )

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await work
        except TimeoutError:
            raise BrokerError(f"RabbitMQ has confirmed nothing for {self._patience:g} s") from None

    async def _move(self, replay: Replay, cursor: Cursor, published: int) -> Replay:
        after = replay.at(cursor, published)
        if cursor != replay.selection.after:
            await self._connections.run(lambda connection: replays.move(connection, after))
        return after


def _stopped(event: RecordedEvent, reason: str) -> ReplayStopped:
    return ReplayStopped(event.instance_id, event.version, cursor=str(event.cursor), reason=reason)


def _step(replay: Replay) -> ReplayStep:
    return ReplayStep(replay.selection.after.position, replay.selection.end.position, None, replay)
