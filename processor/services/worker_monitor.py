"""What a worker tells of itself on its monitoring port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from prometheus_client.core import Metric

from holdfast.processor.broker.connection import Connection, State
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.services.worker_metrics import Tenure, worker_metrics
from holdfast.processor.store.connections import Connections
from holdfast.projections.condition import Condition, condition, lease_lives
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.monitoring")

FRESH = 15.0
"""Seconds for which what the store said is said again, so that many scrapes ask it once."""

SHARE = 50
"""How many times as long as it took to ask the store it is left alone: its share of the database stays below 2 %."""

PATIENCE = 2.0
"""Seconds that the database may take to answer a probe."""

LONG_PATIENCE = 4.0
"""Seconds that it may take to say how it stands."""


class WorkerMonitor:
    """Watches one worker, over a connection of its own; ``tenure`` is None while the worker is no host."""

    def __init__(self, runtime: Runtime, connections: Mapping[str, Connection]) -> None:
        self.tenure: Tenure | None = None
        self._runtime = runtime
        self._brokers = connections
        self._database = Connections(runtime.settings.database_url, limit=1)
        self._asking = asyncio.Lock()
        self._condition: Condition | None = None
        self._fresh_until = 0.0

    async def aclose(self) -> None:
        """Close the connection."""
        await self._database.close()

    async def metrics(self) -> Sequence[Metric]:
        """Return the families of metrics."""
        async with self._asking:
            if self._runtime.environment.monotonic() >= self._fresh_until:
                await self._ask_the_store()
        return worker_metrics(self._runtime.app.name, self._runtime.counts, self.tenure, self._condition)

    async def problems(self) -> Mapping[str, str]:
        """Return why the worker cannot work: no lease, no server, a queue that it does not consume, or its end."""
        problems = {name: c.state.value for name, c in self._brokers.items() if c.state is not State.OPEN}
        try:
            async with asyncio.timeout(PATIENCE):
                has_lease = await self._database.run(lambda c: lease_lives(c, self._runtime.host_id))
        except TimeoutError:
            problems["database"] = f"gave no answer within {PATIENCE:g} s"
        except StorageError as error:
            problems["database"] = str(error)
        else:
            if not has_lease:
                problems["lease"] = "this worker has none"
        if self.tenure is not None and self.tenure.intake.waits_for:
            problems["consumers"] = f"not consuming {', '.join(self.tenure.intake.waits_for)}"
        if self.tenure is None or self.tenure.engine.stopping:
            problems["worker"] = "takes nothing in: it is starting or stopping"
        return problems

    async def _ask_the_store(self) -> None:
        runtime = self._runtime
        began = runtime.environment.monotonic()
        try:
            async with asyncio.timeout(LONG_PATIENCE):
                self._condition = await self._database.run(lambda c: condition(c, runtime.app.name, runtime.host_id))
        except (StorageError, TimeoutError) as error:
            log.warning("store not asked", error=str(error) or f"no answer within {LONG_PATIENCE:g} s")
            self._condition = None
        now = runtime.environment.monotonic()
        self._fresh_until = now + max(FRESH, SHARE * (now - began))
