"""A process's monitoring port, as a scraper and a prober see it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.workers import Worker, eventually


class Port:
    """The port that a worker says it has opened."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        eventually("the worker has opened its port", lambda: self._line() is not None or not worker.is_running)
        assert worker.is_running, worker.output
        self._url = f"http://127.0.0.1:{(self._line() or {})['port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        try:
            with urllib.request.urlopen(f"{self._url}{path}", timeout=30) as answer:  # noqa: S310 - it is http
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def families(self) -> dict[str, Metric]:
        """Return all families of metrics, by the name under which they are on the port."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            f"{family.name}_total" if family.type == "counter" else family.name: family
            for family in text_string_to_metric_families(text)
        }

    def values(self) -> dict[tuple[str, ...], float]:
        """Return all samples by name and the values of their labels but the app's, in the order of those names."""
        return {
            (
                sample.name.removeprefix("holdfast_"),
                *(value for name, value in sample.labels.items() if name != "app"),
            ): sample.value
            for family in self.families().values()
            for sample in family.samples
        }

    def problems(self) -> dict[str, str]:
        """Return what keeps the process from being ready."""
        found: dict[str, str] = json.loads(self.get("/readyz")[1]).get("problems", {})
        return found

    def _line(self) -> dict[str, Any] | None:
        lines = (json.loads(line) for line in self._worker.output.splitlines() if line.startswith("{"))
        return next((line for line in lines if line["event"] == "monitoring"), None)
