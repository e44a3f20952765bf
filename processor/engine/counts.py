"""What a process has done since it began, as plain numbers.

Counting must cost next to nothing, so it is adding to these and no more; who publishes the numbers reads them when
somebody asks (``services/worker_metrics.py``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from holdfast.processor.engine.provider import Batch

COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
GROUP_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """How many observations lie in which range; ``counts`` has one more for those above the last bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts:
    """The numbers of one worker; they outlive its tenures.

    ``verdicts`` are by verdict and reason, all but ``applied``, which has a number of its own; ``closed`` by workflow
    and outcome; ``refused`` by the name of the error that a batch was answered with; ``published`` by fate.
    """

    def __init__(self) -> None:
        self.tenures = 0
        self.deliveries = 0
        self.redeliveries = 0
        self.duplicates = 0
        self.applied = 0
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.registered: Counter[str] = Counter()
        self.closed: Counter[tuple[str, str]] = Counter()
        self.suspended: Counter[str] = Counter()
        self.bursts = 0
        self.activities_completed = 0
        self.activities_failed = 0
        self.persistence_points = 0
        self.user_commits = 0
        self.events = 0
        self.refused: Counter[str] = Counter()
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.group_sizes = Histogram(GROUP_SIZES)
        self.published: Counter[str] = Counter()

    def group(self, size: int, seconds: float) -> None:
        """Count a group that was sent to the store, and how long that took."""
        self.group_sizes.observe(size)
        self.commit_seconds.observe(seconds)

    def committed(self, batch: Batch) -> None:
        """Count a batch that is durable."""
        self.persistence_points += 1
        self.events += len(batch.events)
        self.applied += len(batch.consumed)
        state = batch.state
        if state.execution_status == "closed":
            self.closed[state.workflow, state.outcome or ""] += 1
        elif batch.release and state.is_suspended:
            self.suspended[state.suspension_reason or ""] += 1
