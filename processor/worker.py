"""The worker: one host process, from its settings to a clean stop.

A worker lives in *tenures*. Each begins with a new host id and a fresh lease and ends when the worker is told
to stop, or when the lease is lost: then every copy is dropped, the channels are closed so that unacked messages
return, and the next tenure begins.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from random import Random

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Publisher
from holdfast.processor.broker.topology import Topology, declare_at_last
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.environment import Environment, RealEnvironment
from holdfast.processor.engine.provider import PersistenceProvider
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.language.app import App
from holdfast.processor.process import run_until_signalled
from holdfast.processor.services.control_intake import ControlIntake
from holdfast.processor.services.detection import Detection
from holdfast.processor.services.feed import feed
from holdfast.processor.services.intake import Intake
from holdfast.processor.services.lease import keep_lease
from holdfast.processor.services.monitoring_port import monitoring_port
from holdfast.processor.services.projector import Projector
from holdfast.processor.services.relay import Relay
from holdfast.processor.services.sharing import Sharing
from holdfast.processor.services.unless import unless
from holdfast.processor.services.worker_metrics import Tenure
from holdfast.processor.services.worker_monitor import WorkerMonitor
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.schemas.errors import StorageError
from holdfast.schemas.postgres.check import check
from holdfast.schemas.settings import Settings

log = structlog.get_logger("holdfast.worker")

FREEING = 5.0
"""Seconds that the database has to free the locks of a host that ends."""


def run(app: App, settings: Settings) -> None:
    """Run a worker for ``app`` until SIGTERM or SIGINT; a second signal ends it at once.

    Raises ``SettingsError``, ``StorageError`` or ``BrokerError`` if it cannot start.
    """
    # Thousands of idle instances are long-lived data, to be looked through again and again for cycles, of which
    # the engine makes few.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    run_until_signalled(partial(serve, app, settings))


async def serve(app: App, settings: Settings, *, stop: asyncio.Event, environment: Environment | None = None) -> None:
    """Work for ``app`` until ``stop`` is set, then end in order: bursts end, locks are freed."""
    app.check()
    settings.require("database_url", "amqp_url")
    if not await check(settings.database_url):
        log.warning("epoch not raised", mend="run `holdfast migrate`")
    provider = PostgresProvider(
        settings.database_url,
        app.name,
        user_connections=settings.user_connections,
        transaction_timeout=settings.transaction_timeout,
    )
    runtime = Runtime(
        app,
        provider,
        environment or RealEnvironment(),
        settings,
        machine=socket.gethostname(),
        process_id=os.getpid(),
    )
    topology = Topology(app.name, settings.partitions, app.activity_queues)
    random = Random()  # noqa: S311  It spreads reconnections over time, nothing else.
    name = f"holdfast {app.name} {os.getpid()}"
    incoming, outgoing = _connection(settings, f"{name} in", random), _connection(settings, f"{name} out", random)
    monitor = WorkerMonitor(runtime, {"rabbitmq_in": incoming, "rabbitmq_out": outgoing})
    try:
        # The port is there first: a worker that waits for RabbitMQ is alive.
        async with aclosing(monitor), monitoring_port(monitor, settings), AsyncExitStack() as stack:
            await unless(stop, _connect(stack, incoming, outgoing, topology))
            while not stop.is_set():
                await _tenure(monitor, runtime, topology, incoming, Publisher(outgoing), random=random, stop=stop)
            # Both at once: a broker that is silent is waited for once.
            await asyncio.gather(incoming.close(), outgoing.close())
    finally:
        await provider.close()
    log.info("stopped", app=app.name)


async def _connect(stack: AsyncExitStack, incoming: Connection, outgoing: Connection, topology: Topology) -> None:
    await stack.enter_async_context(incoming)
    await stack.enter_async_context(outgoing)
    await declare_at_last(incoming, topology)


def _connection(settings: Settings, name: str, random: Random) -> Connection:
    return Connection(settings.amqp_url, name=name, heartbeat=settings.heartbeat, random=random, patience=None)


async def _tenure(
    monitor: WorkerMonitor,
    runtime: Runtime,
    topology: Topology,
    incoming: Connection,
    publisher: Publisher,
    *,
    random: Random,
    stop: asyncio.Event,
) -> None:
    """Be one host, until it is to stop or has lost its lease."""
    try:
        await runtime.open()
    except StorageError as error:
        log.warning("no lease", error=str(error))
        await runtime.environment.sleep(1.0)
        return
    log.info("started", app=runtime.app.name, host_id=str(runtime.host_id), partitions=topology.partitions)
    engine = Engine(runtime)
    relay = Relay(runtime, publisher)
    detection = Detection(engine)
    runtime.publish = relay.offer
    runtime.hint = detection.hint
    intake = Intake(engine, incoming, topology, random=random)
    sharing = Sharing(engine, intake, incoming, topology)
    subscriptions = [*runtime.app.subscriptions]
    if runtime.settings.event_feed:
        subscriptions.append(feed(runtime.app.name, publisher))
    projector = Projector(subscriptions, runtime.settings, runtime.environment)
    works = [detection.run(), relay.run(), _listen(runtime.provider, detection, sharing)]
    if subscriptions:
        works.append(projector.run())
    loops = [asyncio.create_task(work) for work in works]
    lease = asyncio.create_task(keep_lease(runtime))
    stopping = asyncio.create_task(stop.wait())
    try:
        async with intake, ControlIntake(runtime, incoming, topology, random=random):
            monitor.tenure = Tenure(engine, relay, intake)
            keeping = asyncio.create_task(sharing.run())
            await asyncio.wait([lease, stopping, keeping, *loops], return_when=asyncio.FIRST_COMPLETED)
            await _end([keeping])
            # What comes from now on goes back when the channels are closed.
            intake.pause()
            if stop.is_set():
                await _drain(engine, relay, runtime)
            await engine.abandon_all()
            if not lease.done():
                await _close(runtime)
        if lease.done():
            # There is nothing left to free, and others are not to wait for the messages while the store says so.
            await _close(runtime)
    finally:
        monitor.tenure = None
        try:
            await _end([lease, stopping, *loops])
        finally:
            await projector.close()


async def _drain(engine: Engine, relay: Relay, runtime: Runtime) -> None:
    """Let bursts end, and then messages go out, in the one ``shutdown_grace`` that they share.

    What has no confirm by then is in the outbox, and goes out from there by another host.
    """
    monotonic = runtime.environment.monotonic
    deadline = monotonic() + runtime.settings.shutdown_grace
    if not await engine.drain(runtime.settings.shutdown_grace):
        log.warning("bursts cut short")
    await relay.drain(deadline - monotonic())


async def _close(runtime: Runtime) -> None:
    # What cannot be freed is free once the lease has lapsed.
    with suppress(StorageError, OutOfTime):
        await within(runtime.environment, FREEING, runtime.provider.close_host(runtime.host_id))


async def _listen(provider: PersistenceProvider, detection: Detection, sharing: Sharing) -> None:
    async for hint in provider.listen():
        detection.hint()
        if hint == "hosts":
            sharing.hint()


async def _end(tasks: list[asyncio.Task[object]]) -> None:
    """Cancel what still runs; a loop that ended by itself has failed, and its error goes on."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
