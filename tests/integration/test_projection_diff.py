"""What differs between the tables of a projection at two places in the log, row by row."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from holdfast import Client, Projection, ProjectionError, ProjectionNotFound
from holdfast import Transaction as Tx
from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceStarted
from holdfast.processor import projecting
from holdfast.projections.rows import RowChange
from holdfast.schemas.settings import Settings
from tests.support.projections import APP, Seen, Started, app_with, catch_up, commit, start
from tests.support.scratches import Small, diff, end_of, rebuild, schemas


async def test_rows_that_differ_are_told_by_key(database_url: str) -> None:
    await commit(database_url, [start("a")], [start("b")])
    first = await end_of(database_url)
    await commit(database_url, [start("b")], [start("c")])
    await catch_up(database_url, app_with(Small))
    changed = RowChange(
        table="started",
        copies=1,
        kind="changed",
        key={"workflow": "b"},
        before={"workflow": "b", "instances": 1},
        after={"workflow": "b", "instances": 2},
    )
    added = replace(changed, kind="added", key={"workflow": "c"}, before=None, after={"workflow": "c", "instances": 1})
    assert await diff(database_url, first, "live") == [changed, added]
    # Which is the other way round if it is asked for so.
    assert [(it.kind, it.key) for it in await diff(database_url, await end_of(database_url), first)] == [
        ("changed", {"workflow": "b"}),
        ("removed", {"workflow": "c"}),
    ]
    assert await diff(database_url, await end_of(database_url), "live") == []
    assert await diff(database_url, "live", "live") == []
    assert {*schemas(database_url)} == {"public", "shop_started"}
    await rebuild(database_url, first)
    async with Client(database_url, app=APP) as client:
        assert [it async for it in client.projections.diff("started", "past", "live")] == [changed, added]


async def test_who_has_seen_enough_leaves_nothing_open(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    await commit(database_url, [start("a")], [start("b")])
    await rebuild(database_url, Cursor(0, 0, 0))
    await catch_up(database_url, app_with(Small))
    settings = Settings(database_url=database_url)
    async with Client(database_url, app=APP) as client:
        for found in (
            client.projections.diff("started", "past", "live"),
            projecting.diff(app_with(Small), "started", settings, "past", "live"),
        ):
            async for change in found:
                assert change.kind == "added"
                break
            await found.aclose()  # type: ignore[attr-defined]  # It is a generator.
            assert await client.projections.cursor()
    assert caplog.messages == []


async def test_rows_of_tables_without_a_key_are_told_by_their_copies(database_url: str) -> None:
    class Bag(Projection):
        create = 'create table "A bag" (what text); create table pairs (a int, "B" text, n int, primary key ("B", a))'

        async def started(self, tx: Tx, events: Sequence[InstanceStarted]) -> None:
            await tx.execute('insert into "A bag" select unnest(%s::text[])', [[e.workflow for e in events]])
            await tx.execute(
                "insert into pairs select 1, what, count(*) from unnest(%s::text[]) w (what) group by what"
                ' on conflict ("B", a) do update set n = pairs.n + excluded.n',
                [[e.workflow for e in events]],
            )

    await commit(database_url, [start("a")], [start("a")])
    first = await end_of(database_url)
    await commit(database_url, [start("a")], [start("b")], [start("b")])
    found = await diff(database_url, first, await end_of(database_url), Bag)
    assert [(it.table, it.kind, it.key, it.copies) for it in found] == [
        ("A bag", "added", None, 1),
        ("A bag", "added", None, 2),
        ("pairs", "changed", {"B": "a", "a": 1}, 1),
        ("pairs", "added", {"B": "b", "a": 1}, 1),
    ]
    assert [it.after for it in found[:2]] == [{"what": "a"}, {"what": "b"}]


async def test_a_table_that_only_one_of_them_has_is_all_added(database_url: str) -> None:
    class More(Small):
        version = 2
        create = f"{Started.create}; create table more as select 1 as one"

    place = await end_of(database_url)
    await rebuild(database_url, place)
    await rebuild(database_url, place, "more", More)
    (found,) = await diff(database_url, "past", "more")
    assert (found.table, found.kind, found.after) == ("more", "added", {"one": 1})


async def test_many_rows_that_differ_come_a_few_at_a_time(database_url: str) -> None:
    class Wide(Projection):
        create = "create table wide (id int primary key, text text)"

        async def started(self, tx: Tx, event: InstanceStarted) -> None:
            await tx.execute("insert into wide select n, repeat('x', 100) from generate_series(1, 20000) n")

    await commit(database_url, [start()])
    count = 0
    app = app_with(Wide)
    async for change in projecting.diff(
        app, "wide", Settings(database_url=database_url), Cursor(0, 0, 0), await end_of(database_url)
    ):
        count += 1
        assert change.key == {"id": count}
    assert count == 20_000
    assert schemas(database_url) == ["public"]


async def test_what_is_no_build_of_the_projection_cannot_be_compared(database_url: str) -> None:
    await rebuild(database_url, await end_of(database_url), "seen", Seen)
    with pytest.raises(ProjectionError, match="schema seen is no scratch of projection started"):
        await diff(database_url, "seen", "seen")
    with pytest.raises(ProjectionError, match="projection started has no tables yet that readers see"):
        await diff(database_url, "live", "seen")
    with pytest.raises(ProjectionNotFound):
        [it async for it in projecting.diff(app_with(Seen), "started", Settings(database_url=database_url), "a", "b")]
