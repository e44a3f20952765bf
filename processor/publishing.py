"""Publishing to an app: what the client does with RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from random import SystemRandom
from typing import Any

from holdfast.processor import tracing
from holdfast.processor.broker.connection import Connection, State
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
    """Publishes to the exchange of one app; it connects with the first message.

    ``patience`` is how many seconds the broker may go on without confirming any message.
    """

    def __init__(self, amqp_url: str, app: str, *, patience: float = 30.0) -> None:
        self._app = app
        self._patience = patience
        self._answers = 0
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

        Raises ``BrokerError`` that names the first message which was not taken; later ones may have been. It raises
        the same if nothing was confirmed for ``patience`` seconds, and then nobody can tell which messages were taken.
        """
        publisher = await self._open()
        with self._sending(envelopes) as waiting:
            await self._while_it_moves(self._publish(publisher, waiting))

    async def _while_it_moves(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the publishing of messages, for as long as the broker answers for one or the other."""
        publishing = asyncio.ensure_future(work)
        try:
            while not publishing.done():
                before = self._answers
                await asyncio.wait([publishing], timeout=self._patience)
                if not publishing.done() and self._answers == before:
                    raise BrokerError(self._why_silent())
            publishing.result()
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])

    def _why_silent(self) -> str:
        blocked = "is short of memory or disk and takes no messages"
        silent = "does not answer"
        return (
            f"RabbitMQ at {self._connection.place} {blocked if self._connection.state is State.BLOCKED else silent}: "
            f"nothing was confirmed within {self._patience:g} s; publish again later, under the same message ids"
        )

    def _answered(self, _: object) -> None:
        self._answers += 1

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
            sent = []
            for envelope in waiting:
                sent.append(await publisher.send(self._exchange, "", envelope))
                sent[-1].add_done_callback(self._answered)
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
