"""The built-in projections: how many instances are where, how long steps take, which ways instances went."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from holdfast import App, Durations, Message, Overview, Variants, first_of, receive
from holdfast.events.codec import encode
from holdfast.events.types import (
    ActivityCompleted,
    ActivityFailed,
    BookmarkClosed,
    BookmarkOpened,
    CancelRequested,
    Event,
    InstanceCancelled,
    InstanceCompleted,
    InstanceFaulted,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    MessageReceived,
    Persisted,
    TimerFired,
    Where,
)
from holdfast.schemas.settings import Settings
from tests.support.hosts import running_host
from tests.support.projections import app_with, catch_up, commit, rows, start

HERE, THERE = Where("0", 3, 17), Where("0", 5, 21)
IDLE = Persisted(reason="idle", idle=True)


def done(activity: str, where: Where = HERE) -> ActivityCompleted:
    return ActivityCompleted(where=where, activity=activity, idempotency_key="k", attempts=1, result=None)


def came(message_type: str, bookmark: str = "b") -> MessageReceived:
    return MessageReceived(
        where=THERE,
        bookmark=bookmark,
        closes=(bookmark,),
        message_id=str(uuid4()),
        message_type=message_type,
        correlation_key="k",
        body={},
    )


def waits(bookmark: str = "b") -> BookmarkOpened:
    return BookmarkOpened(where=THERE, bookmark=bookmark, kind="message", message_type="Paid", correlation_key="k")


LIVES: list[tuple[str, list[Event]]] = [
    ("executing", [start(), Persisted(reason="activity_completed")]),
    ("idle", [start(), waits(), IDLE]),
    ("executing", [start(), IDLE, came("Paid"), Persisted(reason="activity_completed")]),
    ("suspended", [start(), IDLE, InstanceSuspended(reason="requested"), Persisted(reason="suspended")]),
    ("idle", [start(), IDLE, InstanceSuspended(reason="requested"), InstanceResumed(by="ops"), IDLE]),
    ("completed", [start(), InstanceCompleted(result=1), Persisted(reason="completed")]),
    ("faulted", [start(), InstanceFaulted(error=None), Persisted(reason="faulted")]),
    ("cancelled", [start(), InstanceSuspended(reason="requested"), CancelRequested(by="ops"), InstanceCancelled()]),
    ("terminated", [start("invoice"), InstanceTerminated(by="ops")]),
]


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_the_overview_counts_each_instance_where_it_is(database_url: str, page: int) -> None:
    class Paged(Overview):
        name = "overview"

    Paged.page = page
    app = app_with(Paged)
    for _, events in LIVES:
        await commit(database_url, events)
    await catch_up(database_url, app)
    expected: dict[tuple[str, str], int] = {}
    for status, events in LIVES:
        assert isinstance(events[0], InstanceStarted)
        key = events[0].workflow, status
        expected[key] = expected.get(key, 0) + 1
    found = rows(database_url, "select workflow, status, instances from shop_overview.overview where instances <> 0")
    assert {(workflow, status): count for workflow, status, count in found} == expected


@pytest.mark.parametrize("page", [1, 1000])
async def test_variants_count_the_ways_of_instances_that_ended(database_url: str, page: int) -> None:
    class Paged(Variants):
        name = "variants"

    Paged.page = page
    failed = ActivityFailed(where=HERE, activity="charge", idempotency_key="k", attempts=3, error=None)
    late = TimerFired(where=HERE, bookmark="t", closes=("t",), due="2026-03-04T05:06:07+00:00")
    ordinary: list[Event] = [start(), done("reserve"), IDLE, came("Paid"), done("pack"), InstanceCompleted(result=1)]
    await commit(database_url, ordinary)
    await commit(database_url, ordinary, [start(), failed, late, InstanceFaulted(error=None)])
    await commit(database_url, [start(), done("reserve")])
    await catch_up(database_url, app_with(Paged))
    assert rows(database_url, "select workflow, outcome, path, instances from shop_variants.variants order by 4") == [
        ("order", "faulted", ["OrderPlaced", "charge failed", "timer"], 1),
        ("order", "completed", ["OrderPlaced", "reserve", "Paid", "pack"], 2),
    ]
    assert rows(database_url, "select path from shop_variants.paths") == [(["OrderPlaced", "reserve"],)]


async def test_a_variant_keeps_the_beginning_of_a_long_way(database_url: str) -> None:
    class Short(Variants):
        longest = 3

    await commit(database_url, [start(), *[done(f"a{number}") for number in range(9)], InstanceCompleted(result=1)])
    await catch_up(database_url, app_with(Short))
    assert rows(database_url, "select path from shop_short.variants") == [(["OrderPlaced", "a0", "a1"],)]


def record(url: str, *lives: list[tuple[float, Event]]) -> None:
    """Write events with the seconds at which they were recorded."""
    with psycopg.connect(url) as connection:
        for life in lives:
            instance = uuid4()
            for version, (second, event) in enumerate(life, 1):
                kind, data = encode(event)
                connection.execute(
                    """
                    insert into holdfast.events (instance_id, version, type, data, metadata, recorded_at)
                    values (%s, %s, %s, %s, '{"app": "shop"}', timestamptz '2026-01-01' + %s)
                    """,
                    (instance, version, kind, data.decode(), timedelta(seconds=second)),
                )


@pytest.mark.parametrize("page", [1, 7, 1000])
async def test_durations_of_steps_are_kept_with_percentiles(database_url: str, page: int) -> None:
    class Paged(Durations):
        name = "durations"

    Paged.page = page
    lives: list[list[tuple[float, Event]]] = [
        [
            (0, start()),
            (2, done("reserve")),
            (2, waits("b")),
            (2, waits("never")),
            (2, IDLE),
            (2.5, BookmarkClosed(where=THERE, bookmark="never")),
            (2 + number, came("Paid")),
            (2 + number, InstanceCompleted(result=1)),
        ]
        for number in range(1, 101)
    ]
    record(database_url, *lives)
    await catch_up(database_url, app_with(Paged))
    found = {
        (kind, name, line): (count, *(value.total_seconds() for value in values))
        for kind, name, line, count, *values in rows(
            database_url,
            "select kind, name, line, count, mean, p50, p90, p99, longest from shop_durations.durations",
        )
    }
    assert found.keys() == {("activity", "reserve", 17), ("message", "Paid", 21), ("instance", "order", 0)}
    assert found["activity", "reserve", 17] == (100, *[pytest.approx(2, rel=0.1)] * 5)
    assert found["message", "Paid", 21] == (100, *[pytest.approx(it, rel=0.1) for it in (50.5, 50, 90, 99, 100)])
    assert found["instance", "order", 0] == (100, *[pytest.approx(it, rel=0.1) for it in (52.5, 52, 92, 101, 102)])
    assert rows(database_url, "select * from shop_durations.clocks") == []
    assert rows(database_url, "select * from shop_durations.waits") == []


class Asked(Message, correlation="key"):
    key: str


class Agreed(Message, correlation="key"):
    key: str


class Refused(Message, correlation="key"):
    key: str


questions = App("questions")
for kind in (Durations, Overview, Variants):
    questions.projection(kind)


@questions.activity
async def note(_key: str) -> None: ...


@questions.workflow(start=Asked)
async def question(asked: Asked) -> str:
    answer: Any = await first_of(yes=receive(Agreed, asked.key), no=receive(Refused, asked.key))
    await note(asked.key)
    return str(answer.name)


async def test_they_follow_a_real_workflow(database_url: str) -> None:
    async with running_host(questions, database_url, Settings()) as host:
        for number in range(5):
            await host.tell(Asked(key=str(number)))
        for answer in (Agreed(key="0"), Agreed(key="1"), Refused(key="2")):
            await host.tell(answer)
    await catch_up(database_url, questions)
    assert rows(database_url, "select status, instances from questions_overview.overview order by 2") == [
        ("idle", 2),
        ("completed", 3),
    ]
    assert rows(database_url, "select path, instances from questions_variants.variants order by 2 desc") == [
        (["Asked", "Agreed", "note"], 2),
        (["Asked", "Refused", "note"], 1),
    ]
    assert rows(
        database_url, "select kind, name, count from questions_durations.durations where kind <> 'instance' order by 2"
    ) == [("message", "Agreed", 2), ("message", "Refused", 1), ("activity", "note", 3)]
