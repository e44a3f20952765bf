"""A projection is given events once more, in transactions of their own, while it goes on following the log."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from holdfast import (
    App,
    Client,
    Projection,
    ProjectionNotFound,
    RecordedEvent,
    ReplayRefused,
    ReplayStopped,
    StorageError,
    Transaction,
)
from holdfast.events.types import InstanceCompleted, InstanceStarted
from holdfast.processor import projecting
from holdfast.processor.services.replay_into import IntoStep
from holdfast.schemas.settings import Settings
from tests.support.projections import (
    APP,
    Lenient,
    Seen,
    app_with,
    catch_up,
    commit,
    life,
    projector,
    rows,
    settle,
    start,
)

SEEN = "select what, version::int from shop_lenient.seen order by place"


class Mended(Lenient):
    """The same tables, by code that takes what the code before could not."""

    name = "lenient"

    async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
        await tx.execute("insert into seen (what, version) values (%s, %s)", (event.workflow, recorded.version))


class Marked(Projection):
    """For each instance its newest version and how often it was given it; handlers bear to be called twice."""

    create = """
        create table marks (instance_id uuid primary key, version bigint not null, given bigint not null, late bigint)
    """
    page = 50

    async def any(
        self,
        tx: Transaction,
        events: Sequence[InstanceStarted | InstanceCompleted],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        for it in recorded:
            await tx.execute(
                """
                insert into marks as m values (%(id)s, %(version)s, 1, 0)
                on conflict (instance_id) do update
                set version = greatest(m.version, %(version)s), given = m.given + 1
                """,
                {"id": it.instance_id, "version": it.version},
            )


async def given(url: str, app: App, name: str, **chosen: Any) -> IntoStep:
    async with Client(url, app=APP) as client:
        counted = await client.replays.count_into(app, name, **chosen)
        last = [step async for step in client.replays.into(app, name, **chosen)][-1]
    assert last.handled + last.skipped == sum(counted.values())
    assert last.position == last.end
    return last


async def test_what_was_passed_over_is_made_good_for_exactly_once(database_url: str) -> None:
    good, bad, _, worse = await commit(database_url, [start("a")], [start("bad")], [start("b")], [start("bad")])
    await catch_up(database_url, app_with(Lenient))
    assert rows(database_url, SEEN) == [("a", 1), ("b", 1)]
    app = app_with(Mended)
    async with Client(database_url, app=APP) as client:
        (before,) = await client.projections.lag()
        assert {it.instance_id for it in await client.projections.skipped()} == {bad, worse}
        assert await client.replays.count_into(app, "lenient", skipped=True) == {"InstanceStarted": 2}
        last = await given(database_url, app, "lenient", skipped=True)
        assert (last.handled, last.skipped) == (2, 0)
        assert rows(database_url, SEEN) == [("a", 1), ("b", 1), ("bad", 1), ("bad", 1)]
        assert await client.projections.skipped() == []
        # Whoever does it again does nothing, and the checkpoint has not moved.
        assert (await given(database_url, app, "lenient", skipped=True)).handled == 0
        (after,) = await client.projections.lag()
        assert (after.cursor, after.handled) == (before.cursor, before.handled)
    assert len(rows(database_url, SEEN)) == 4
    assert good != bad


async def test_only_what_is_meant_is_given(database_url: str) -> None:
    instances: list[Any] = []
    for number, name in enumerate(("a", "b", "a")):
        began = replace(start(name), correlation_key=f"k-{number}")
        instances += await commit(database_url, [began, *life(name, f"end of {name}")[1:]])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into holdfast.instance_states (instance_id, state, promoted) values (%s, '', %s)",
            [instances[1], '{"region": "north"}'],
        )
    app = app_with(Seen)
    await catch_up(database_url, app)

    async def seen(**chosen: Any) -> list[Any]:
        before = len(rows(database_url, "select * from shop_seen.seen"))
        await given(database_url, app, "seen", **chosen)
        found = rows(database_url, "select what from shop_seen.seen order by place")
        return [what for (what,) in found[before:]]

    found = rows(
        database_url, "select epoch||'-'||xid||'-'||position, recorded_at from holdfast.events order by position"
    )
    cursors, times = [str(cursor) for cursor, _ in found], [moment for _, moment in found]
    assert await seen(workflow="b") == ["b", "end of b"]
    assert await seen(correlation_key="k-1") == ["b", "end of b"]
    assert await seen(promoted={"region": "north"}) == ["b", "end of b"]
    assert await seen(promoted={"region": "south"}) == []
    assert await seen(type="InstanceStarted") == ["a", "b", "a"]
    # A type that the projection has no handler for is none of its events.
    assert await seen(type="Persisted") == []
    assert await seen(since=cursors[2], until=cursors[3]) == ["end of a", "b"]
    assert await seen(since=times[3], until=times[3]) == ["b", "end of b"]
    assert await seen(until=times[3]) == ["a", "end of a", "b", "end of b"]
    assert await seen() == ["a", "end of a", "b", "end of b", "a", "end of a"]


async def test_it_goes_no_further_than_the_checkpoint(database_url: str) -> None:
    await commit(database_url, [start("a")])
    app = app_with(Seen)
    await catch_up(database_url, app)
    await commit(database_url, [start("b")])
    (stands,) = rows(database_url, "select position::int from holdfast.projections")
    async with Client(database_url, app=APP) as client:
        assert await client.replays.count_into(app, "seen") == {"InstanceStarted": 1}
        steps = [step async for step in client.replays.into(app, "seen")]
    assert (steps[-1].handled, steps[-1].end) == (1, stands[0])
    await catch_up(database_url, app)
    assert [what for (what,) in rows(database_url, "select what from shop_seen.seen order by place")] == ["a", "a", "b"]


async def test_while_events_keep_coming_nothing_is_lost_and_the_projection_keeps_up(database_url: str) -> None:
    app = app_with(Marked)
    old = await commit(database_url, *(life() for _ in range(500)))
    await catch_up(database_url, app)
    done = asyncio.Event()
    new = []

    async def publish() -> None:
        while not done.is_set():
            new.extend(await commit(database_url, life()))

    async def follow() -> None:
        async with projector(database_url, app, projection_poll=0.01) as it:
            await it.run()

    publishing, following = asyncio.create_task(publish()), asyncio.create_task(follow())
    async with Client(database_url, app=APP) as client:
        for _ in range(3):
            there = len(old) + len(new)
            async for _step in client.replays.into(app, "marked"):
                pass
            # What was there when it began is handled by now: two events of each life.
            (lag,) = await client.projections.lag()
            assert lag.handled >= 2 * there
        done.set()
        await publishing
        await client.projections.wait_until("marked")
    following.cancel()
    await asyncio.wait([following])
    found = rows(database_url, "select instance_id, version::int, given::int from shop_marked.marks")
    assert {(it[0], it[1]) for it in found} == {(instance, 3) for instance in (*old, *new)}
    # Each event of the beginning came once, and once more with each replay; what is new came once, or again with those.
    times = {instance: times for instance, _, times in found}
    assert {times[instance] for instance in old} == {8}
    assert {times[instance] for instance in new} <= {2, 4, 6, 8}
    assert rows(database_url, "select count(*)::int from shop_marked.marks") == [(len(old) + len(new),)]


async def test_a_page_and_what_follows_the_log_take_turns(database_url: str) -> None:
    """While a page is handled, nobody else handles what is new."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Seen):
        name = "seen"

        async def completed(self, tx: Transaction, event: InstanceCompleted, recorded: RecordedEvent) -> None:
            inside.set()
            await go_on.wait()
            await super().completed(tx, event, recorded)

    await commit(database_url, life("a", "end of a"))
    await catch_up(database_url, app_with(Seen))
    await commit(database_url, life("b", "end of b"))
    await settle(database_url)
    replaying = asyncio.create_task(given(database_url, app_with(Slow), "seen"))
    await inside.wait()
    async with projector(database_url, app_with(Seen)) as it:
        follower = await it._register(app_with(Seen).subscriptions[0])
        assert (await follower.step()).seen == 0
        go_on.set()
        await replaying
    found = [what for (what,) in rows(database_url, "select what from shop_seen.seen order by place")]
    assert found == ["a", "end of a", "a", "end of a", "b", "end of b"]


async def test_an_event_that_cannot_be_taken_ends_it_behind_all_before(database_url: str) -> None:
    class Stern(Seen):
        name = "lenient"

    await commit(database_url, [start("a")])
    (bad,) = await commit(database_url, [start("bad")])
    await commit(database_url, [start("b")])
    await catch_up(database_url, app_with(Lenient))
    with pytest.raises(ReplayStopped, match=f"event 1 of instance {bad} .*: ValueError: a bad one") as stopped:
        await given(database_url, app_with(Stern), "lenient")
    assert rows(database_url, SEEN) == [("a", 1), ("b", 1), ("a", 1)]
    async with Client(database_url, app=APP) as client:
        (lag,) = await client.projections.lag()
        assert (lag.status, lag.skipped) == ("running", 1)
    # Mended, it goes on from there.
    assert (await given(database_url, app_with(Mended), "lenient", since=stopped.value.cursor)).handled == 2
    assert rows(database_url, SEEN)[3:] == [("bad", 1), ("b", 1)]


async def test_a_projection_that_skips_passes_over_it_again(database_url: str) -> None:
    await commit(database_url, [start("a")], [start("bad")], [start("b")])
    app = app_with(Lenient)
    await catch_up(database_url, app)
    last = await given(database_url, app, "lenient")
    assert (last.handled, last.skipped) == (2, 1)
    assert rows(database_url, SEEN) == [("a", 1), ("b", 1), ("a", 1), ("b", 1)]
    async with Client(database_url, app=APP) as client:
        assert len(await client.projections.skipped()) == 1


async def test_what_was_handled_and_is_passed_over_now_is_not_to_be_made_good_for(database_url: str) -> None:
    await commit(database_url, [start("a")], [start("bad")])
    await catch_up(database_url, app_with(Mended))
    last = await given(database_url, app_with(Lenient), "lenient")
    assert (last.handled, last.skipped) == (1, 1)
    async with Client(database_url, app=APP) as client:
        assert await client.projections.skipped() == []
    assert (await given(database_url, app_with(Mended), "lenient", skipped=True)).handled == 0
    assert rows(database_url, SEEN) == [("a", 1), ("bad", 1), ("a", 1)]


async def test_what_keeps_the_projection_from_what_is_new_does_not_end_it(database_url: str) -> None:
    await commit(database_url, *([start("a")] for _ in range(20)))
    app = app_with(Seen)
    await catch_up(database_url, app)
    (new,) = await commit(database_url, [start("b")])
    with psycopg.connect(database_url) as connection:
        connection.execute("alter table holdfast.events disable trigger user")
        connection.execute("update holdfast.events set data = '[]' where instance_id = %s", [new])
    await settle(database_url)
    assert (await given(database_url, app, "seen")).handled == 20
    async with Client(database_url, app=APP) as client:
        (lag,) = await client.projections.lag()
    assert (lag.status, lag.handled) == ("running", 20)
    assert "UnreadableEvent" in (lag.error or "")


async def test_what_the_database_refuses_at_the_commit_is_the_handlers_fault(database_url: str) -> None:
    class Deferred(Seen):
        name = "seen"
        create = Seen.create + "; create unique index on seen (what)"

    class Late(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
            await tx.execute("insert into seen (what) values ('twice'), ('twice')")

    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Deferred))
    with pytest.raises(ReplayStopped, match="UniqueViolation"):
        await given(database_url, app_with(Late), "seen")
    assert rows(database_url, "select what from shop_seen.seen") == [("a",)]


async def test_while_it_is_rebuilt_a_projection_is_given_nothing(database_url: str) -> None:
    await commit(database_url, [start("a")])
    app = app_with(Seen)
    await catch_up(database_url, app)
    rebuilding = projecting.rebuild(app, "seen", Settings(database_url=database_url))
    await anext(rebuilding)
    with pytest.raises(ReplayRefused, match="projection seen is being built"):
        await given(database_url, app, "seen")
    async for _ in rebuilding:
        pass
    assert (await given(database_url, app, "seen")).handled == 1


async def test_a_rebuild_that_begins_meanwhile_ends_it(database_url: str) -> None:
    await commit(database_url, *([start("a")] for _ in range(30)))
    app = app_with(Seen)
    await catch_up(database_url, app)
    async with Client(database_url, app=APP) as client:
        steps = client.replays.into(app, "seen")
        await anext(steps)
        assert (await anext(steps)).handled == 10
        rebuilding = projecting.rebuild(app, "seen", Settings(database_url=database_url))
        await anext(rebuilding)
        with pytest.raises(ReplayRefused, match="is being built"):
            await anext(steps)
        async for _ in rebuilding:
            pass
    assert rows(database_url, "select count(*)::int from shop_seen.seen") == [(30,)]


async def test_tables_of_other_code_are_left_alone(database_url: str) -> None:
    class Newer(Seen):
        name = "seen"
        version = 2

    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Seen))
    with pytest.raises(ReplayRefused, match=r"are of version 1, and the code is of 2: rebuild it"):
        await given(database_url, app_with(Newer), "seen")


async def test_a_projection_has_to_be_there(database_url: str) -> None:
    with pytest.raises(ProjectionNotFound, match="there is no projection 'nonsense'"):
        await given(database_url, app_with(Seen), "nonsense")
    with pytest.raises(ProjectionNotFound, match="there is no projection 'seen'"):
        await given(database_url, app_with(Seen), "seen")


async def test_a_page_that_takes_too_long_is_given_up(database_url: str) -> None:
    class Stuck(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
            await asyncio.Event().wait()

    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Seen))
    async with Client(database_url, app=APP) as client:
        with pytest.raises(StorageError, match=r"a page took longer than 0\.1 s"):
            assert [step async for step in client.replays.into(app_with(Stuck), "seen", timeout=0.1)] == []
