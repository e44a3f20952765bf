"""Runs the subscriptions of an app: each one follows the log by itself, so that a slow one holds up no other.

Several processes may do so at the same time; of each subscription one of them handles a page at a time, whoever comes
first. What is new is looked for every so often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
import structlog

from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.follower import Follower
from holdfast.processor.store.connections import Connections, failure
from holdfast.projections import builds
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Build, checkpoint
from holdfast.schemas.errors import BrokerError, ProjectionError, ProjectionStopped, StorageError, UnreadableEvent
from holdfast.schemas.settings import Settings

log = structlog.get_logger("holdfast.projections")

PAUSE = 5.0
"""Seconds before what failed is tried again."""

CONNECTIONS = 4
"""How many subscriptions are at work at a time at most."""


class Projector:
    """The projector of one process."""

    def __init__(self, subscriptions: Sequence[Subscription], settings: Settings, environment: Environment) -> None:
        self._connections = Connections(settings.database_url, limit=CONNECTIONS)
        self._subscriptions = subscriptions
        self._settings = settings
        self._environment = environment

    async def run(self) -> None:
        """Follow the log for ever; nothing that fails stops the rest."""
        async with asyncio.TaskGroup() as group:
            for subscription in self._subscriptions:
                group.create_task(self._follow(subscription))

    async def catch_up(self) -> None:
        """Follow the log to where it ends now.

        Raises as ``Follower.step``, ``ProjectionError`` if tables cannot be created, and ``ProjectionStopped``, once
        all have come as far as they can, if one stands still.
        """
        stopped: ProjectionStopped | None = None
        for subscription in self._subscriptions:
            follower = await self._register(subscription)
            while (await follower.step()).is_more or await follower.is_due():
                await self._environment.sleep(0)  # Another process may be at work on the rest.
            if follower.build.stage == "next":
                await follower.promote()
            if (error := await follower.stopped_by()) is not None:
                stopped = stopped or ProjectionStopped(subscription.name, error)
        if stopped is not None:
            raise stopped

    def follower(self, build: Build) -> Follower:
        """Return what runs a build."""
        return Follower(self._connections, build, timeout=self._settings.transaction_timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def _follow(self, subscription: Subscription) -> None:
        follower: Follower | None = None
        while True:
            try:
                if follower is None:
                    follower = await self._register(subscription)
                is_more = (await follower.step()).is_more
                if follower.build.stage == "next" and not is_more:
                    # It is another's affair by now if it is not there any more, so it is looked at anew either way.
                    await follower.promote()
                    follower = None
                pause = 0.0 if is_more else self._settings.projection_poll
            except (StorageError, BrokerError, ProjectionError, UnreadableEvent, TimeoutError) as error:
                log.warning("projection not advanced", projection=subscription.name, error=repr(error))
                pause = PAUSE
            except Exception:
                log.exception("projection not advanced", projection=subscription.name)
                pause = PAUSE
            await self._environment.sleep(pause)

    async def _register(self, subscription: Subscription) -> Follower:
        """Make a subscription known to the database, and return what runs the build that there is to be run."""
        try:
            async with self._connections.take() as connection, connection.transaction():
                build = await builds.register(connection, subscription)
        except psycopg.OperationalError as error:
            raise failure(error) from error
        except psycopg.Error as error:
            raise ProjectionError(
                subscription.name, f"the tables of projection {subscription.name} cannot be created: {error}"
            ) from error
        if build.stage == "live":
            await self._compare_versions(build)
        return self.follower(build)

    async def _compare_versions(self, build: Build) -> None:
        """Say so if the tables are of another version than the code, which then leaves them alone."""
        found = await self._connections.run(lambda connection: checkpoint(connection, build))
        if found is not None and found.version != build.subscription.version:
            log.warning(
                "projection left alone",
                projection=build.subscription.name,
                tables=found.version,
                code=build.subscription.version,
            )
