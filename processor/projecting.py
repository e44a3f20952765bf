"""A process that runs an app's projections and event feed, and no workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from random import Random

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Publisher
from holdfast.processor.broker.topology import Topology, declare_events
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.following import compare
from holdfast.processor.language.app import App
from holdfast.processor.process import run_until_signalled
from holdfast.processor.services import as_of as as_of_place
from holdfast.processor.services import rebuild as rebuilding
from holdfast.processor.services.feed import feed
from holdfast.processor.services.first_of import first_of
from holdfast.processor.services.monitoring_port import monitoring_port
from holdfast.processor.services.projector import Projector
from holdfast.processor.services.projector_monitor import ProjectorMonitor
from holdfast.processor.store.connections import Connections
from holdfast.projections import scratch
from holdfast.projections.definition import Subscription
from holdfast.projections.lag import Progress
from holdfast.projections.rows import RowChange
from holdfast.projections.scratch import AsOf
from holdfast.schemas.errors import AppError, ProjectionNotFound, StorageError
from holdfast.schemas.postgres.check import check
from holdfast.schemas.settings import Settings

log = structlog.get_logger("holdfast.projections")


def run(app: App, settings: Settings) -> None:
    """Run projections until SIGTERM or SIGINT.

    Raises ``SettingsError``, ``StorageError`` or ``BrokerError`` if it cannot start.
    """
    run_until_signalled(partial(serve, app, settings))


async def serve(app: App, settings: Settings, *, stop: asyncio.Event) -> None:
    """Run projections until ``stop`` is set."""
    async with _projector(app, settings) as (projector, brokers):
        monitor = ProjectorMonitor(app.name, settings.database_url, brokers, RealEnvironment())
        async with aclosing(monitor), monitoring_port(monitor, settings):
            log.info("started", app=app.name, projections=[*app.projections])
            await first_of(projector.run(), stop.wait())
    log.info("stopped", app=app.name)


async def catch_up(app: App, settings: Settings) -> None:
    """Run projections up to the end of the log; raises as ``Projector.catch_up``."""
    async with _projector(app, settings) as (projector, _):
        await projector.catch_up()


async def rebuild(app: App, name: str, settings: Settings, *, restart: bool = False) -> AsyncIterator[Progress]:
    """Rebuild one of the app's projections, and yield how far that is; see ``rebuild.rebuild``.

    Raises ``ProjectionNotFound`` for a name that the app does not know.
    """
    subscription = _subscription(app, name)
    async with _connections(settings) as connections:
        async for progress in rebuilding.rebuild(
            connections, subscription, settings, RealEnvironment(), restart=restart
        ):
            yield progress


async def rebuild_as_of(
    app: App, name: str, settings: Settings, as_of: AsOf, into: str, *, restart: bool = False
) -> AsyncIterator[Progress]:
    """Rebuild one of the app's projections as of a place in the log into a schema, and yield how far that is.

    See ``as_of.rebuild_as_of``. Raises ``ProjectionNotFound`` for a name that the app does not know.
    """
    subscription = _subscription(app, name)
    async with _connections(settings) as connections:
        async for progress in as_of_place.rebuild_as_of(
            connections, subscription, settings, RealEnvironment(), as_of=as_of, into=into, restart=restart
        ):
            yield progress


async def diff(
    app: App,
    name: str,
    settings: Settings,
    before: str | AsOf,
    after: str | AsOf,
    *,
    watch: Callable[[AsyncIterator[Progress]], Awaitable[object]] | None = None,
) -> AsyncIterator[RowChange]:
    """Yield the rows in which one of the app's projections differs between two places in the log.

    Each is ``live``, the schema of a scratch, or a place or moment, for which one is built and dropped afterwards;
    ``watch`` is given how far that is. Raises as ``rebuild_as_of``, and ``ProjectionError`` for another schema.
    """
    subscription, environment = _subscription(app, name), RealEnvironment()
    async with _connections(settings) as connections, AsyncExitStack() as closing:
        schemas = []
        for side in (before, after):
            if isinstance(side, str):
                schemas.append(side)
                continue
            schema = f"{(subscription.schema or '')[:40]}__as_of_{environment.new_id().hex[-8:]}"
            await closing.enter_async_context(_dropped(connections, schema))
            progress = as_of_place.rebuild_as_of(
                connections, subscription, settings, environment, as_of=side, into=schema
            )
            await (_exhaust if watch is None else watch)(progress)
            schemas.append(schema)
        async with (
            await connections.open() as connection,
            aclosing(compare(connection, app.name, name, *schemas)) as changes,
        ):
            async for change in changes:
                yield change


@asynccontextmanager
async def _dropped(connections: Connections, schema: str) -> AsyncIterator[None]:
    """Drop a scratch at the end; what went wrong before is not hidden by what goes wrong then."""
    drop = partial(scratch.drop, schema=schema)
    try:
        yield
    except BaseException:
        with suppress(StorageError):
            await connections.run(drop)
        raise
    await connections.run(drop)


async def _exhaust(progress: AsyncIterator[Progress]) -> None:
    async for _ in progress:
        pass


def _subscription(app: App, name: str) -> Subscription:
    for subscription in app.subscriptions:
        if subscription.name == name:
            return subscription
    raise ProjectionNotFound(name)


@asynccontextmanager
async def _connections(settings: Settings) -> AsyncIterator[Connections]:
    await check(settings.database_url)
    connections = Connections(settings.database_url, limit=2)
    try:
        yield connections
    finally:
        await connections.close()


@asynccontextmanager
async def _projector(app: App, settings: Settings) -> AsyncIterator[tuple[Projector, dict[str, Connection]]]:
    """Give what runs projections, and its connections to RabbitMQ by name."""
    if not app.projections and not settings.event_feed:
        raise AppError(f"app {app.name} has no projections")
    if not await check(settings.database_url):
        log.warning("epoch not raised", mend="run `holdfast migrate`")
    async with AsyncExitStack() as closing:
        subscriptions, brokers = [*app.subscriptions], {}
        if settings.event_feed:
            brokers["rabbitmq"] = await _connect(closing, app, settings)
            subscriptions.append(feed(app.name, Publisher(brokers["rabbitmq"])))
        projector = Projector(subscriptions, settings, RealEnvironment())
        closing.push_async_callback(projector.close)
        yield projector, brokers


async def _connect(closing: AsyncExitStack, app: App, settings: Settings) -> Connection:
    settings.require("amqp_url")
    random = Random()  # noqa: S311  It spreads reconnections over time, nothing else.
    name = f"holdfast projector of {app.name}"
    connection = await closing.enter_async_context(
        Connection(settings.amqp_url, name=name, heartbeat=settings.heartbeat, random=random)
    )
    await declare_events(connection, Topology(app.name))
    return connection
