"""What an activity worker tells of itself on its monitoring port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client.core import Metric

from holdfast.processor.broker.connection import Connection, State
from holdfast.processor.engine.environment import Environment
from holdfast.processor.services.families import Families


class Serving(Protocol):
    """One queue that is served."""

    queue: str
    counts: Counter[tuple[str, str, str]]

    @property
    def begun(self) -> Sequence[float]:
        """When each activity that runs was begun, on the monotonic clock."""

    @property
    def is_consuming(self) -> bool:
        """Whether the queue is consumed now."""


class ActivityMonitor:
    """Watches the queues that one process serves."""

    def __init__(
        self, app: str, workers: Sequence[Serving], connections: Mapping[str, Connection], environment: Environment
    ) -> None:
        self._app = app
        self._workers = workers
        self._brokers = connections
        self._environment = environment

    async def metrics(self) -> Sequence[Metric]:
        """Return the families of metrics."""
        families, now = Families(self._app), self._environment.monotonic()
        done: Counter[tuple[str, str, str]] = Counter()
        for worker in self._workers:
            done.update(worker.counts)
        families.counter("activity_requests", "Activities done for requests.", done, "queue", "activity", "outcome")
        begun = {worker.queue: worker.begun for worker in self._workers}
        running = {queue: len(each) for queue, each in begun.items()}
        families.gauge("activity_running_requests", "Requests being served.", running, "queue")
        oldest = {queue: now - min(each, default=now) for queue, each in begun.items()}
        families.gauge("activity_running_oldest_seconds", "Since the oldest of them was begun.", oldest, "queue")
        consuming = {worker.queue: int(worker.is_consuming) for worker in self._workers}
        families.gauge("activity_queue_consumed", "Whether the queue is consumed.", consuming, "queue")
        return families.all

    async def problems(self) -> Mapping[str, str]:
        """Return why activities cannot be done: no RabbitMQ, or a queue that is not consumed."""
        problems = {name: c.state.value for name, c in self._brokers.items() if c.state is not State.OPEN}
        idle = [worker.queue for worker in self._workers if not worker.is_consuming]
        if idle:
            problems["consumers"] = f"not consuming {', '.join(idle)}"
        return problems
