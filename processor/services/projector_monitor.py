"""What a process that only runs projections tells of itself on its monitoring port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import Metric

from holdfast.processor.broker.connection import Connection, State
from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.families import Families
from holdfast.processor.services.probe import probe
from holdfast.processor.services.projection_metrics import projection_metrics
from holdfast.processor.services.remembered import Remembered
from holdfast.processor.store.connections import Connections
from holdfast.projections.lag import lags
from holdfast.schemas.errors import StorageError


class ProjectorMonitor:
    """Watches the projections of an app over a connection of its own, and those that their process has to RabbitMQ."""

    def __init__(
        self, app: str, database_url: str, connections: Mapping[str, Connection], environment: Environment
    ) -> None:
        self._app = app
        self._brokers = connections
        self._database = Connections(database_url, limit=1)
        self._lags = Remembered(self._database, environment, lambda c: lags(c, app))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._database.close()

    async def metrics(self) -> Sequence[Metric]:
        """Return the families of metrics."""
        families = Families(self._app)
        projection_metrics(families, await self._lags.get())
        return families.all

    async def problems(self) -> Mapping[str, str]:
        """Return why projections cannot be run: no database, or no RabbitMQ for the event feed."""
        problems = {name: c.state.value for name, c in self._brokers.items() if c.state is not State.OPEN}
        try:
            await probe(self._database, lambda c: c.execute("select"))
        except StorageError as error:
            problems["database"] = str(error)
        return problems
