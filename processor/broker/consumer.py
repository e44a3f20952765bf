"""Consumes one queue on a channel of its own, for as long as the process wants to.

A channel that dies, or a consumer that the broker cancels, is replaced. What the dead channel had not
acked comes again, in order, here or to the next consumer of the queue: of the consumers of a partition
the broker serves one at a time (single active consumer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Self

import structlog
from aiormq.abc import DeliveredMessage

from holdfast.processor.broker import frames
from holdfast.processor.broker.acks import Ack, AckTracker
from holdfast.processor.broker.backoff import Backoff
from holdfast.processor.broker.channel import GOODBYE, Channel, broker_errors, describe
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.delivery import MAX_BODY_BYTES, Delivery, read_envelope
from holdfast.processor.broker.frames import Properties
from holdfast.schemas.errors import BrokerError, InvalidMessage
from holdfast.schemas.message import Envelope

log = structlog.get_logger("holdfast.broker")

PREFETCH = 400
LINGER = 0.2
"""Seconds that settled deliveries wait for an unsettled one before them, to be acked together."""


class Consumer:
    """Hands every message of ``queue`` to ``handle`` while the ``async with`` block lasts.

    ``handle`` is called between two reads of the socket: it must only put the delivery somewhere. Each
    delivery is to be given to ``settle`` once, when what became of it is durable. ``on_consuming`` is told the
    generation of deliveries that may come from now on, ``on_lost`` the one whose unsettled deliveries came to
    nothing, as they will come again. ``prefetch`` is how
    many deliveries may be unacked at a time, ``max_body_bytes`` how large a body may be.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        handle: Callable[[Delivery], None],
        *,
        random: Random,
        partition: int | None = None,
        prefetch: int = PREFETCH,
        max_body_bytes: int = MAX_BODY_BYTES,
        on_consuming: Callable[[int], None] = lambda _generation: None,
        on_lost: Callable[[int], None] = lambda _generation: None,
    ) -> None:
        self.queue = queue
        self.partition = partition
        self.prefetch = prefetch
        self.max_body_bytes = max_body_bytes
        self._connection = connection
        self._handle = handle
        self._on_consuming = on_consuming
        self._on_lost = on_lost
        self._backoff = Backoff(random)
        self._channel: _Intake | None = None
        self._generation = 0
        self._held: list[Delivery] | None = None
        self._consuming = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """How many deliveries of the living channel are not settled yet."""
        return self._channel.unsettled if self._channel else 0

    @property
    def delivered(self) -> int:
        """How many deliveries the living channel has brought."""
        return self._channel.last_tag if self._channel else 0

    @property
    def settled_up_to(self) -> int:
        """How many deliveries of the living channel came before the first that is not settled."""
        return self._channel.settled_up_to if self._channel else 0

    @property
    def is_consuming(self) -> bool:
        """Whether the queue is consumed now; the watchdog's answer."""
        return self._consuming.is_set()

    async def until_consuming(self) -> None:
        """Wait until the broker has taken the consumer on."""
        await self._consuming.wait()

    def settle(self, delivery: Delivery) -> None:
        """Let a delivery be acked; nothing happens if its channel is gone, as it comes again then."""
        if self._channel and delivery.generation == self._generation:
            self._channel.settle(delivery.tag)

    def reject(self, delivery: Delivery) -> None:
        """Give a delivery up instead of settling it: the broker dead-letters it, with the reason ``rejected``."""
        if self._channel and delivery.generation == self._generation:
            self._channel.reject(delivery.tag)

    def pause(self) -> None:
        """Keep what comes from now on unhandled, up to the prefetch, to be returned by ``close``.

        The consumer stays the active one: what it was given before can be settled without another host
        getting later messages of the same keys.
        """
        if self._held is None:
            self._held = []

    def resume(self) -> None:
        """Hand over what was kept, and what comes from now on."""
        held, self._held = self._held or [], None
        for delivery in held:
            if delivery.generation == self._generation:
                self._give(delivery)

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send the acks of what is settled, then give the rest back to the queue, in order.

        The broker confirms no ack, and may lose some of many that it gets just before the end: what was
        settled can come again to the next consumer, what was not settled always does.
        """
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=GOODBYE)
            if self._keeper.done():
                self._keeper = None
            else:
                log.warning("channel not closed", queue=self.queue)

    async def _keep(self) -> None:
        while True:
            try:
                reason = await self._consume()
            except BrokerError as error:
                reason = describe(error)
            except Exception as error:
                # Whatever it was, a partition that nobody watches over would stand still for good.
                log.exception("consuming failed", queue=self.queue)
                reason = describe(error)
            wait = self._backoff.wait()
            log.warning("not consuming", queue=self.queue, reason=reason, next_try_in=round(wait, 2))
            await asyncio.sleep(wait)

    async def _consume(self) -> str:
        """Consume until the channel ends, and return why it did."""
        generation = self._generation + 1
        channel = await self._connection.open(
            _Intake(self._give, self.partition, generation, self.prefetch, self.max_body_bytes)
        )
        self._generation, self._channel = generation, channel
        try:
            with broker_errors(f"cannot consume {self.queue}"):
                await channel.library.basic_qos(prefetch_count=self.prefetch)
                await channel.library.basic_consume(self.queue, _taken_by_the_tap)
            self._consuming.set()
            self._on_consuming(generation)
            self._backoff.reset()
            return describe(await channel.ended)
        finally:
            self._consuming.clear()
            self._channel = None
            if self._held:
                self._held.clear()
            await channel.leave()
            self._on_lost(generation)

    def _give(self, delivery: Delivery) -> None:
        if self._held is not None:
            self._held.append(delivery)
            return
        try:
            self._handle(delivery)
        except Exception:
            # It stays unsettled and comes again with the next channel; the others are not to suffer for it.
            log.exception("a delivery could not be handed over", queue=self.queue, tag=delivery.tag)


class _Intake(Channel):
    """The channel of a consumer: makes deliveries, and acks what is settled."""

    def __init__(
        self,
        give: Callable[[Delivery], None],
        partition: int | None,
        generation: int,
        prefetch: int,
        max_body_bytes: int,
    ) -> None:
        self._give = give
        self._partition = partition
        self._generation = generation
        self._max_body_bytes = max_body_bytes
        self._tracker = AckTracker(limit=prefetch // 4)
        self.last_tag = 0
        self._sending: asyncio.Handle | None = None
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def unsettled(self) -> int:
        return self.last_tag - self._tracker.settled

    @property
    def settled_up_to(self) -> int:
        return self._tracker.settled_up_to

    def delivered(self, tag: int, properties: Properties, body: bytes, *, redelivered: bool) -> None:
        if not self.is_open:
            return
        self.last_tag = tag
        envelope: Envelope | None = None
        problem: InvalidMessage | None = None
        try:
            envelope = read_envelope(properties, body, self._max_body_bytes)
        except InvalidMessage as error:
            problem = error
        self._give(
            Delivery(
                partition=self._partition,
                generation=self._generation,
                tag=tag,
                redelivered=redelivered,
                properties=properties,
                body=body,
                envelope=envelope,
                problem=problem,
            )
        )

    def cancelled(self) -> None:
        self.end(ConnectionError("the broker cancelled the consumer"))

    def settle(self, tag: int) -> None:
        self._tracker.settle(tag)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_soon(self._send)

    def reject(self, tag: int) -> None:
        self._tracker.leave_out(tag)
        self.write(frames.reject(self.number, tag))

    async def leave(self) -> None:
        """Send all acks that there are and close the channel."""
        self._send_all()
        await self.close()
        for handle in (self._sending, self._lingering):
            if handle:
                handle.cancel()

    def _send(self) -> None:
        self._sending = None
        self._write(self._tracker.take())
        if self._tracker.has_waiting and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._send_all)

    def _send_all(self) -> None:
        if self._lingering:
            self._lingering.cancel()
            self._lingering = None
        self._write(self._tracker.take(everything=True))

    def _write(self, acks: list[Ack]) -> None:
        if acks:
            self.write(b"".join([frames.ack(self.number, ack.tag, multiple=ack.multiple) for ack in acks]))


async def _taken_by_the_tap(message: DeliveredMessage) -> None:
    """Stand in where the library wants a callback; deliveries do not come this way."""
