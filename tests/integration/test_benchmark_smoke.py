"""The benchmark does its workload in full; how fast is nobody's business here."""

import asyncio

import pytest
from eventsourcing.persistence import JSONTranscoder

from benchmarks import history, peer, queries
from benchmarks.__main__ import report, summary
from benchmarks.measure import BenchmarkError, Run, measure
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.workload import BODY_BYTES, RESULT, body, order_ids
from compose.local.services import Services
from holdfast.events.codec import encode


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_small_run_completes_every_order(subject: Subject, services: Services) -> None:
    run = asyncio.run(measure(subject, 150, services))
    assert run.subject == subject.name
    assert run.orders == 150
    assert run.seconds > 0


class Idle:
    """A subject whose process ends at once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __getattr__(self, name: str) -> object:
        return getattr(self._subject, name)

    def command(self, orders: int) -> list[str]:
        return ["true"]


def test_a_run_that_does_not_complete_its_orders_is_an_error(services: Services) -> None:
    with pytest.raises(BenchmarkError, match="0 of 5"):
        asyncio.run(measure(Idle(SUBJECTS[0]), 5, services))  # type: ignore[arg-type] # It stands in by delegation.


def test_the_log_benchmark_reads_folds_and_projects_every_event(services: Services) -> None:
    found = asyncio.run(history.measure(services, events=10_300, rounds=1))
    assert {name: [rate.events for rate in rates] for name, rates in found.items()} == {
        "peer: replay": [10_000],
        "fold a stream": [10_000],
        "peer: read the log": [10_300],
        "read the log": [10_300],
        "project": [10_300],
    }
    results = history.summary(found)
    assert results["fold a stream"]["ratio"] > 0
    assert "project" in history.report(results)


def test_the_query_benchmark_asks_for_everything(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    results = queries.run(services, instances=2_000, rounds=1)
    assert results.keys() == {*queries.CASES, "counts"}
    assert all(0 < it["min"] <= it["median"] <= it["max"] for it in results.values())
    assert "waits at, rare" in capsys.readouterr().out
    with pytest.raises(BenchmarkError, match="fewer than 1000"):
        queries.run(services, instances=10, rounds=1)


def test_both_logs_hold_about_as_much() -> None:
    ours = [len(encode(event)[1]) for event in history.order("order-00000000")]
    assert len(ours) == history.LIFE == 12
    assert 300 < sum(ours) / len(ours) < 400
    theirs = JSONTranscoder().encode(peer.completed("order-00000000", 7))
    assert 300 < len(theirs) < 400


def test_messages_have_the_sizes_that_the_workload_fixes() -> None:
    assert {len(body(order_id)) for order_id in order_ids(20)} == {BODY_BYTES} == {300}
    assert len(RESULT.encode()) == 200


def test_the_summary_compares_medians_with_the_ceiling() -> None:
    runs = [
        Run(subject=subject, orders=100, seconds=100 / speed)
        for subject, speeds in {"ceiling": (1000, 4000, 2000), "in_memory": (500, 800, 700)}.items()
        for speed in speeds
    ]
    found = summary(runs)
    assert found["in_memory"] == pytest.approx({"median": 700, "min": 500, "max": 800, "ratio": 0.35})
    assert found["ceiling"]["ratio"] == 1
    assert "0.35" in report(found)
