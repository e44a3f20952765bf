"""Traces for process mining: the steps that ``Variants`` counts, in the form that IEEE 1849 prescribes."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from uuid import UUID, uuid4
from xml.etree import ElementTree as ET

import pytest

from holdfast import Client, ExportRefused, Variants
from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    ActivityIntended,
    Event,
    InstanceCompleted,
    InstanceFaulted,
    InstanceSuspended,
    MessageReceived,
    Persisted,
    SubflowEnded,
    TimerFired,
    Where,
)
from holdfast.projections.builtin.variants import Step
from tests.support.mining import mine
from tests.support.projections import app_with, catch_up, commit, rows, settle, start

HERE = Where("0", 3, 17)
XES = "{http://www.xes-standard.org/}"
WEIRD = "<Paid & 'signed' \"twice\">\n\tüber\x01"
NAME = re.compile(r"[A-Za-z_:][\w:.-]*")


def done(activity: str) -> ActivityCompleted:
    return ActivityCompleted(where=HERE, activity=activity, idempotency_key=f"k/{activity}", attempts=1, result=None)


def came(message_type: str) -> MessageReceived:
    return MessageReceived(
        where=HERE,
        bookmark="b",
        closes=("b",),
        message_id=str(uuid4()),
        message_type=message_type,
        correlation_key="k",
        body={},
    )


ORDINARY: list[Event] = [
    start(),
    Persisted(reason="idle", idle=True),
    done("reserve"),
    came(WEIRD),
    InstanceCompleted(result=1),
]
FAILED: list[Event] = [
    start("invoice"),
    ActivityIntended(where=HERE, activity="charge", idempotency_key="k/charge"),
    ActivityFailed(where=HERE, activity="charge", idempotency_key="k/charge", attempts=3, error=None),
    TimerFired(where=HERE, bookmark="t", closes=("t",), due="2026-03-04T05:06:07+00:00", by="ann"),
    SubflowEnded(where=HERE, instance_id=str(uuid4()), workflow="refund", outcome="faulted"),
    InstanceSuspended(reason="requested", by="ben"),
    InstanceFaulted(error=None),
]
FAILED_STEPS = ["OrderPlaced", "charge failed", "timer", "refund"]


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


@pytest.fixture
async def instances(database_url: str) -> list[UUID]:
    """Three ordinary ones and one that failed, some of them side by side."""
    found = [*await commit(database_url, ORDINARY, FAILED), *await commit(database_url, ORDINARY, ORDINARY)]
    await settle(database_url)
    return found


async def exported(client: Client, **how: object) -> ET.Element:
    out = BytesIO()
    await client.export.traces(out, **how)  # type: ignore[arg-type] # each test says which
    return ET.fromstring(out.getvalue())  # noqa: S314  It is what was just written.


def attributes(element: ET.Element) -> dict[str, str]:
    found = [(it.attrib["key"], it.attrib["value"]) for it in element if "key" in it.attrib]
    assert len({key for key, _ in found}) == len(found)
    return dict(found)


def steps(trace: ET.Element) -> list[str]:
    return [attributes(event)["concept:name"] for event in trace.iter(f"{XES}event")]


async def test_a_trace_is_an_instance_with_the_steps_that_variants_count(
    client: Client, instances: list[UUID], database_url: str
) -> None:
    class Ways(Variants):
        pass

    await catch_up(database_url, app_with(Ways))
    counted = rows(database_url, "select path, instances from shop_ways.variants")
    log = await exported(client)
    assert {attributes(trace)["concept:name"] for trace in log.iter(f"{XES}trace")} == {*map(str, instances)}
    ways = Counter(tuple(steps(trace)) for trace in log.iter(f"{XES}trace"))
    assert ways == {tuple(part.replace("\x01", "�") for part in path): count for path, count in counted}
    assert ways[tuple(FAILED_STEPS)] == 1


async def test_an_event_tells_when_it_was_and_what_it_is_in_the_life_of_its_activity(
    client: Client, instances: list[UUID]
) -> None:
    log = await exported(client, with_all=True)
    (trace,) = [each for each in log.iter(f"{XES}trace") if attributes(each)["workflow"] == "invoice"]
    events = [attributes(event) for event in trace.iter(f"{XES}event")]
    assert [(event["concept:name"], event["lifecycle:transition"], event["type"]) for event in events] == [
        ("OrderPlaced", "complete", "InstanceStarted"),
        ("charge", "start", "ActivityIntended"),
        ("charge failed", "ate_abort", "ActivityFailed"),
        ("timer", "complete", "TimerFired"),
        ("refund", "ate_abort", "SubflowEnded"),
        ("InstanceSuspended", "suspend", "InstanceSuspended"),
        ("InstanceFaulted", "pi_abort", "InstanceFaulted"),
    ]
    assert [event.get("org:resource") for event in events] == [None, None, None, "ann", None, "ben", None]
    assert events[1]["concept:instance"] == events[2]["concept:instance"] == "k/charge"
    times = [entry.recorded.recorded_at async for entry in client.history(instances[1])]
    assert [datetime.fromisoformat(event["time:timestamp"]) for event in events] == times
    assert {datetime.fromisoformat(event["time:timestamp"]).utcoffset() for event in events} == {timedelta(0)}


async def test_the_file_is_built_as_the_standard_says(client: Client, instances: list[UUID]) -> None:
    log = await exported(client, with_all=True)
    assert log.tag == f"{XES}log"
    assert float(log.attrib["xes.version"])
    order = [child.tag.removeprefix(XES) for child in log]
    ranks = {"extension": 0, "global": 1, "classifier": 2, "string": 3, "trace": 4}
    assert order == sorted(order, key=ranks.__getitem__)
    prefixes = {each.attrib["prefix"] for each in log.iter(f"{XES}extension")}
    declared = {each.attrib["scope"]: attributes(each).keys() for each in log.iter(f"{XES}global")}
    classifiers = {key for each in log.iter(f"{XES}classifier") for key in each.attrib["keys"].split()}
    assert classifiers <= declared["event"]
    for scope in ("trace", "event"):
        for element in log.iter(f"{XES}{scope}"):
            found = attributes(element)
            assert declared[scope] <= found.keys()
            assert all(NAME.fullmatch(key) for key in found)
            assert {key.partition(":")[0] for key in found if ":" in key} <= prefixes


async def test_whatever_a_name_holds_comes_through_or_is_marked(client: Client, instances: list[UUID]) -> None:
    log = await exported(client)
    names = {name for trace in log.iter(f"{XES}trace") for name in steps(trace)}
    assert "<Paid & 'signed' \"twice\">\n\tüber�" in names


async def test_a_label_says_what_steps_are_called_and_leaves_some_out(client: Client, instances: list[UUID]) -> None:
    def label(step: Step) -> str | None:
        return step.activity.upper() if isinstance(step, ActivityCompleted) else None

    log = await exported(client, label=label)
    assert sorted(steps(trace) for trace in log.iter(f"{XES}trace")) == [[], ["RESERVE"], ["RESERVE"], ["RESERVE"]]


async def test_a_label_that_fails_names_the_event(client: Client, instances: list[UUID]) -> None:
    def label(step: Step) -> str | None:
        raise KeyError("task")

    with pytest.raises(ExportRefused, match=r"label of InstanceStarted, version 1 of .* KeyError\('task'\)"):
        await exported(client, label=label)


async def test_a_case_may_be_named_by_its_key(client: Client, instances: list[UUID]) -> None:
    log = await exported(client, case="key")
    found = [attributes(trace) for trace in log.iter(f"{XES}trace")]
    assert {each["concept:name"] for each in found} == {each["correlation_key"] for each in found} == {"k"}
    assert {each["instance_id"] for each in found} == {*map(str, instances)}


async def test_an_empty_log_is_a_file_without_traces(client: Client) -> None:
    log = await exported(client)
    assert [*log.iter(f"{XES}trace")] == []


@pytest.mark.timeout(1200)
async def test_a_tool_of_process_mining_finds_the_same(client: Client, instances: list[UUID], tmp_path: Path) -> None:
    told = await client.export.traces(tmp_path / "log.xes")
    found = mine(tmp_path / "log.xes")
    assert (found["cases"], found["events"]) == (told.instances, told.events) == (4, 3 * 3 + 4)
    ordinary = ["OrderPlaced", "reserve", WEIRD.replace("\x01", "�")]
    assert found["variants"] == sorted([[ordinary, 3], [FAILED_STEPS, 1]])
