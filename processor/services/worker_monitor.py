"""What a worker tells of itself on its monitoring port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import Metric

from holdfast.processor.broker.connection import Connection, State
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.services.probe import probe
from holdfast.processor.services.remembered import Remembered
from holdfast.processor.services.worker_metrics import Tenure, worker_metrics
from holdfast.processor.store.connections import Connections
from holdfast.projections.condition import condition, lease_lives
from holdfast.schemas.errors import StorageError


class WorkerMonitor:
    """Watches one worker, over a connection of its own; ``tenure`` is None while the worker is no host."""

    def __init__(self, runtime: Runtime, connections: Mapping[str, Connection]) -> None:
        self.tenure: Tenure | None = None
        self._runtime = runtime
        self._brokers = connections
        self._database = Connections(runtime.settings.database_url, limit=1)
        self._condition = Remembered(
            self._database, runtime.environment, lambda c: condition(c, runtime.app.name, runtime.host_id)
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._database.close()

    async def metrics(self) -> Sequence[Metric]:
        """Return the families of metrics."""
        store = await self._condition.get()
        return worker_metrics(self._runtime.app.name, self._runtime.counts, self.tenure, store)

    async def problems(self) -> Mapping[str, str]:
        """Return why the worker cannot work: no lease, no server, a queue that it does not consume, or its end."""
        problems = {name: c.state.value for name, c in self._brokers.items() if c.state is not State.OPEN}
        try:
            has_lease = await probe(self._database, lambda c: lease_lives(c, self._runtime.host_id))
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
