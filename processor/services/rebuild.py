"""Rebuilds a projection beside its tables, and lets the new ones take their place."""

from __future__ import annotations

from collections.abc import AsyncIterator

from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.follower import Follower
from holdfast.processor.services.reading_ahead import ReadingAhead
from holdfast.processor.store.connections import Connections
from holdfast.projections import lag
from holdfast.projections.definition import Subscription
from holdfast.projections.lag import Progress
from holdfast.projections.subscription import Build, checkpoint
from holdfast.schemas.errors import ProjectionStopped, RebuildRefused
from holdfast.schemas.settings import Settings

_PAUSE = 0.1
"""Seconds before another look, where another process is at work on the same."""

_PATIENCE = 1.0
"""Seconds before another look, where other people's transactions are waited for."""


async def rebuild(
    connections: Connections,
    subscription: Subscription,
    settings: Settings,
    environment: Environment,
    *,
    restart: bool = False,
) -> AsyncIterator[Progress]:
    """Compute a projection's tables anew, and yield how far that is, at first and after every page.

    Readers find the tables as they were until the new ones, whole, stand in their place; what happens meanwhile is in
    both. Transactions that began before these were whole are waited for, however long that takes. A rebuild that was
    interrupted is gone on with, unless ``restart``. There are two ``connections`` at least. Raises ``RebuildRefused``,
    also where somebody drops what it has built, and ``ProjectionStopped`` at an event that a handler cannot take,
    behind which it can be gone on with.
    """
    build, ahead = Build(subscription, "next"), ReadingAhead(connections)
    follower = Follower(connections, build, timeout=settings.transaction_timeout, read=ahead.read)
    live = Build(subscription, "live")
    before = await connections.run(lambda connection: checkpoint(connection, live))
    await follower.begin(restart=restart)
    try:
        while (progress := await connections.run(lambda connection: lag.progress(connection, build))) is not None:
            yield progress
            if progress.stopped_by is not None:
                raise ProjectionStopped(subscription.name, progress.stopped_by)
            step = await follower.step()
            if not step.is_more and (step.is_elsewhere or not await follower.promote()):
                await environment.sleep(_PATIENCE if follower.is_waiting else _PAUSE)
    finally:
        await ahead.close()
    after = await connections.run(lambda connection: checkpoint(connection, live))
    if after is None or (before is not None and before.begun_at == after.begun_at):
        raise RebuildRefused(subscription.name, f"what was built of {subscription.name} has been dropped meanwhile")
