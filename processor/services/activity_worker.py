"""Does the activities of one queue: takes requests, runs them, publishes how they ended.

A request stays unacked until the broker has confirmed its result, so what a worker was busy with when it died comes to
another one. So an activity on a queue runs at least once, under one idempotency key. Of several results of one request
the first counts; the app rejects the others as late.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, Self

import structlog

from holdfast.processor import tracing
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.delivery import Delivery, check_size
from holdfast.processor.broker.publisher import MAX_BODY_BYTES, Fate, Publisher
from holdfast.processor.broker.topology import Topology, declare_activities
from holdfast.processor.engine.cut_short import cut_short
from holdfast.processor.engine.environment import Environment, RealEnvironment
from holdfast.processor.engine.performing import failed, perform
from holdfast.processor.language.app import App
from holdfast.processor.services.activity_monitor import ActivityMonitor
from holdfast.processor.services.first_of import first_of
from holdfast.processor.services.monitoring_port import monitoring_port
from holdfast.processor.services.unless import unless
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult
from holdfast.schemas.errors import AppError, InvalidMessage
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings

log = structlog.get_logger("holdfast.activities")

PAUSE = 1.0
"""Seconds before a result is published again that the broker did not take."""

BEATS = 3
"""Heartbeats in the time within which one must come."""


async def serve(
    app: App,
    queues: Sequence[str],
    settings: Settings,
    *,
    stop: asyncio.Event,
    environment: Environment | None = None,
) -> None:
    """Do the activities of ``app`` on these queues, or on all that it has, until ``stop`` is set.

    What runs then gets ``shutdown_grace`` seconds to end. Raises ``AppError`` for a queue that no activity is on.
    """
    app.check()
    settings.require("amqp_url")
    queues = queues_of(app, queues)
    environment = environment or RealEnvironment()
    random = Random()  # noqa: S311  It spreads reconnections over time, nothing else.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(queues) * settings.activity_prefetch))
    name = f"holdfast activities {app.name} {os.getpid()}"
    connect = partial(Connection, settings.amqp_url, heartbeat=settings.heartbeat, random=random, patience=None)
    incoming, outgoing = connect(name=f"{name} in"), connect(name=f"{name} out")
    publisher = Publisher(outgoing)
    worker_of = partial(ActivityWorker, environment=environment, settings=settings, random=random)
    workers = [worker_of(app, queue, incoming, publisher) for queue in queues]
    monitor = ActivityMonitor(app.name, workers, {"rabbitmq_in": incoming, "rabbitmq_out": outgoing}, environment)
    # The port is there first: a worker that waits for RabbitMQ is alive.
    async with monitoring_port(monitor, settings), AsyncExitStack() as stack:
        if await unless(stop, _begin(stack, app, workers, incoming, outgoing)):
            log.info("started", app=app.name, queues=queues)
            await stop.wait()
            for worker in workers:
                worker.pause()
            await first_of(_drain(workers), environment.sleep(settings.shutdown_grace))
    log.info("stopped", app=app.name)


async def _begin(
    stack: AsyncExitStack, app: App, workers: Sequence[ActivityWorker], incoming: Connection, outgoing: Connection
) -> None:
    await stack.enter_async_context(incoming)
    await stack.enter_async_context(outgoing)
    await declare_activities(incoming, Topology(app.name, activities=tuple(worker.queue for worker in workers)))
    for worker in workers:
        await stack.enter_async_context(worker)


def queues_of(app: App, queues: Sequence[str]) -> Sequence[str]:
    """Return the queues to be served: these, or all that the app has; ``AppError`` if there is no such queue."""
    known = app.activity_queues
    for queue in queues:
        if queue not in known:
            raise AppError(f"app {app.name} has no activity on queue {queue!r}; it has {', '.join(known) or 'none'}")
    if not known:
        raise AppError(f"app {app.name} has no activity on a queue: declare one with @app.activity(queue='…')")
    return queues or known


async def _drain(workers: Sequence[ActivityWorker]) -> None:
    for worker in workers:
        await worker.drain()


@dataclass(slots=True)
class _Job:
    """A request that is being served, since ``begun``, on the monotonic clock.

    ``delivery`` is the latest of it, as a lost connection brings it again.
    """

    delivery: Delivery
    task: asyncio.Task[None]
    begun: float


class ActivityWorker:
    """Serves one queue while the ``async with`` block lasts.

    ``counts`` are the requests whose result is out, by queue, activity and outcome.
    """

    def __init__(
        self,
        app: App,
        queue: str,
        connection: Connection,
        publisher: Publisher,
        *,
        environment: Environment,
        settings: Settings,
        random: Random,
    ) -> None:
        self._app = app
        topology = Topology(app.name)
        self._publisher = publisher
        self._environment = environment
        self._exchange = topology.activity_exchange
        self._tracer = tracing.tracer()
        self._max_body_bytes = settings.max_body_bytes
        self.queue = queue
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._jobs: dict[str, _Job] = {}
        self._consumer = Consumer(
            connection,
            topology.activity_queue(queue),
            self._take,
            random=random,
            prefetch=settings.activity_prefetch,
            max_body_bytes=MAX_BODY_BYTES,
        )

    async def __aenter__(self) -> Self:
        await self._consumer.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give what has not ended back to the queue."""
        if count := await cut_short([job.task for job in self._jobs.values()]):
            log.warning("cancellation not heeded", tasks=count)
        await self._consumer.close()

    @property
    def begun(self) -> list[float]:
        """When each activity that runs was begun, on the monotonic clock."""
        return [job.begun for job in self._jobs.values()]

    @property
    def is_consuming(self) -> bool:
        """Whether the queue is consumed now."""
        return self._consumer.is_consuming

    def pause(self) -> None:
        """Begin nothing new."""
        self._consumer.pause()

    async def drain(self) -> None:
        """Return once everything that was begun has ended."""
        while self._jobs:
            await asyncio.wait([job.task for job in self._jobs.values()])

    def _take(self, delivery: Delivery) -> None:
        try:
            request, envelope = _read(delivery)
        except InvalidMessage as error:
            log.warning("no request", reason=error.reason, detail=error.detail, queue=self._consumer.queue)
            self._consumer.reject(delivery)
            return
        job = self._jobs.get(request.request)
        if job is not None:
            job.delivery = delivery
            return
        task = asyncio.create_task(self._serve(request, envelope))
        self._jobs[request.request] = _Job(delivery, task, self._environment.monotonic())

    async def _serve(self, request: ActivityRequest, asked: Envelope) -> None:
        try:
            with self._span(request, asked):
                async with self._beating(request):
                    result = await perform(
                        self._app,
                        request,
                        environment=self._environment,
                        now=_now,
                        tell=partial(_log_failure, request),
                        carried=asked.traceparent,
                        tracer=self._tracer,
                    )
                await self._answer(request, self._fitting(result), asked.traceparent)
            self._consumer.settle(self._jobs[request.request].delivery)
            self.counts[self.queue, request.activity, result.outcome] += 1
        except Exception:
            # It stays unacked, so the broker gives it to another worker once this one is gone.
            log.exception("not served", **_about(request))
        finally:
            del self._jobs[request.request]

    def _span(self, request: ActivityRequest, asked: Envelope) -> AbstractContextManager[None]:
        if self._tracer is None:
            return nullcontext()
        about = {"instance_id": str(request.instance_id), "workflow": request.workflow, "app": self._app.name}
        return tracing.process(self._tracer, asked, self._exchange, self.queue, **about)

    def _fitting(self, result: ActivityResult) -> Envelope:
        """Return a result as a message that the app takes in."""
        envelope = self._envelope(result)
        try:
            check_size(envelope.body, self._max_body_bytes)
            ActivityResult.parse(envelope)
        except InvalidMessage as error:
            return self._envelope(failed(result.request, error, self._app.types))
        return envelope

    async def _answer(self, request: ActivityRequest, result: Envelope, carried: str | None) -> None:
        span = None if self._tracer is None else tracing.send(self._tracer, result, request.reply_to, "")
        result = replace(result, traceparent=carried if span is None else tracing.traceparent_of(span))
        while True:
            receipt = await self._publisher.publish(request.reply_to, "", result)
            if receipt.fate is Fate.CONFIRMED:
                if span is not None:
                    tracing.sent(span)
                return
            log.warning("result not taken", reason=receipt.reason, **_about(request))
            await self._environment.sleep(PAUSE)

    @asynccontextmanager
    async def _beating(self, request: ActivityRequest) -> AsyncIterator[None]:
        """Say again and again that this worker is busy with a request, if somebody wants to hear it."""
        if request.heartbeat is None:
            yield
            return
        beating = asyncio.create_task(self._beat(request, request.heartbeat))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _beat(self, request: ActivityRequest, seconds: float) -> None:
        while True:
            beat = ActivityHeartbeat(request=request.request, seconds=seconds)
            await self._publisher.publish(request.reply_to, "", self._envelope(beat))
            await self._environment.sleep(seconds / BEATS)

    def _envelope(self, message: Message) -> Envelope:
        return message.envelope(str(self._environment.new_id()))


def _log_failure(request: ActivityRequest, error: BaseException) -> None:
    log.warning("failed", exc_info=error, **_about(request))


def _about(request: ActivityRequest) -> dict[str, Any]:
    """Return what log lines say of a request."""
    return {
        "activity": request.activity,
        "instance_id": str(request.instance_id),
        "idempotency_key": request.call,
        "attempt": request.attempt,
    }


def _now() -> datetime:
    return datetime.now(UTC)


def _read(delivery: Delivery) -> tuple[ActivityRequest, Envelope]:
    if delivery.envelope is None:
        raise delivery.problem or InvalidMessage("invalid_body", "there is no message")
    if delivery.envelope.type != ActivityRequest.message_type:
        raise InvalidMessage("unknown_type", f"a queue of activities takes no {delivery.envelope.type!r}")
    return ActivityRequest.parse(delivery.envelope), delivery.envelope
