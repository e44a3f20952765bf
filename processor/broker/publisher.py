"""Publishes with confirms, many messages in flight together, and tells of each what became of it.

Every exchange has a channel of its own: an exchange that is missing, or that this user may not write to,
costs a channel its life, and so takes down only what was on its way to the same exchange. Messages that
are ``mandatory`` and find no queue come back before their confirm; a returned message is known by its id,
so one id is never on its way twice at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from holdfast.processor.broker import frames
from holdfast.processor.broker.channel import Channel, describe
from holdfast.processor.broker.connection import Connection, State
from holdfast.processor.broker.frames import Properties, Publishable
from holdfast.processor.engine.provider import Outgoing
from holdfast.schemas.errors import BrokerError

IN_FLIGHT = 1000
MAX_BODY_BYTES = 16 << 20
"""What RabbitMQ 4 takes, unless configured otherwise; more would cost the channel its life."""


class Fate(StrEnum):
    """What became of a published message."""

    CONFIRMED = "confirmed"
    """The broker has it safe in every queue that it belongs to."""
    UNROUTABLE = "unroutable"
    """No queue takes it, and none will unless somebody changes the topology or the message."""
    FAILED = "failed"
    """Nobody can tell, as the connection broke, or the broker could not take it now: publish it again."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The fate of one message, with the reason if it is not confirmed."""

    fate: Fate
    reason: str = ""


CONFIRMED = Receipt(Fate.CONFIRMED)


class Publisher:
    """Publishes on a connection of its own; at most ``in_flight`` messages wait for their confirm."""

    def __init__(self, connection: Connection, *, in_flight: int = IN_FLIGHT) -> None:
        self._connection = connection
        self._room = asyncio.Semaphore(in_flight)
        self._lanes: dict[str, _Lane] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    async def publish(self, exchange: str, routing_key: str, message: Publishable) -> Receipt:
        """Publish one message and return what became of it.

        Waits while the broker cannot be reached or takes nothing; raises ``BrokerError`` only if the
        connection is closed for good.
        """
        return await (await self.send(exchange, routing_key, message))

    async def publish_all(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        """Publish messages in this order and return what became of each."""
        sent = [await self.send(m.exchange, m.routing_key, m) for m in messages]
        return [await receipt for receipt in sent]

    async def send(
        self,
        exchange: str,
        routing_key: str,
        message: Publishable,
        *,
        mandatory: bool = True,
        headers: Mapping[str, str] | None = None,
        unless: asyncio.Event | None = None,
    ) -> asyncio.Future[Receipt]:
        """Put one message on its way and return the future receipt; calls one after the other keep their order.

        One that is not ``mandatory`` is confirmed, too, if no queue is bound for it. ``headers`` come beside its trace
        context. If ``unless`` is set by the time that the connection takes it, it fails and is not sent. Cancelling the
        future does not stop the message.
        """
        await self._room.acquire()
        try:
            receipt = await self._send(
                exchange, routing_key, message, mandatory=mandatory, headers=headers, unless=unless
            )
        except BaseException:
            self._room.release()
            raise
        receipt.add_done_callback(lambda _: self._room.release())
        return receipt

    async def _send(
        self,
        exchange: str,
        routing_key: str,
        message: Publishable,
        *,
        mandatory: bool,
        headers: Mapping[str, str] | None,
        unless: asyncio.Event | None,
    ) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if len(message.body) > MAX_BODY_BYTES:
            receipt.set_result(Receipt(Fate.UNROUTABLE, f"the body is larger than {MAX_BODY_BYTES} bytes"))
            return receipt
        while True:
            if await self._connection.until(State.OPEN, State.CLOSED) is State.CLOSED:
                raise BrokerError("cannot publish: the connection to RabbitMQ is closed")
            try:
                lane = await self._lane(exchange)
            except BrokerError as error:
                receipt.set_result(Receipt(Fate.FAILED, describe(error)))
                return receipt
            earlier = lane.waiting_for(message.message_id)
            if earlier is None:
                break
            await asyncio.wait([earlier])
        if unless is not None and unless.is_set():
            receipt.set_result(Receipt(Fate.FAILED, "a message before it failed"))
            return receipt
        try:
            lane.send(routing_key, message, receipt, mandatory=mandatory, headers=headers)
        except ValueError as error:
            receipt.set_result(Receipt(Fate.UNROUTABLE, describe(error)))
        return receipt

    async def _lane(self, exchange: str) -> _Lane:
        lane = self._lanes.get(exchange)
        if lane is not None and lane.is_open:
            return lane
        async with self._opening.setdefault(exchange, asyncio.Lock()):
            lane = self._lanes.get(exchange)
            if lane is None or not lane.is_open:
                lane = self._lanes[exchange] = await self._connection.open(_Lane(exchange), confirms=True)
        return lane


class InOrder:
    """Sends messages one behind the other: once one has failed, none that is not on the wire yet is sent.

    So what a broken connection took with it does not come behind what is sent on the next one.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._failed = asyncio.Event()

    async def send(
        self,
        exchange: str,
        routing_key: str,
        message: Publishable,
        *,
        mandatory: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> asyncio.Future[Receipt]:
        """Put one message on its way, as ``Publisher.send`` does."""
        receipt = await self._publisher.send(
            exchange, routing_key, message, mandatory=mandatory, headers=headers, unless=self._failed
        )
        if receipt.done():
            self._note(receipt)  # At once: the next one may be sent before the loop calls anybody back.
        else:
            receipt.add_done_callback(self._note)
        return receipt

    def _note(self, receipt: asyncio.Future[Receipt]) -> None:
        if receipt.cancelled() or receipt.result().fate is not Fate.CONFIRMED:
            self._failed.set()


class _Lane(Channel):
    """The channel to one exchange, with the messages that wait for their confirm."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._last_tag = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[Receipt]]] = {}
        self._tags: dict[str, int] = {}
        self._returned: dict[int, str] = {}

    def waiting_for(self, message_id: str) -> asyncio.Future[Receipt] | None:
        """Return the receipt of the message with this id that is on its way, if there is one."""
        tag = self._tags.get(message_id)
        return None if tag is None else self._waiting[tag][1]

    def send(
        self,
        routing_key: str,
        message: Publishable,
        receipt: asyncio.Future[Receipt],
        *,
        mandatory: bool,
        headers: Mapping[str, str] | None,
    ) -> None:
        """Write a message, or raise ``ValueError`` if it has no form on the wire."""
        self.write(
            frames.publish(
                self.number,
                self._exchange,
                routing_key,
                message,
                self.frame_max,
                mandatory=mandatory,
                headers=headers,
            )
        )
        # The broker numbers what it gets on a channel from 1 and names these numbers in its confirms.
        self._last_tag += 1
        self._waiting[self._last_tag] = message.message_id, receipt
        self._tags[message.message_id] = self._last_tag

    def returned(self, reason: str, properties: Properties) -> None:
        tag = self._tags.get(properties.message_id or "")
        if tag is not None:
            self._returned[tag] = reason

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        receipt = CONFIRMED if taken else Receipt(Fate.FAILED, "the broker could not take the message")
        if not multiple:
            self._settle(tag, receipt)
            return
        due = []
        for waiting in self._waiting:
            if waiting > tag:
                break
            due.append(waiting)
        for waiting in due:
            self._settle(waiting, receipt)

    def end(self, reason: Exception) -> None:
        super().end(reason)
        match reason:
            case ChannelNotFoundEntity():
                receipt = Receipt(Fate.UNROUTABLE, f"there is no exchange {self._exchange!r}")
            case ChannelAccessRefused():
                receipt = Receipt(Fate.UNROUTABLE, describe(reason))
            case _:
                receipt = Receipt(Fate.FAILED, describe(reason))
        for tag in list(self._waiting):
            self._settle(tag, receipt)

    def _settle(self, tag: int, receipt: Receipt) -> None:
        if tag not in self._waiting:
            return
        message_id, future = self._waiting.pop(tag)
        del self._tags[message_id]
        reason = self._returned.pop(tag, None)
        if not future.done():
            future.set_result(receipt if reason is None else Receipt(Fate.UNROUTABLE, reason))
