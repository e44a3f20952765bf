"""Publishes what was committed: the outbox relay.

After a commit its messages are published directly, many in flight at once. A message goes out directly only
if no older unpublished one of its instance can exist: the instance began in this host, and none of its
messages failed. All others are left to the sweep, which reads the outbox in its order; and so are all, while the
broker takes less than is committed, as one does that blocks publishers: the outbox grows then, and the memory does not.
A confirmed message is deleted from the outbox; so a message may go out twice, under one ``message_id``, but never
before its commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog
from opentelemetry.trace import Span

from holdfast.processor import tracing
from holdfast.processor.broker.publisher import Fate, Publisher, Receipt
from holdfast.processor.engine.batcher import Batcher
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.log_context import ids_of
from holdfast.processor.services.first_of import first_of
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.relay")

SWEEP = 500
"""How many outbox rows one sweep reads at most."""

QUEUE = 1000
"""How many messages wait in memory; while it is more, all that is committed is left to the sweep."""

DELETE_GROUP = 500
"""How many confirmed rows are deleted at once at most."""


class Relay:
    """The outbox relay of one host; ``run`` publishes and sweeps until it is cancelled."""

    def __init__(self, runtime: Runtime, publisher: Publisher) -> None:
        self.runtime = runtime
        self.publisher = publisher
        self._queue: deque[Outgoing] = deque()
        self._filled = asyncio.Event()
        self._in_flight: set[str] = set()
        # Instances of which a message failed: what they have in the queue stays unsent until the outbox is read.
        self._failed: set[str] = set()
        # Instances that may have older messages in the outbox than what they send now. The second set is of those
        # that came to be so since the last look at the outbox began, which may have missed these messages.
        self._behind: set[str] = set()
        self._newly_behind: set[str] = set()
        # The same for all instances at once: the broker takes less than is committed, or nothing.
        self._is_full = False
        self._was_full = False
        self._gone: set[str] = set()
        self._sweep_due = asyncio.Event()
        self._settling: set[asyncio.Task[None]] = set()
        self._confirmed: Batcher[str, None] = Batcher(self._delete, limit=DELETE_GROUP)

    def offer(self, instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None:
        """Publish what a commit of the instance sent; ``fresh`` says that the instance began in this host."""
        instance = str(instance_id)
        if len(self._queue) >= QUEUE:
            self._is_full = self._was_full = True
        if self._is_full:
            # A look that is under way may miss them, and be the one after which messages go out directly again.
            self._newly_behind.add(instance)
            self._sweep_due.set()
        elif fresh and instance not in self._behind:
            self._enqueue(messages)
        else:
            self._leave_to_sweep(instance)
            self._sweep_due.set()

    @property
    def depth(self) -> int:
        """How many messages this host has under way: waiting here, or for their confirm."""
        return len(self._in_flight)

    async def run(self) -> None:
        """Publish what is offered, and sweep the outbox every few seconds and when something was left to it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish())
            group.create_task(self._sweep())

    async def drain(self, seconds: float) -> None:
        """Wait until what is on its way is confirmed and deleted, that long at most; not at all if that is over."""
        try:
            async with asyncio.timeout(seconds):
                while self._queue or self._in_flight or self._settling:
                    await self.runtime.environment.sleep(0.01)
        except TimeoutError:
            log.warning("outbox not drained", left=len(self._in_flight))

    def _leave_to_sweep(self, instance: str) -> None:
        self._behind.add(instance)
        self._newly_behind.add(instance)

    def _enqueue(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if message.message_id not in self._in_flight:
                self._in_flight.add(message.message_id)
                self._queue.append(message)
        self._filled.set()

    async def _publish(self) -> None:
        tracer = self.runtime.tracer
        while True:
            await self._filled.wait()
            while self._queue:
                message = self._queue.popleft()
                if _instance(message) in self._failed:
                    self._in_flight.discard(message.message_id)
                    continue
                sending = None
                if tracer is not None:
                    sending = tracing.send(tracer, message, message.exchange, message.routing_key)
                receipt = await self.publisher.send(message.exchange, message.routing_key, message)
                if sending is not None:
                    receipt.add_done_callback(partial(_end, sending))
                receipt.add_done_callback(partial(self._received, message))
            self._filled.clear()

    def _received(self, message: Outgoing, receipt: asyncio.Future[Receipt]) -> None:
        if receipt.cancelled():
            self._in_flight.discard(message.message_id)
            return
        task = asyncio.create_task(self._settle(message, receipt.result()))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, message: Outgoing, receipt: Receipt) -> None:
        self.runtime.counts.published[receipt.fate.value] += 1
        try:
            if receipt.fate is Fate.CONFIRMED:
                await self._confirmed.put(message.message_id)
                self._gone.add(message.message_id)
            elif receipt.fate is Fate.UNROUTABLE:
                log.warning("unroutable", **ids_of(message), reason=receipt.reason)
                await self.runtime.provider.unroutable(message.message_id, receipt.reason)
                self._gone.add(message.message_id)
            else:
                log.warning("not published", **ids_of(message), reason=receipt.reason)
                self._failed.add(_instance(message))
                self._leave_to_sweep(_instance(message))
        except StorageError as error:
            # The row is still there, so the sweep publishes the message again.
            log.warning("outbox row kept", **ids_of(message), error=str(error))
        finally:
            self._in_flight.discard(message.message_id)

    async def _sweep(self) -> None:
        while True:
            full = False
            self._sweep_due.clear()
            self._newly_behind.clear()
            self._was_full = False
            self._gone.clear()
            try:
                if len(self._queue) < QUEUE:
                    rows = await self.runtime.provider.outbox(self.runtime.host_id, SWEEP)
                    self._take_up(rows)
                    full = len(rows) == SWEEP and len(self._queue) < SWEEP
            except StorageError as error:
                log.warning("outbox not read", error=str(error))
            await self._pause(0.1 if full else self.runtime.settings.runnable_detection)

    def _take_up(self, rows: Sequence[Outgoing]) -> None:
        """Publish what the outbox has, the oldest first; with that, what failed gets its place again."""
        queued, self._queue = self._queue, deque()
        for message in queued:
            if _instance(message) in self._failed:
                self._in_flight.discard(message.message_id)
            else:
                self._queue.append(message)
        self._failed.clear()
        self._enqueue([row for row in rows if row.message_id not in self._gone])
        if len(rows) < SWEEP:
            self._behind = set(self._newly_behind)
            self._is_full = self._was_full

    async def _pause(self, seconds: float) -> None:
        environment = self.runtime.environment
        await first_of(environment.sleep(seconds), self._sweep_due.wait())
        await environment.sleep(0.02)

    async def _delete(self, message_ids: Sequence[str]) -> Sequence[None]:
        await self.runtime.provider.published(message_ids)
        return [None] * len(message_ids)


def _end(span: Span, receipt: asyncio.Future[Receipt]) -> None:
    """End the span of a message that was sent."""
    if receipt.cancelled():
        tracing.sent(span, "cut off", "cancelled")
    elif receipt.result().fate is Fate.CONFIRMED:
        tracing.sent(span)
    else:
        tracing.sent(span, receipt.result().reason, receipt.result().fate.value)


def _instance(message: Outgoing) -> str:
    """Return the instance that sent a message, which its id begins with."""
    return message.message_id.partition(":")[0]
