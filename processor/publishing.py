"""Publishing to an app: what the client does with RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from random import SystemRandom

from holdfast.processor import tracing
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Fate, Publisher
from holdfast.processor.broker.topology import Topology
from holdfast.schemas.errors import BrokerError
from holdfast.schemas.message import Envelope

_HEARTBEAT = 60
_PATIENCE = 5.0
"""Seconds that RabbitMQ may take to let the client in."""
_TRIES = 3
"""How often a message is published of which nobody can tell whether it was taken; its id makes up for doubles."""


class AppPublisher:
    """Publishes to the exchange of one app; it connects with the first message."""

    def __init__(self, amqp_url: str, app: str) -> None:
        self._app = app
        self._exchange = Topology(app).exchange
        name = f"holdfast client of {app}"
        self._connection = Connection(
            amqp_url, name=name, heartbeat=_HEARTBEAT, random=SystemRandom(), patience=_PATIENCE
        )
        self._publisher: Publisher | None = None
        self._opening = asyncio.Lock()
        self._closing = AsyncExitStack()

    async def publish(self, envelopes: Iterable[Envelope]) -> None:
        """Publish messages in this order, many in flight together; return once each one is confirmed.

        Raises ``BrokerError`` that names the first message which was not taken; later ones may have been.
        """
        publisher = await self._open()
        with self._sending(envelopes) as waiting:
            await self._publish(publisher, waiting)

    @contextmanager
    def _sending(self, envelopes: Iterable[Envelope]) -> Iterator[list[Envelope]]:
        """Give each message the trace context that it is to carry, unless it has one, and tell of its sending."""
        tracer = tracing.tracer()
        if tracer is None:
            traceparent = tracing.current()
            yield [replace(e, traceparent=e.traceparent or traceparent) for e in envelopes]
            return
        spans = [(each, tracing.send(tracer, each, self._exchange, "")) for each in envelopes]
        problem = None
        try:
            yield [replace(e, traceparent=e.traceparent or tracing.traceparent_of(span)) for e, span in spans]
        except BrokerError as error:
            problem = str(error)
            raise
        finally:
            for _, span in spans:
                tracing.sent(span, problem, BrokerError.__name__)

    async def _publish(self, publisher: Publisher, waiting: list[Envelope]) -> None:
        for attempt in range(1, _TRIES + 1):
            sent = [await publisher.send(self._exchange, "", envelope) for envelope in waiting]
            failed = []
            for envelope, receipt in zip(waiting, [await it for it in sent], strict=True):
                if receipt.fate is Fate.UNROUTABLE:
                    raise BrokerError(
                        f"message {envelope.message_id!r} was not taken: {receipt.reason}; the first worker of app "
                        f"{self._app} that starts makes the exchange and its queues"
                    )
                if receipt.fate is Fate.FAILED:
                    failed.append(envelope)
                    if attempt == _TRIES:
                        raise BrokerError(f"message {envelope.message_id!r} was not confirmed: {receipt.reason}")
            if not failed:
                return
            waiting = failed

    async def close(self) -> None:
        """Close the connection."""
        await self._closing.aclose()

    async def _open(self) -> Publisher:
        async with self._opening:
            if self._publisher is None:
                self._publisher = Publisher(await self._closing.enter_async_context(self._connection))
        return self._publisher
