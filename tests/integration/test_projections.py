"""Subscribed projections follow the log: nothing skipped, nothing twice, by whichever process."""

import asyncio
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from structlog.testing import capture_logs

from compose.local.services import Services
from holdfast import (
    App,
    Client,
    ProjectionError,
    ProjectionNotFound,
    ProjectionStopped,
    RecordedEvent,
    StorageError,
    Transaction,
)
from holdfast.events.types import Event, InstanceResumed, InstanceStarted
from holdfast.processor.services.follower import TRIES, Step
from holdfast.processor.store.unit_of_work import Handle
from holdfast.projections import subscription
from holdfast.projections.subscription import Build
from tests.support.projections import (
    APP,
    Lenient,
    Seen,
    Started,
    app_with,
    catch_up,
    commit,
    life,
    projector,
    rows,
    settle,
    start,
    write,
)

WHAT = "select what from shop_seen.seen order by place"


def client(url: str) -> Client:
    return Client(url, app=APP)


async def test_each_event_of_the_app_is_handled_once_in_order(database_url: str) -> None:
    app = app_with(Seen, Started)
    await commit(database_url, *[life(f"w{number}", f"r{number}") for number in range(25)])
    await commit(database_url, life("elsewhere"), app="another")
    await catch_up(database_url, app)
    await commit(database_url, life("w0", "last"))
    await catch_up(database_url, app)
    await catch_up(database_url, app)

    expected = [(what,) for number in range(25) for what in (f"w{number}", f"r{number}")] + [("w0",), ("last",)]
    assert rows(database_url, WHAT) == expected
    assert rows(database_url, "select distinct version from shop_seen.seen order by 1") == [(1,), (3,)]
    started = dict(rows(database_url, "select workflow, instances from shop_started.started"))
    assert started == {"w0": 2} | {f"w{number}": 1 for number in range(1, 25)}
    async with client(database_url) as it:
        lags = {lag.name: lag for lag in await it.projections.lag()}
    assert {name: (lag.build, lag.handled, lag.events_behind, lag.skipped) for name, lag in lags.items()} == {
        "seen": ("live", 52, 0, 0),
        "started": ("live", 26, 0, 0),
    }
    assert lags["seen"].time_behind == timedelta(0)


async def test_what_commits_late_is_waited_for_and_never_skipped(database_url: str) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    async with await AsyncConnection.connect(database_url) as slow, projector(database_url, app) as it:
        # The slow transaction has the lower transaction id and the lower positions, and commits last.
        await write(slow, [[start("slow")]])
        await commit(database_url, [start("fast")])
        await it.catch_up()
        assert rows(database_url, WHAT) == []
        async with client(database_url) as observer:
            (lag,) = await observer.projections.lag()
            assert (lag.events_behind, lag.status) == (1, "running")
        await slow.commit()
        await settle(database_url)
        await it.catch_up()
    assert rows(database_url, WHAT) == [("slow",), ("fast",)]


@pytest.mark.parametrize("is_of_another_database", [False, True])
async def test_a_transaction_elsewhere_that_stays_open_delays_and_nothing_more(
    database_url: str, services: Services, *, is_of_another_database: bool
) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    where = services.database_url if is_of_another_database else database_url
    async with await AsyncConnection.connect(where) as idler, projector(database_url, app) as it:
        await idler.execute("select pg_current_xact_id()")
        await commit(database_url, [start("one")])
        await it.catch_up()
        assert rows(database_url, WHAT) == []
        async with await AsyncConnection.connect(database_url) as slow:
            await write(slow, [[start("two")]])
            await commit(database_url, [start("three")])
            await idler.rollback()
            await it.catch_up()  # Up to the transaction that is still open, no further.
            assert rows(database_url, WHAT) == [("one",)]
        await settle(database_url)
        await it.catch_up()
    assert rows(database_url, WHAT) == [("one",), ("two",), ("three",)]


# Protocol: I22.
async def test_many_writers_that_commit_in_any_order_are_all_seen(database_url: str) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    done = asyncio.Event()

    async def follow() -> None:
        async with projector(database_url, app) as it:
            while not done.is_set():
                await it.catch_up()

    async def write_some(number: int) -> None:
        async with await AsyncConnection.connect(database_url) as connection:
            for round_ in range(8):
                await write(connection, [[start(f"{number}-{round_}")]])
                await connection.execute("select pg_sleep(%s)", [(number * 7 + round_ * 3) % 5 / 100])
                await connection.commit()

    followers = [asyncio.create_task(follow()) for _ in range(2)]
    await asyncio.gather(*(write_some(number) for number in range(6)))
    done.set()
    await asyncio.gather(*followers)
    await catch_up(database_url, app)
    found = [what for (what,) in rows(database_url, WHAT)]
    assert sorted(found) == sorted(f"{number}-{round_}" for number in range(6) for round_ in range(8))
    for number in range(6):
        mine = [what for what in found if what.startswith(f"{number}-")]
        assert mine == [f"{number}-{round_}" for round_ in range(8)]


# Protocol: D21.
async def test_two_processes_share_a_projection_and_one_takes_over_when_the_other_dies(database_url: str) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    await commit(database_url, *[[start(str(number))] for number in range(30)])
    await settle(database_url)
    async with await AsyncConnection.connect(database_url) as holder, projector(database_url, app) as it:
        # A process in the middle of a page: it has the lock, and has written.
        live = Build(app.subscriptions[0], "live")
        page = await subscription.advance(holder, live, Handle(holder))
        assert page is not None
        assert len(page.events) == 10
        follower = await it._register(app.subscriptions[0])
        assert await follower.step() == Step(is_elsewhere=True)  # It gives way.
        assert rows(database_url, WHAT) == []
        await holder.close()  # It dies; what it wrote goes with it.
        await it.catch_up()
    assert [int(what) for (what,) in rows(database_url, WHAT)] == [*range(30)]


# Protocol: I22.
async def test_the_writes_and_the_checkpoint_of_a_page_commit_together(database_url: str) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    await commit(database_url, *[[start(str(number))] for number in range(5)])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "create function deny() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$"
        )
        connection.execute(
            "create constraint trigger deny after insert on shop_seen.seen deferrable initially deferred"
            " for each row when (new.what = '3') execute function deny()"
        )
    # It is refused at the commit, after the checkpoint was moved: the page is rolled back, and its events taken singly.
    await catch_up(database_url, app)
    assert rows(database_url, WHAT) == [("0",), ("1",), ("2",)]
    async with client(database_url) as it:
        (lag,) = await it.projections.lag()
    assert (lag.status, lag.handled, lag.events_behind) == ("stopped", 3, 2)


async def test_a_poison_event_stops_the_projection_until_somebody_decides(database_url: str) -> None:
    app = app_with(Seen, Started)
    (_, bad, _) = await commit(database_url, [start("a")], [start("bad")], [start("b")])
    await catch_up(database_url, app)
    await commit(database_url, life("order"))
    async with client(database_url) as it:
        assert rows(database_url, "select to_regclass('shop_seen.seen') is null") == [(True,)]  # Not yet to be seen.
        before, other = await it.projections.lag()
        assert (before.name, before.build, before.status, before.handled) == ("seen", "next", "stopped", 1)
        assert before.error == "ValueError: a bad one"
        assert (before.failed_instance_id, before.failed_version) == (bad, 1)
        assert (other.name, other.status) == ("started", "running")
        with pytest.raises(ProjectionStopped, match="a bad one"):
            await it.projections.wait_until("seen")

        assert await it.projections.resume("seen")  # Nothing was mended, so it stops again.
        await catch_up(database_url, app)
        assert (await it.projections.lag())[0].status == "stopped"

        assert await it.projections.skip("seen")
        assert not await it.projections.skip("seen")
        await catch_up(database_url, app)
        await it.projections.wait_until("seen")
        assert rows(database_url, WHAT) == [("a",), ("b",), ("order",), ("done",)]
        after, _ = await it.projections.lag()
        assert (after.build, after.status, after.error, after.skipped) == ("live", "running", None, 1)
        (skipped,) = await it.projections.skipped()
        assert (skipped.instance_id, skipped.version, skipped.type) == (bad, 1, "InstanceStarted")
        assert skipped.error == "ValueError: a bad one"


async def test_a_projection_may_pass_over_poison_and_keep_what_it_was(database_url: str) -> None:
    app = app_with(Lenient)
    ids = await commit(database_url, *[[start("bad" if number % 4 == 1 else str(number))] for number in range(12)])
    await catch_up(database_url, app)
    assert rows(database_url, "select what from shop_lenient.seen order by place") == [
        (str(number),) for number in range(12) if number % 4 != 1
    ]
    async with client(database_url) as it:
        (lag,) = await it.projections.lag()
        assert (lag.status, lag.handled, lag.skipped, lag.events_behind) == ("running", 9, 3, 0)
        assert {skipped.instance_id for skipped in await it.projections.skipped("lenient")} == {ids[1], ids[5], ids[9]}


async def test_a_failure_of_the_server_is_tried_again_and_shown(database_url: str) -> None:
    app = app_with(Seen)
    await catch_up(database_url, app)
    await commit(database_url, [start("a")])
    await settle(database_url)
    async with await AsyncConnection.connect(database_url) as blocker, projector(database_url, app) as it:
        await blocker.execute("lock table shop_seen.seen")
        async with projector(database_url, app, transaction_timeout=0.3) as impatient:
            with pytest.raises(StorageError, match="lock timeout"):
                await impatient.catch_up()
        async with client(database_url) as observer:
            (lag,) = await observer.projections.lag()
        assert (lag.status, lag.events_behind) == ("running", 1)
        assert lag.error is not None
        assert "LockNotAvailable" in lag.error
        await blocker.rollback()
        await it.catch_up()
    assert rows(database_url, WHAT) == [("a",)]


class Refused(Lenient):
    """The database refuses what it does with an event ``refused``, by what is told of it."""

    name = "lenient"
    statement: LiteralString = ""

    async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
        await tx.execute("insert into seen (what, version) values (%s, %s)", (event.workflow, recorded.version))
        if event.workflow == "refused":
            await tx.execute(self.statement)


def refusing(statement: LiteralString) -> App:
    return app_with(type("Refusing", (Refused,), {"statement": statement}))


OF_THE_EVENT: dict[str, LiteralString] = {
    "54000": "create temporary table big (t text unique) on commit drop;"
    " insert into big select string_agg(md5(random()::text), '') from generate_series(1, 300)",
    "55000": "do $$ begin raise 'not now' using errcode = '55000'; end $$",
    "57014": "set local statement_timeout = '10ms'; select pg_sleep(60)",
    "22012": "select 1 / 0",
    "42601": "selct",
}
OF_THE_SERVER = ("08006", "25006", "40001", "40P01", "53100", "55P03", "57P01", "58030")


@pytest.mark.parametrize("what", OF_THE_EVENT)
async def test_what_the_database_will_never_take_is_the_fault_of_its_event(database_url: str, what: str) -> None:
    await commit(database_url, [start("a")], [start("refused")], [start("b")])
    await catch_up(database_url, refusing(OF_THE_EVENT[what]))
    assert rows(database_url, "select what from shop_lenient.seen order by place") == [("a",), ("b",)]
    async with client(database_url) as it:
        assert len(await it.projections.skipped("lenient")) == 1


@pytest.mark.parametrize("code", OF_THE_SERVER)
async def test_what_a_server_may_take_later_is_nobodys_fault(database_url: str, code: LiteralString) -> None:
    app = refusing("do $$ begin raise 'not now' using errcode = '" + code + "'; end $$")
    await commit(database_url, [start("a")], [start("refused")], [start("b")])
    with pytest.raises(StorageError, match="not now"):
        await catch_up(database_url, app)
    async with client(database_url) as it:
        assert await it.projections.skipped("lenient") == []
        (lag,) = await it.projections.lag()
    assert (lag.status, lag.handled) == ("running", 0)
    await catch_up(database_url, refusing("select 1"))
    assert len(rows(database_url, "select * from shop_lenient.seen")) == 3


async def test_an_event_that_takes_too_long_again_and_again_is_to_blame(database_url: str) -> None:
    tries = 0

    class Slow(Lenient):
        name = "lenient"

        async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
            nonlocal tries
            if event.workflow == "slow":
                tries += 1
                await asyncio.Event().wait()
            await super().started(tx, event, recorded)

    await commit(database_url, [start("a")], [start("slow")], [start("b")])
    await settle(database_url)
    async with projector(database_url, app_with(Slow), transaction_timeout=1) as it:
        await it.catch_up()
    assert rows(database_url, "select what from shop_lenient.seen order by place") == [("a",), ("b",)]
    assert tries == 1 + TRIES  # With its page, and by itself.
    async with client(database_url) as observer:
        (skipped,) = await observer.projections.skipped("lenient")
    assert skipped.error == "TimeoutError: it took longer than 1 s"


async def test_a_reader_waits_for_its_own_writes(database_url: str) -> None:
    app = app_with(Started)
    await catch_up(database_url, app)
    async with client(database_url) as it, projector(database_url, app, projection_poll=0.01) as running:
        with pytest.raises(ProjectionNotFound):
            await it.projections.wait_until("nonsense")
        await commit(database_url, [start("a")])
        cursor = await it.projections.cursor()
        with pytest.raises(TimeoutError):
            await it.projections.wait_until("started", cursor, timeout=timedelta(seconds=0.1))
        task = asyncio.create_task(running.run())
        await it.projections.wait_until("started", cursor)
        assert rows(database_url, "select * from shop_started.started") == [("a", 1)]
        task.cancel()
        await asyncio.wait([task])


async def test_events_that_nobody_wants_need_not_be_known(database_url: str) -> None:
    app = app_with(Started)
    await commit(database_url, [start("a")])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """
            insert into holdfast.events (instance_id, version, type, data, metadata)
            values (gen_random_uuid(), 1, 'OfTomorrow', '{}', '{"app": "shop"}')
            """
        )
    await commit(database_url, [start("b")])
    await catch_up(database_url, app)
    assert len(rows(database_url, "select * from shop_started.started")) == 2


async def test_code_of_another_version_leaves_a_projection_alone(database_url: str) -> None:
    class Newer(Started):
        name = "started"
        version = 2

    await commit(database_url, [start("a")])
    await catch_up(database_url, app_with(Started))
    await commit(database_url, [start("b")])
    with capture_logs() as logs, pytest.raises(ProjectionError, match="version 1, and the code is of 2: rebuild it"):
        await catch_up(database_url, app_with(Newer))
    assert [(entry["projection"], entry["tables"], entry["code"]) for entry in logs] == [("started", 1, 2)]
    assert rows(database_url, "select * from shop_started.started") == [("a", 1)]
    await catch_up(database_url, app_with(Started))
    assert len(rows(database_url, "select * from shop_started.started")) == 2


async def test_observers_may_look_at_it_all(database_url: str) -> None:
    app = app_with(Started)
    await commit(database_url, [start("a")])
    await catch_up(database_url, app)
    with psycopg.connect(database_url) as connection:
        connection.execute("set role holdfast_observer")
        connection.execute("select * from shop_started.started")
        connection.execute("select * from holdfast.projection_lag")
        connection.execute("select * from holdfast.messages_by_verdict")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from shop_started.started")


def resumed(count: int) -> list[Event]:
    return [InstanceResumed(by=str(number)) for number in range(count)]


async def test_the_checkpoint_passes_what_is_not_wanted(database_url: str) -> None:
    app: Any = app_with(Started)
    await catch_up(database_url, app)
    await commit(database_url, resumed(5000))
    await catch_up(database_url, app)
    async with client(database_url) as it:
        (lag,) = await it.projections.lag()
        assert (lag.events_behind, lag.handled) == (0, 0)
        assert lag.cursor == await it.projections.cursor()
