"""Runs the subscriptions of an app: each one follows the log by itself, so that a slow one holds up no other.

Several processes may do so at the same time; of each subscription one of them handles a page at a time, whoever comes
first. What is new is looked for every so often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf

import psycopg
import structlog

from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.follower import Follower
from holdfast.processor.store.connections import Connections, failure
from holdfast.projections import builds
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Build, Checkpoint, checkpoint, is_transient
from holdfast.schemas.errors import BrokerError, ProjectionError, ProjectionStopped, StorageError, UnreadableEvent
from holdfast.schemas.settings import Settings

log = structlog.get_logger("holdfast.projections")

PAUSE = 5.0
"""Seconds before what failed is tried again."""

_SWEEP = 60.0
"""Seconds between two tries to drop tables that newer ones have taken the place of."""

_LOOK = 0.05
"""Seconds between two looks at what another process has in hand."""

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
        """Follow the log to where it ends now, one subscription after the other.

        A first build waits for transactions that began before it was whole, however long these take.
        Raises as ``Follower.step``, and ``ProjectionError`` if tables cannot be created; once all have come as far as
        they can, ``ProjectionStopped`` if one stands still, and ``ProjectionError`` if tables are of another version.
        """
        left: ProjectionError | None = None
        for subscription in self._subscriptions:
            left = await self._catch_up(subscription) or left
        if left is not None:
            raise left

    def follower(self, build: Build) -> Follower:
        """Return what runs a build."""
        return Follower(self._connections, build, timeout=self._settings.transaction_timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def _catch_up(self, subscription: Subscription) -> ProjectionError | None:
        """Follow the log for one subscription until it has tables that are where it ends; return why it has not."""
        follower = await self._register(subscription)
        while True:
            step = await follower.step()
            if not step.is_more and not step.is_elsewhere:
                found = await self._find(follower.build)
                if found is not None and found.version != subscription.version:
                    return ProjectionError(
                        subscription.name,
                        f"the tables of projection {subscription.name} are of version {found.version}, and the code is "
                        f"of {subscription.version}: rebuild it",
                    )
                if (error := await follower.stopped_by()) is not None:
                    return ProjectionStopped(subscription.name, error)
                if follower.build.stage == "live" or await follower.promote():
                    return None
                follower = await self._look_anew(follower)
            await self._environment.sleep(0 if step.is_more else _LOOK)

    async def _follow(self, subscription: Subscription) -> None:
        follower: Follower | None = None
        swept = -inf
        while True:
            try:
                if follower is None:
                    follower = await self._register(subscription)
                step = await follower.step()
                if follower.build.stage == "next" and not step.is_more:
                    if not step.is_elsewhere:
                        await follower.promote()
                    follower = await self._look_anew(follower)
                elif not step.is_more and (now := self._environment.monotonic()) >= swept + _SWEEP:
                    swept = now
                    await follower.drop_old(patience=0.1)  # Who waits for a lock holds other readers of the log up.
                pause = 0.0 if step.is_more else self._settings.projection_poll
            except (StorageError, BrokerError, ProjectionError, UnreadableEvent) as error:
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
        except psycopg.Error as error:
            if is_transient(error):
                raise failure(error) from error
            raise ProjectionError(
                subscription.name, f"the tables of projection {subscription.name} cannot be created: {error}"
            ) from error
        if build.stage == "live":
            await self._compare_versions(build)
        return self.follower(build)

    async def _look_anew(self, follower: Follower) -> Follower:
        """Return what runs the build that there is to be run by now: what was built may be another's affair."""
        found = await self._register(follower.subscription)
        return follower if found.build == follower.build else found

    async def _compare_versions(self, build: Build) -> None:
        """Say so if the tables are of another version than the code, which then leaves them alone."""
        found = await self._find(build)
        if found is not None and found.version != build.subscription.version:
            log.warning(
                "projection left alone",
                projection=build.subscription.name,
                tables=found.version,
                code=build.subscription.version,
            )

    async def _find(self, build: Build) -> Checkpoint | None:
        return await self._connections.run(lambda connection: checkpoint(connection, build))
