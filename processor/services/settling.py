"""Waits until the log is settled."""

from __future__ import annotations

from holdfast.processor.engine.environment import Environment
from holdfast.processor.store.connections import Connections
from holdfast.projections import horizon

_PAUSE = 0.1
"""Seconds before another look."""


async def settle(connections: Connections, environment: Environment) -> None:
    """Wait until every transaction has ended that runs now: nothing that is recorded by now can appear any more."""
    xid = await connections.run(horizon.newest_transaction)
    while not await connections.run(lambda connection: horizon.is_over(connection, xid)):
        await environment.sleep(_PAUSE)
