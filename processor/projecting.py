"""A process that runs an app's projections and event feed, and no workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Publisher
from holdfast.processor.broker.topology import Topology, declare_events
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.language.app import App
from holdfast.processor.process import run_until_signalled
from holdfast.processor.services import rebuild as rebuilding
from holdfast.processor.services.feed import feed
from holdfast.processor.services.first_of import first_of
from holdfast.processor.services.projector import Projector
from holdfast.processor.store.connections import Connections
from holdfast.projections.lag import Progress
from holdfast.schemas.errors import AppError, ProjectionNotFound
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
    async with _projector(app, settings) as projector:
        log.info("started", app=app.name, projections=[*app.projections])
        await first_of(projector.run(), stop.wait())
    log.info("stopped", app=app.name)


async def catch_up(app: App, settings: Settings) -> None:
    """Run projections up to the end of the log; raises as ``Projector.catch_up``."""
    async with _projector(app, settings) as projector:
        await projector.catch_up()


async def rebuild(app: App, name: str, settings: Settings, *, restart: bool = False) -> AsyncIterator[Progress]:
    """Rebuild one of the app's projections, and yield how far that is; see ``rebuild.rebuild``.

    Raises ``ProjectionNotFound`` for a name that the app does not know.
    """
    found = [subscription for subscription in app.subscriptions if subscription.name == name]
    if not found:
        raise ProjectionNotFound(name)
    await check(settings.database_url)
    connections = Connections(settings.database_url, limit=1)
    try:
        async for progress in rebuilding.rebuild(connections, found[0], settings, RealEnvironment(), restart=restart):
            yield progress
    finally:
        await connections.close()


@asynccontextmanager
async def _projector(app: App, settings: Settings) -> AsyncIterator[Projector]:
    if not app.projections and not settings.event_feed:
        raise AppError(f"app {app.name} has no projections")
    await check(settings.database_url)
    async with AsyncExitStack() as closing:
        subscriptions = [*app.subscriptions]
        if settings.event_feed:
            subscriptions.append(feed(app.name, Publisher(await _connect(closing, app, settings))))
        projector = Projector(subscriptions, settings, RealEnvironment())
        closing.push_async_callback(projector.close)
        yield projector


async def _connect(closing: AsyncExitStack, app: App, settings: Settings) -> Connection:
    settings.require("amqp_url")
    random = Random()  # noqa: S311  It spreads reconnections over time, nothing else.
    name = f"holdfast projector of {app.name}"
    connection = await closing.enter_async_context(
        Connection(settings.amqp_url, name=name, heartbeat=settings.heartbeat, random=random)
    )
    await declare_events(connection, Topology(app.name))
    return connection
