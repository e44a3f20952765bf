"""A projection is rebuilt beside its tables: readers find these whole at every moment."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from holdfast import Client, ProjectionError, ProjectionStopped, RebuildRefused, ReplayRefused, Transaction
from holdfast.events.types import InstanceStarted
from holdfast.processor import projecting
from holdfast.projections import subscription
from holdfast.projections.lag import Progress
from holdfast.projections.subscription import Build
from holdfast.schemas.settings import Settings
from tests.support.commands import HOLDFAST, ROOT, holdfast
from tests.support.projections import (
    APP,
    Seen,
    Started,
    app_with,
    catch_up,
    commit,
    projector,
    rows,
    settle,
    start,
)
from tests.support.rebuilds import SCHEMAS, STARTED, Counted, fill, rebuild
from tests.support.workers import environment, eventually


async def test_a_rebuild_replaces_the_tables_by_what_the_new_code_makes_of_the_log(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    steps = await rebuild(database_url, Counted)
    assert rows(database_url, STARTED) == [(2000,)]
    assert len(steps) >= 5
    assert [step.position for step in steps] == sorted(step.position for step in steps)
    assert steps[-1].position == steps[-1].end
    # The new code goes on where the rebuild ended, the old code leaves it alone, and nothing is left over.
    await fill(database_url, 1)
    with pytest.raises(ProjectionError, match="of version 2, and the code is of 1"):
        await catch_up(database_url, app_with(Started))
    assert rows(database_url, STARTED) == [(2000,)]
    await catch_up(database_url, app_with(Counted))
    assert rows(database_url, STARTED) == [(2002,)]
    assert rows(database_url, "select nspname from pg_namespace where nspname like 'shop%'") == [("shop_started",)]
    async with Client(database_url, app=APP) as client:
        (lag,) = await client.projections.lag()
    assert (lag.build, lag.version, lag.handled) == ("live", 2, 1001)


async def test_a_second_rebuild_of_the_same_projection_waits_its_turn_and_holds_nobody_up(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    app = app_with(Counted)
    build = Build(app.subscriptions[0], "next")
    async with asyncio.timeout(60), await AsyncConnection.connect(database_url) as first:
        second = projecting.rebuild(app, "started", Settings(database_url=database_url))
        assert (await anext(second)).position == 0
        await subscription.lock(first, build)  # A first process is in the middle of a page.
        assert [(await anext(second)).position for _ in range(3)] == [0, 0, 0]
        await fill(database_url, 1)
        await catch_up(database_url, app_with(Started))  # The live tables are nobody's.
        assert rows(database_url, STARTED) == [(1001,)]
        await first.rollback()
        assert len([step async for step in second]) >= 4
    assert rows(database_url, STARTED) == [(2002,)]


async def test_several_rebuilds_of_one_projection_at_a_time_are_one(database_url: str) -> None:
    class Small(Counted):
        page = 20

    await fill(database_url, 2000)
    await catch_up(database_url, app_with(Started))
    found = await asyncio.gather(*(rebuild(database_url, Small) for _ in range(3)))
    assert rows(database_url, STARTED) == [(4000,)]
    assert rows(database_url, "select build, handled::int from holdfast.projections") == [("live", 2000)]
    # Nobody saw the new tables come in one leap.
    seen = sorted({step.position for steps in found for step in steps})
    assert max(after - before for before, after in pairwise(seen)) <= 3 * 2 * 20


async def test_the_swap_handles_a_page_at_most_and_is_put_off_where_more_is_left(database_url: str) -> None:
    await fill(database_url, 500)
    await catch_up(database_url, app_with(Started))
    app = app_with(Counted)
    async with projector(database_url, app) as it:
        follower = it.follower(Build(app.subscriptions[0], "next"))
        await follower.begin(restart=False)
        handled = "select handled::int from holdfast.projections where build = 'next'"
        assert not await follower.promote()
        assert rows(database_url, handled) == [(200,)]
        assert not await follower.promote()
        assert rows(database_url, handled) == [(400,)]
        assert rows(database_url, STARTED) == [(500,)]
        assert await follower.promote()
    assert rows(database_url, STARTED) == [(1000,)]


async def test_an_interrupted_rebuild_goes_on_where_it_was(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    app = app_with(Counted)
    begun: AsyncIterator[Progress] = projecting.rebuild(app, "started", Settings(database_url=database_url))
    async for step in begun:
        if step.position >= 400:
            break
    await begun.aclose()  # type: ignore[attr-defined]  # It is a generator.
    assert rows(database_url, STARTED) == [(1000,)]
    async with Client(database_url, app=APP) as client:
        live, following = await client.projections.lag()
    assert (live.version, following.version, following.handled) == (1, 2, 400)

    steps = await rebuild(database_url, Counted)
    assert steps[0].position == following.handled
    assert rows(database_url, STARTED) == [(2000,)]


async def test_an_interrupted_rebuild_may_be_begun_again(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    async for step in projecting.rebuild(app_with(Counted), "started", Settings(database_url=database_url)):
        if step.position >= 400:
            break
    steps = await rebuild(database_url, Counted, restart=True)
    assert steps[0].position == 0
    assert rows(database_url, STARTED) == [(2000,)]


RIGHTS = """
select c.relname, a.grantee::regrole::text, a.privilege_type, a.is_grantable, c.relowner::regrole::text
from pg_class c, aclexplode(c.relacl) a where c.relnamespace = 'shop_kept'::regnamespace
union all
select 'schema', a.grantee::regrole::text, a.privilege_type, a.is_grantable, n.nspowner::regrole::text
from pg_namespace n, aclexplode(n.nspacl) a where n.nspname = 'shop_kept'
union all
select t.attname, a.grantee::regrole::text, a.privilege_type, a.is_grantable, ''
from pg_attribute t, aclexplode(t.attacl) a where t.attrelid = 'shop_kept.secrets'::regclass
union all
select p.proname, a.grantee::regrole::text, a.privilege_type, a.is_grantable, p.proowner::regrole::text
from pg_proc p, aclexplode(p.proacl) a where p.pronamespace = 'shop_kept'::regnamespace
union all
select d.defaclobjtype::text, a.grantee::regrole::text, a.privilege_type, a.is_grantable, d.defaclrole::regrole::text
from pg_default_acl d, aclexplode(d.defaclacl) a where d.defaclnamespace = 'shop_kept'::regnamespace
order by 1, 2, 3
"""


class Kept(Started):
    create = """
        create table started (workflow text primary key, instances bigint not null);
        create table secrets (number bigint generated always as identity, word text);
        create view words as select word from secrets;
        create function answer() returns int language sql return 42;
    """


async def test_what_readers_may_do_with_the_tables_stays_as_it_was(database_url: str) -> None:
    await catch_up(database_url, app_with(Kept))
    screen, clerk, keeper = (f"holdfast_{name}_{uuid4().hex[:8]}" for name in ("screen", "clerk", "keeper"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in (
            *(f"create role {name}" for name in (screen, clerk, keeper)),
            f"grant usage on schema shop_kept to {screen}, {clerk}",
            f"grant select on shop_kept.started to {screen} with grant option",
            f"grant insert, update on shop_kept.started, shop_kept.words to {clerk}",
            f"grant select (word) on shop_kept.secrets to {clerk}",
            f"grant usage on shop_kept.secrets_number_seq to {clerk}",
            f"grant execute on function shop_kept.answer() to {clerk}",
            "revoke execute on function shop_kept.answer() from public",
            "revoke all on shop_kept.secrets from holdfast_observer",
            f"alter default privileges in schema shop_kept grant select on tables to {screen}",
            f"alter table shop_kept.secrets owner to {keeper}",
        ):
            connection.execute(statement.encode())
    before = rows(database_url, RIGHTS)
    assert {grantee for _, grantee, *_ in before} >= {screen, clerk}

    class More(Kept):
        name = "kept"
        version = 2
        create = Kept.create + "create table more (n int)"

    await rebuild(database_url, More)
    assert [it for it in rows(database_url, RIGHTS) if it[0] != "more"] == before
    # What is new is open to whom the schema's default privileges name, and to observers.
    new = {(grantee, privilege) for what, grantee, privilege, *_ in rows(database_url, RIGHTS) if what == "more"}
    assert {(screen, "SELECT"), ("holdfast_observer", "SELECT")} <= new
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in (screen, clerk, keeper):
            connection.execute(sql.SQL("drop owned by {0} cascade").format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop role {0}").format(sql.Identifier(name)))


async def test_a_rebuild_that_is_not_wanted_any_more_is_dropped(database_url: str) -> None:
    await fill(database_url, 1000)
    await catch_up(database_url, app_with(Started))
    app = app_with(Counted)
    under_way = projecting.rebuild(app, "started", Settings(database_url=database_url))
    for _ in range(3):
        await anext(under_way)
    async with Client(database_url, app=APP) as client:
        with pytest.raises(ReplayRefused, match="drop schema shop_started__next with `holdfast projections drop`"):
            await client.replays.count_into(app_with(Started), "started")
        assert [lag.build for lag in await client.projections.lag()] == ["live", "next"]
        assert not await client.projections.drop("shop_started")
        assert await client.projections.drop("shop_started__next")
        assert not await client.projections.drop("shop_started__next")
        assert [lag.build for lag in await client.projections.lag()] == ["live"]
        await client.replays.count_into(app_with(Started), "started")
    # Who is at work on it is told, and does not take what was there before for its own.
    with pytest.raises(RebuildRefused, match="has been dropped meanwhile"):
        _ = [step async for step in under_way]
    assert rows(database_url, SCHEMAS) == [("shop_started",)]
    assert rows(database_url, STARTED) == [(1000,)]
    await rebuild(database_url, Counted)
    assert rows(database_url, STARTED) == [(2000,)]


async def test_a_poison_event_stops_a_rebuild_and_harms_no_reader(database_url: str) -> None:
    class Older(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted) -> None:  # type: ignore[override]
            await tx.execute("insert into seen (what) values (%s)", [event.workflow])

    class Newer(Seen):
        name = "seen"
        version = 2

    await commit(database_url, [start("a")], [start("bad")], [start("b")])
    await catch_up(database_url, app_with(Older))
    with pytest.raises(ProjectionStopped, match="a bad one"):
        await rebuild(database_url, Newer)
    assert len(rows(database_url, "select * from shop_seen.seen")) == 3
    async with Client(database_url, app=APP) as client:
        assert [lag.status for lag in await client.projections.lag()] == ["running", "stopped"]
        assert await client.projections.skip("seen")
        await rebuild(database_url, Newer)
        assert [(lag.build, lag.skipped) for lag in await client.projections.lag()] == [("live", 1)]
    assert rows(database_url, "select what from shop_seen.seen order by 1") == [("a",), ("b",)]


async def test_a_poison_event_that_comes_at_the_last_moment_stops_a_rebuild_like_any_other(database_url: str) -> None:
    class Older(Seen):
        name = "seen"

        async def started(self, tx: Transaction, event: InstanceStarted) -> None:  # type: ignore[override]
            await tx.execute("insert into seen (what) values (%s)", [event.workflow])

    class Newer(Seen):
        name = "seen"
        version = 2

    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Older))
    async with projector(database_url, app_with(Newer)) as it:
        follower = it.follower(Build(app_with(Newer).subscriptions[0], "next"))
        await follower.begin(restart=False)
        assert (await follower.step()).seen == 1
        await commit(database_url, [start("bad")])
        await catch_up(database_url, app_with(Older))
        assert not await follower.promote()
    with pytest.raises(ProjectionStopped, match="a bad one"):
        await rebuild(database_url, Newer)
    assert len(rows(database_url, "select * from shop_seen.seen")) == 2


async def test_of_two_versions_that_build_for_the_first_time_the_newer_one_stays(database_url: str) -> None:
    await fill(database_url, 500)
    await settle(database_url)
    async with projector(database_url, app_with(Counted)) as it:
        follower = await it._register(app_with(Counted).subscriptions[0])
        assert (await follower.step()).seen == 200
        with pytest.raises(ProjectionError, match="of version 2, and the code is of 1"):
            await catch_up(database_url, app_with(Started))
        async with Client(database_url, app=APP) as client:
            assert [(lag.version, lag.handled) for lag in await client.projections.lag()] == [(2, 200)]
        await it.catch_up()
    assert rows(database_url, STARTED) == [(1000,)]


async def test_what_others_made_of_the_tables_is_not_torn_down(database_url: str) -> None:
    await fill(database_url, 10)
    await catch_up(database_url, app_with(Started))
    with psycopg.connect(database_url) as connection:
        connection.execute("create view totals as select sum(instances) from shop_started.started")
    with pytest.raises(RebuildRefused, match=r"view public\.totals depends on tables of schema shop_started"):
        await rebuild(database_url, Counted)


async def test_a_projection_of_which_nothing_was_built_is_not_seen_before_it_is_complete(database_url: str) -> None:
    class Paged(Started):
        name = "started"
        page = 10

    await fill(database_url, 100)
    await settle(database_url)
    app = app_with(Paged)
    async with projector(database_url, app) as it:
        follower = await it._register(app.subscriptions[0])
        assert (await follower.step()).is_more
        assert not await follower.promote()
        assert rows(database_url, "select to_regnamespace('shop_started') is null") == [(True,)]
        await it.catch_up()
    assert rows(database_url, STARTED) == [(100,)]


async def test_what_comes_at_the_last_moment_does_not_keep_the_first_tables_from_readers(database_url: str) -> None:
    app = app_with(Started)
    await fill(database_url, 10)
    await settle(database_url)
    async with projector(database_url, app) as it:
        follower = await it._register(app.subscriptions[0])
        assert (await follower.step()).seen == 10
        await fill(database_url, 5)
        await settle(database_url)
        assert await follower.promote()
    assert rows(database_url, STARTED) == [(15,)]


async def test_the_first_tables_are_there_once_a_process_has_caught_up_however_busy_the_log_is(
    database_url: str,
) -> None:
    await fill(database_url, 300)
    done = asyncio.Event()

    async def publish() -> None:
        while not done.is_set():
            await fill(database_url, 1, "busy")

    publishing = [asyncio.create_task(publish()) for _ in range(2)]
    for number in range(8):
        it = type("Busy", (Started,), {"name": f"busy{number}", "page": 50})
        async with projector(database_url, app_with(it)) as process:
            await process.catch_up()
        with psycopg.connect(database_url) as connection:
            table = sql.Identifier(f"shop_busy{number}", "started")
            found = connection.execute(sql.SQL("select sum(instances) >= 300 from {}").format(table))
            assert found.fetchone() == (True,)
    done.set()
    await asyncio.gather(*publishing)


MODULE = """
from collections.abc import Sequence
from holdfast import App, Projection, Transaction
from holdfast.events.types import InstanceStarted

app = App("shop")


@app.projection
class Started(Projection):
    create = "create table started (place bigint generated always as identity, workflow text)"
    page = 50

    async def started(self, tx: Transaction, events: Sequence[InstanceStarted]) -> None:
        await tx.execute("insert into started (workflow) select unnest(%s::text[])", [[e.workflow for e in events]])
"""


def test_the_command_is_killed_and_run_again(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    env = environment(database_url, "") | {"PYTHONPATH": str(tmp_path)}
    asyncio.run(fill(database_url, 20_000))
    asyncio.run(settle(database_url))
    assert holdfast("project", "shop:app", "--once", env=env).returncode == 0
    count = "select count(*)::int from shop_started.started"
    assert rows(database_url, count) == [(20_000,)]

    command: list[str | Path] = [HOLDFAST, "projections", "rebuild", "shop:app", "started"]
    handled = "select coalesce(max(handled), 0)::int from holdfast.projections where build = 'next'"
    process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE)
    eventually("it has begun", lambda: rows(database_url, handled)[0][0] >= 500, timeout=30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ((before,),) = rows(database_url, handled)
    assert 500 <= before < 20_000
    assert rows(database_url, count) == [(20_000,)]

    done = holdfast("projections", "rebuild", "shop:app", "started", env=env)
    assert (done.returncode, done.stdout) == (0, "projection started is rebuilt\n"), done.stderr
    # What was done before the kill was not done again: numbers are given out once.
    assert rows(database_url, "select count(*)::int, max(place)::int from shop_started.started")[0][0] == 20_000
    assert rows(database_url, "select max(place) < 20000 + 1000 from shop_started.started") == [(True,)]
    assert rows(database_url, handled) == [(0,)]
    listed = holdfast("projections", env=env)
    assert [line.split()[:6] for line in listed.stdout.splitlines()[1:]] == [
        ["shop", "started", "live", "running", "0", "20000"]
    ]
