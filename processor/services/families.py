"""Families of metrics, as prometheus_client wants them, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from holdfast.processor.engine.counts import Histogram

K = TypeVar("K", bound=str | tuple[str, ...])
"""The value of a label, or of several."""

Number = int | float


class Families:
    """The families of one app; each sample has the label ``app``."""

    def __init__(self, app: str) -> None:
        self.all: list[Metric] = []
        self._app = app

    def counter(self, name: str, text: str, value: Number | Mapping[K, Number], *labels: str) -> None:
        """Add a counter, or one for each value of some ``labels``; its name on the port ends in ``_total``."""
        self._add(CounterMetricFamily(f"holdfast_{name}", text, labels=["app", *labels]), value)

    def gauge(self, name: str, text: str, value: Number | Mapping[K, Number] | None, *labels: str) -> None:
        """Add a gauge, or one for each value of some ``labels``; None is a family without a sample."""
        self._add(GaugeMetricFamily(f"holdfast_{name}", text, labels=["app", *labels]), value)

    def histogram(self, name: str, text: str, value: Histogram) -> None:
        """Add a histogram."""
        family = HistogramMetricFamily(f"holdfast_{name}", text, labels=["app"])
        bounds: Sequence[str] = [*map(str, value.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(value.counts)), strict=True))
        family.add_metric([self._app], buckets=buckets, sum_value=value.total)
        self.all.append(family)

    def _add(self, family: CounterMetricFamily | GaugeMetricFamily, value: Number | Mapping[K, Number] | None) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                labels = [key] if isinstance(key, str) else key
                family.add_metric([self._app, *labels], each)
        elif value is not None:
            family.add_metric([self._app], value)
        self.all.append(family)
