"""The metrics of an app's projections, which a worker and `holdfast project` tell; see ``docs/observability.md``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.processor.services.families import Families
from holdfast.projections.lag import Lag

PROJECTIONS: tuple[tuple[str, str, Callable[[Lag], float]], ...] = (
    ("projection_events_behind", "Events that a projection has not come to.", lambda lag: lag.events_behind),
    ("projection_lag_seconds", "Age of the first of them.", lambda lag: lag.time_behind.total_seconds()),
    ("projection_skipped_events", "Events that a projection passed over.", lambda lag: lag.skipped),
    ("projection_stopped", "Whether a projection stands still.", lambda lag: lag.status == "stopped"),
)
"""Gauges of each build of a projection: name, text, value."""


def projection_metrics(families: Families, found: Sequence[Lag] | None) -> None:
    """Add the gauges, without samples if the store could not be asked."""
    for name, text, value in PROJECTIONS:
        samples = None if found is None else {(lag.name, lag.build): value(lag) for lag in found}
        families.gauge(name, text, samples, "projection", "build")
