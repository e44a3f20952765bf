"""A projection as of a place in the log: what its tables held there, built beside those that readers see."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from holdfast import BrokerError, Client, ProjectionError, ProjectionStopped, RebuildRefused, Transaction
from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceStarted
from holdfast.processor import projecting
from holdfast.projections.lag import Progress
from holdfast.projections.scratch import AsOf
from holdfast.schemas.settings import Settings
from tests.support.commands import HOLDFAST, ROOT, holdfast
from tests.support.projections import (
    APP,
    Seen,
    app_with,
    catch_up,
    commit,
    projector,
    rows,
    settle,
    start,
    write,
)
from tests.support.scratches import THEN, Small, diff, end_of, rebuild, schemas, scratches
from tests.support.workers import environment, eventually

LIVE = "select workflow, instances from shop_started.started order by 1"


# Places.


async def test_it_holds_what_the_live_tables_held_at_that_place_while_these_go_on(database_url: str) -> None:
    app = app_with(Small)
    await catch_up(database_url, app)
    held: dict[str, list[tuple[Any, ...]]] = {}
    done = asyncio.Event()

    async def follow() -> None:
        async with projector(database_url, app, projection_poll=0.01) as it:
            await it.run()

    async def record() -> None:
        """Write down what readers see, and the checkpoint, in one snapshot."""
        async with await AsyncConnection.connect(database_url) as connection:
            while not done.is_set():
                cursor = await connection.execute(
                    "select epoch || '-' || xid || '-' || position,"
                    " (select coalesce(json_agg(s order by workflow), '[]') from shop_started.started s)"
                    " from holdfast.projections where build = 'live'"
                )
                ((place, table),) = await cursor.fetchall()
                held[place] = [(row["workflow"], row["instances"]) for row in table]
                await connection.commit()

    async def publish(number: int) -> None:
        for turn in range(40):
            await commit(database_url, *[[start(f"w{number * turn % 5}")] for _ in range(turn % 4 + 1)])

    running = [asyncio.create_task(work()) for work in (follow, record)]
    await asyncio.gather(*(publish(number) for number in range(3)))
    places = sorted((Cursor.parse(place), table) for place, table in held.items())
    assert len(places) > 10
    for place, table in (*places[:: len(places) // 5], places[-1]):
        await rebuild(database_url, place, restart=True)
        assert rows(database_url, THEN) == table
    done.set()
    await running[1]
    running[0].cancel()
    await asyncio.wait(running)
    await catch_up(database_url, app)
    assert sum(count for _, count in rows(database_url, LIVE)) == 3 * 100


async def test_what_commits_late_belongs_to_the_side_on_which_the_log_has_it(database_url: str) -> None:
    async with await AsyncConnection.connect(database_url) as slow:
        await write(slow, [[start("slow")]])
        await commit(database_url, [start("fast")])
        place = await end_of(database_url)
        ((moment,),) = rows(database_url, "select recorded_at from holdfast.events where data ->> 'workflow' = 'fast'")
        # The slow one began before, so the log has it before: nothing is known until it has ended.
        waiting = [
            asyncio.create_task(rebuild(database_url, place, "by_place")),
            asyncio.create_task(rebuild(database_url, moment, "by_moment")),
        ]
        assert await asyncio.wait(waiting, timeout=0.5) == (set(), {*waiting})
        # It records once more, later than the moment, and still belongs before the place.
        await write(slow, [[start("slow")]])
        assert not any(task.done() for task in waiting)
        await slow.commit()
        await asyncio.gather(*waiting)
    await commit(database_url, [start("after")])
    for table in (
        rows(database_url, "select workflow, instances from by_place.started order by 1"),
        rows(database_url, "select workflow, instances from by_moment.started order by 1"),
    ):
        assert table == [("fast", 1), ("slow", 2)]
    by_moment, by_place = await scratches(database_url)
    assert (by_moment.until, by_place.until) == (str(place), str(place))
    ((late,),) = rows(database_url, "select max(recorded_at) from holdfast.events where data ->> 'workflow' = 'slow'")
    assert late > moment


async def test_a_moment_waits_for_a_transaction_though_none_that_began_after_it_has_ended(database_url: str) -> None:
    async with await AsyncConnection.connect(database_url) as slow:
        await write(slow, [[start("slow")]])
        ((moment,),) = rows(database_url, "select clock_timestamp()")
        waiting = asyncio.create_task(rebuild(database_url, moment))
        assert await asyncio.wait([waiting], timeout=0.5) == (set(), {waiting})
        await slow.commit()
        await waiting
    assert rows(database_url, THEN) == [("slow", 1)]


async def test_a_moment_stands_for_the_last_place_in_the_log_that_was_recorded_by_then(database_url: str) -> None:
    await commit(database_url, [start("a")])
    await commit(database_url, [start("b")])
    ((first,), (second,)) = rows(database_url, "select recorded_at from holdfast.events order by position")
    instant = timedelta(microseconds=1)
    await settle(database_url)
    for moment, expected in (
        (first - instant, []),
        (first, [("a", 1)]),
        (second - instant, [("a", 1)]),
        (second, [("a", 1), ("b", 1)]),
        (second + instant, [("a", 1), ("b", 1)]),
    ):
        await rebuild(database_url, moment, restart=True)
        assert rows(database_url, THEN) == expected
    (it,) = await scratches(database_url)
    assert it.as_of == (second + instant).astimezone(UTC).isoformat()


@pytest.mark.parametrize(
    ("as_of", "why"),
    [
        (Cursor(1, 1 << 60, 1), "1-1152921504606846976-1 lies beyond the end of the log"),
        (Cursor(2, 1, 1), "2-1-1 lies beyond the end of the log"),
        (datetime(2999, 1, 1, tzinfo=UTC), r"2999-01-01T00:00:00\+00:00 is still to come"),
    ],
)
async def test_a_place_that_the_log_has_not_come_to_is_refused(database_url: str, as_of: AsOf, why: str) -> None:
    with pytest.raises(RebuildRefused, match=why):
        await rebuild(database_url, as_of)
    assert schemas(database_url) == ["public"]


async def test_a_moment_without_an_offset_is_refused(database_url: str) -> None:
    with pytest.raises(ValueError, match="give its offset from UTC"):
        await rebuild(database_url, datetime(2026, 1, 31))  # noqa: DTZ001  This is the mistake.


# Schemas.


async def test_what_readers_see_and_its_checkpoint_are_left_as_they_are(database_url: str) -> None:
    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Small))
    place = await end_of(database_url)
    await commit(database_url, [start("b")])
    await catch_up(database_url, app_with(Small))
    before = rows(database_url, "select * from holdfast.projections"), rows(database_url, LIVE)
    steps = await rebuild(database_url, place)
    assert (rows(database_url, "select * from holdfast.projections"), rows(database_url, LIVE)) == before
    assert rows(database_url, THEN) == [("a", 1)]
    assert steps[-1].position == steps[-1].end == place.position
    assert [step.position for step in steps] == sorted(step.position for step in steps)


async def test_a_projection_that_was_never_built_can_be_as_of_a_place(database_url: str) -> None:
    await commit(database_url, [start("a")], [start("a")])
    await rebuild(database_url, await end_of(database_url))
    assert rows(database_url, THEN) == [("a", 2)]
    assert rows(database_url, "select count(*) from holdfast.projections") == [(0,)]


@pytest.mark.parametrize("schema", ["public", "mine", "shop_started", "shop_seen"])
async def test_a_schema_that_is_something_else_is_never_touched(database_url: str, schema: str) -> None:
    await catch_up(database_url, app_with(Small, Seen))
    with psycopg.connect(database_url) as connection:
        connection.execute("create schema mine")
        connection.execute("create table mine.precious (it int)")
    place = await end_of(database_url)
    for restart in (False, True):
        with pytest.raises(RebuildRefused, match=f"schema {schema} is something else than a scratch"):
            await rebuild(database_url, place, schema, restart=restart)
    async with Client(database_url, app=APP) as client:
        assert not await client.projections.drop(schema)
    assert {*schemas(database_url)} == {"public", "mine", "shop_started", "shop_seen"}


@pytest.mark.parametrize(
    "schema", ["holdfast", "holdfast_x", "pg_x", "information_schema", "X", "a.b", "", "x" * 64, "x__next", "x__old"]
)
async def test_a_name_that_is_none_for_a_scratch_is_refused(database_url: str, schema: str) -> None:
    with pytest.raises(RebuildRefused, match="is no name for a scratch"):
        await rebuild(database_url, Cursor(0, 0, 0), schema)


async def test_a_schema_made_by_hand_under_the_name_of_an_old_scratch_is_safe(database_url: str) -> None:
    place = await end_of(database_url)
    await rebuild(database_url, place)
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema past cascade")
        connection.execute('create schema "past"')
        connection.execute("create table past.precious (it int)")
    assert await scratches(database_url) == []
    with pytest.raises(RebuildRefused, match="something else than a scratch"):
        await rebuild(database_url, place, restart=True)
    async with Client(database_url, app=APP) as client:
        await client.projections.drop("past")
    assert rows(database_url, "select count(*) from past.precious") == [(0,)]
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema past cascade")
    await rebuild(database_url, place)
    assert [it.schema for it in await scratches(database_url)] == ["past"]


async def test_a_scratch_of_another_place_gives_way_only_when_told_to(database_url: str) -> None:
    await commit(database_url, [start("a")])
    first = await end_of(database_url)
    await commit(database_url, [start("b")])
    await rebuild(database_url, first)
    with pytest.raises(RebuildRefused, match=rf"schema past holds projection started, version 1, as of {first}"):
        await rebuild(database_url, await end_of(database_url))
    assert rows(database_url, THEN) == [("a", 1)]
    await rebuild(database_url, await end_of(database_url), restart=True)
    assert rows(database_url, THEN) == [("a", 1), ("b", 1)]


async def test_a_scratch_is_dropped_with_its_tables(database_url: str) -> None:
    await rebuild(database_url, await end_of(database_url))
    async with Client(database_url, app=APP) as client:
        assert await client.projections.drop("past")
        assert not await client.projections.drop("past")
        assert await client.projections.scratches() == []
    assert schemas(database_url) == ["public"]


async def test_an_interrupted_rebuild_goes_on_where_it_was(database_url: str) -> None:
    await commit(database_url, *[[start()] for _ in range(100)])
    place = await end_of(database_url)
    app = app_with(Small)
    begun: AsyncIterator[Progress] = projecting.rebuild_as_of(
        app, "started", Settings(database_url=database_url), place, "past"
    )
    async for step in begun:
        if step.position >= 49:
            break
    await begun.aclose()  # type: ignore[attr-defined]  # It is a generator.
    (half,) = await scratches(database_url)
    assert (half.handled, half.is_complete) == (49, False)
    with pytest.raises(ProjectionError, match="scratch past is not complete"):
        await diff(database_url, "past", "past")
    steps = await rebuild(database_url, place)
    assert steps[0].position == step.position
    (whole,) = await scratches(database_url)
    assert (whole.handled, whole.is_complete, whole.cursor) == (100, True, str(place))
    assert rows(database_url, THEN) == [("order", 100)]
    assert len(await rebuild(database_url, place)) == 1  # There is nothing left to do.


async def test_a_page_that_takes_too_long_is_taken_event_by_event(database_url: str) -> None:
    class Slow(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted) -> None:  # type: ignore[override]
            await tx.execute("insert into seen (what) select %s from pg_sleep(2)", [event.workflow])

    await commit(database_url, *[[start(what)] for what in "abc"])
    app = app_with(Slow)
    place = await end_of(database_url)
    settings = Settings(database_url=database_url, transaction_timeout=5.0)
    assert [step async for step in projecting.rebuild_as_of(app, "seen", settings, place, "past")]
    assert rows(database_url, "select what from past.seen order by place") == [("a",), ("b",), ("c",)]


# Events that cannot be taken.


async def test_what_fails_for_a_servers_sake_is_told_as_it_is(database_url: str) -> None:
    class Cut(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted) -> None:  # type: ignore[override]
            raise BrokerError("it is away")

    await commit(database_url, [start("a")])
    with pytest.raises(BrokerError, match="it is away") as told:
        await rebuild(database_url, await end_of(database_url), projection=Cut)
    assert told.value.__cause__ is None


async def test_an_event_that_cannot_be_taken_stops_it_unless_it_was_passed_over_before(database_url: str) -> None:
    app = app_with(Seen)
    await commit(database_url, [start("a")], [start("bad")], [start("b")])
    place = await end_of(database_url)
    with pytest.raises(ProjectionStopped, match="a bad one"):
        await rebuild(database_url, place, projection=Seen)
    assert rows(database_url, "select what from past.seen") == [("a",)]
    await catch_up(database_url, app)
    async with Client(database_url, app=APP) as client:
        await client.projections.skip("seen")
    await rebuild(database_url, place, projection=Seen)
    assert rows(database_url, "select what from past.seen order by place") == [("a",), ("b",)]
    (it,) = await scratches(database_url)
    assert (it.handled, it.skipped, it.is_complete) == (2, 1, True)


# The command line.


MODULE = """
from collections.abc import Sequence
from holdfast import App, Projection, Transaction
from holdfast.events.types import InstanceStarted

app = App("shop")


@app.projection
class Started(Projection):
    create = "create table started (workflow text primary key, instances bigint not null)"
    page = 50

    async def started(self, tx: Transaction, event: InstanceStarted) -> None:
        await tx.execute(
            "insert into started as s values (%s, 1) on conflict (workflow) do update set instances = s.instances + 1",
            [event.workflow],
        )
"""


def test_the_commands_build_compare_list_and_drop(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    env = environment(database_url, "") | {"PYTHONPATH": str(tmp_path)}

    def run(*arguments: str, code: int = 0) -> str:
        done = holdfast("projections", *arguments, env=env)
        assert done.returncode == code, done.stderr
        return done.stdout if code < 2 else done.stderr

    asyncio.run(commit(database_url, [start("a")], [start("b")]))
    place = str(asyncio.run(end_of(database_url)))
    asyncio.run(commit(database_url, [start("b")], [start("c")]))
    ((moment,),) = rows(database_url, "select max(recorded_at) from holdfast.events")
    asyncio.run(catch_up(database_url, app_with(Small)))

    said = run("rebuild", "shop:app", "started", "--as-of", place, "--into", "past")
    assert said == f"projection started as of {place} is in schema past\n"
    assert rows(database_url, THEN) == [("a", 1), ("b", 1)]
    assert run("diff", "shop:app", "started", "past", "live", code=1) == (
        'table started\n  ~ workflow="b": instances 1 -> 2\n  + {"workflow":"c","instances":1}\n'
    )
    printed = run("diff", "shop:app", "started", "live", place, "--json", code=1)
    told = [json.loads(line) for line in printed.splitlines()]
    assert [(it["kind"], it["key"]) for it in told] == [("changed", {"workflow": "b"}), ("removed", {"workflow": "c"})]
    assert run("diff", "shop:app", "started", moment.isoformat(), "live") == ""
    assert [line.split()[:7] for line in run("scratches").splitlines()[1:]] == [
        ["past", "shop", "started", "1", place, place, "complete"]
    ]
    assert [json.loads(line)["handled"] for line in run("scratches", "--json").splitlines()] == [2]
    assert run("drop", "past") == "schema past is dropped\n"
    assert run("scratches", "--json") == ""

    for arguments, complaint, code in (
        (["rebuild", "shop:app", "started", "--as-of", place], "--as-of and --into go together", 2),
        (["rebuild", "shop:app", "started", "--into", "past"], "--as-of and --into go together", 2),
        (["rebuild", "shop:app", "started", "--as-of", "soon", "--into", "past"], "--as-of takes a cursor", 2),
        (["diff", "shop:app", "started", "1-2", "live"], "a side takes a cursor", 2),
        (["diff", "shop:app", "started", "past", "live"], "schema past is no scratch of projection started", 2),
        (["diff", "shop:app", "other", "live", "live"], "there is no projection 'other'", 2),
    ):
        assert complaint in run(*arguments, code=code)
    done = holdfast("projections", "drop", "public", env=env)
    assert (done.returncode, "public is no scratch" in done.stderr) == (1, True)


def test_the_command_is_killed_and_run_again(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    env = environment(database_url, "") | {"PYTHONPATH": str(tmp_path)}
    asyncio.run(commit(database_url, *[[start()] for _ in range(10_000)]))
    place = str(asyncio.run(end_of(database_url)))
    command: list[str | Path] = [HOLDFAST, "projections", "rebuild", "shop:app", "started", "--as-of", place]
    handled = "select coalesce(max(handled), 0)::int from holdfast.scratches"
    process = subprocess.Popen([*command, "--into", "past"], env=env, cwd=ROOT, stderr=subprocess.PIPE)
    eventually("it has begun", lambda: rows(database_url, handled)[0][0] >= 100, timeout=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 100 <= rows(database_url, handled)[0][0] < 10_000
    done = holdfast(*map(str, command[1:]), "--into", "past", env=env)
    assert done.returncode == 0, done.stderr
    assert rows(database_url, THEN) == [("order", 10_000)]
