"""A replay publishes history again: all that is meant, as the event feed does, and never to where an app listens."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from holdfast import (
    BrokerError,
    Client,
    ReplayNotFound,
    ReplayRefused,
    ReplayStopped,
    SettingsError,
    StorageError,
)
from holdfast.events.types import InstanceCompleted
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.publisher import Publisher
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.services.feed import feed
from holdfast.processor.services.projector import Projector
from holdfast.processor.services.replay import Replayer
from holdfast.processor.store.connections import Connections
from holdfast.schemas.settings import Settings
from tests.support.projections import commit, life, rows, settle, start, write
from tests.support.rabbitmq import remove_app, take_all
from tests.support.replays import ids, in_thread, queue, remove, replayed
from tests.support.roles import in_role


@pytest.fixture
async def heard(amqp_url: str, app_name: str) -> AsyncIterator[str]:
    """A queue that is bound to the exchange of the same name."""
    name = f"{app_name}-heard"
    await queue(amqp_url, name, exchange=name)
    yield name
    await remove(amqp_url, name, exchange=name)


@pytest.fixture
async def client(database_url: str, amqp_url: str, app_name: str) -> AsyncIterator[Client]:
    async with Client(database_url, amqp_url, app_name) as client:
        yield client


async def taken(amqp_url: str, name: str) -> list[Any]:
    found: list[Any] = await in_thread(take_all, amqp_url, name)
    return found


def now(database_url: str) -> datetime:
    ((moment,),) = rows(database_url, "select clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


def events(app: str) -> str:
    return f"holdfast.{app}.events"


async def test_events_come_as_the_feed_publishes_them_and_say_that_they_are_replayed(
    client: Client, database_url: str, amqp_url: str, app_name: str
) -> None:
    live, again = f"{app_name}-live", f"{app_name}-again"
    await queue(amqp_url, live, exchange=events(app_name))
    await commit(database_url, life("order"), life("ärger", "x" * 200_000), [start("späť")], app=app_name)
    await commit(database_url, life("elsewhere"), app="another")
    await settle(database_url)
    async with Connection(amqp_url, name="feed", heartbeat=10, random=Random(1)) as connection:  # noqa: S311 # A test.
        projector = Projector(
            [feed(app_name, Publisher(connection))], Settings(database_url=database_url), RealEnvironment()
        )
        await projector.catch_up()
        await projector.close()
    first = await taken(amqp_url, live)
    await queue(amqp_url, again, exchange=events(app_name))
    last = await replayed(client, database_url, "july", to_exchange=events(app_name))
    second = await taken(amqp_url, again)
    await in_thread(remove_app, amqp_url, app_name)
    assert len(first) == last.replay.published == 7
    began = last.replay.started_at.isoformat()
    for once, twice in zip(first, second, strict=True):
        assert twice.body == once.body
        assert twice.delivery.routing_key == once.delivery.routing_key
        properties = twice.header.properties
        assert properties.headers == {"x-holdfast-replayed": "july", "x-holdfast-replayed-at": began}
        properties.headers = once.header.properties.headers
        assert properties.marshal() == once.header.properties.marshal()


async def test_a_queue_gets_them_in_order_for_each_instance(
    client: Client, database_url: str, amqp_url: str, app_name: str
) -> None:
    name = f"{app_name}-queue"
    await queue(amqp_url, name)
    instances = await commit(database_url, *(life() for _ in range(400)), app=app_name)
    await replayed(client, database_url, to_queue=name)
    found = ids(await taken(amqp_url, name))
    assert len(found) == 1200
    for instance in instances:
        assert [it for it in found if str(it).startswith(str(instance))] == [f"{instance}:{v}" for v in (1, 2, 3)]


async def test_only_what_fits_goes_out(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    (order, other) = await commit(database_url, life("order"), [start("claim")], app=app_name)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into holdfast.instance_states (instance_id, state, promoted) values (%s, '', %s)",
            [other, '{"region": "north"}'],
        )

    async def published(**criteria: Any) -> list[str | None]:
        last = await replayed(client, database_url, to_exchange=heard, **criteria)
        found = ids(await taken(amqp_url, heard))
        await queue(amqp_url, heard, exchange=heard)
        assert last.replay.published == len(found)
        counted = await client.replays.count(**criteria)
        assert sum(counted.values()) == len(found)
        return found

    everything = [f"{order}:1", f"{order}:2", f"{order}:3", f"{other}:1"]
    assert await published() == everything
    assert await published(workflow="order") == everything[:3]
    assert await published(workflow="claim", correlation_key="k") == everything[3:]
    assert await published(correlation_key="nobody") == []
    assert await published(type="InstanceStarted") == [f"{order}:1", f"{other}:1"]
    assert await published(type="InstanceStarted", workflow="order") == [f"{order}:1"]
    assert await published(instance_id=other) == [f"{other}:1"]
    assert await published(promoted={"region": "north"}) == [f"{other}:1"]
    assert await published(promoted={"region": "south"}) == []


async def test_it_begins_and_ends_where_it_is_told(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    for _ in range(3):
        await commit(database_url, life(), app=app_name)
    await settle(database_url)
    found = rows(
        database_url, "select epoch||'-'||xid||'-'||position, recorded_at from holdfast.events order by position"
    )
    cursors, times = [cursor for cursor, _ in found], [moment for _, moment in found]
    everything = [
        str(it[0])
        for it in rows(database_url, "select instance_id||':'||version from holdfast.events order by position")
    ]

    async def published(**stretch: Any) -> list[str | None]:
        await replayed(client, database_url, to_exchange=heard, **stretch)
        got = ids(await taken(amqp_url, heard))
        await queue(amqp_url, heard, exchange=heard)
        return got

    assert await published(since=cursors[4], until=cursors[7]) == everything[4:8]
    assert await published(since=cursors[8]) == everything[8:]
    assert await published(until=cursors[0]) == everything[:1]
    assert await published(since=times[3], until=times[5]) == everything[3:6]
    assert await published(since=times[6], until=cursors[7]) == everything[6:8]
    assert await published(since=times[6], until=cursors[6]) == everything[6:7]
    assert await published(since=cursors[2], until=times[0]) == everything[2:3]
    assert await published(until=datetime.now(UTC) - timedelta(days=1)) == []
    with pytest.raises(ReplayRefused, match="the second comes before the first"):
        await client.replays.count(since=cursors[2], until=cursors[1])
    with pytest.raises(ReplayRefused, match="the second comes before the first"):
        await client.replays.count(since=times[4], until=times[1])
    with pytest.raises(ReplayRefused, match="the second comes before the first"):
        await client.replays.count(since=cursors[3], until=times[2])
    with pytest.raises(ReplayRefused, match="the second comes before the first"):
        await client.replays.count(since=times[3], until=cursors[2])
    with pytest.raises(ReplayRefused, match="lies behind the end of the log"):
        await client.replays.count(until="9-1-1")
    with pytest.raises(ValueError, match="is not a cursor"):
        await client.replays.count(until="tomorrow")


async def test_it_waits_for_what_commits_late_and_leaves_out_what_comes_after_it_began(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    async with await AsyncConnection.connect(database_url) as late:
        (slow,) = await write(late, [[start()]], app_name)
        (fast,) = await commit(database_url, [start()], app=app_name)
        replay = await client.replays.begin(to_exchange=heard)
        running = client.replays.run(replay.name, rate=0)
        assert (await anext(running)).replay.published == 0
        await commit(database_url, [start()], app=app_name)
        await late.commit()
    assert [step.replay.published async for step in running][-1] == 2
    assert ids(await taken(amqp_url, heard)) == [f"{slow}:1", f"{fast}:1"]


async def test_what_was_recorded_since_a_moment_and_commits_late_is_not_missed(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    for streams in ([[start()]], []):
        async with await AsyncConnection.connect(database_url) as late:
            await write(late, [[start()]], app_name)
            # What it records stands before what these do, and comes to light after them.
            await commit(database_url, [start()], app=app_name)
            moment = now(database_url)
            others = await commit(database_url, *streams, app=app_name)
            (slow,) = await write(late, [[start()]], app_name)
            replay = await client.replays.begin(to_exchange=heard, since=moment)
            await late.commit()
        assert [step.replay.published async for step in client.replays.run(replay.name)][-1] == 1 + len(others)
        assert ids(await taken(amqp_url, heard)) == [f"{it}:1" for it in (slow, *others)]
        await queue(amqp_url, heard, exchange=heard)


async def test_what_was_recorded_by_a_moment_and_commits_late_is_not_missed(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    (fast,) = await commit(database_url, [start()], app=app_name)
    async with await AsyncConnection.connect(database_url) as late:
        (slow,) = await write(late, [[start()]], app_name)
        moment = now(database_url)
        beginning = asyncio.create_task(client.replays.begin(to_exchange=heard, until=moment))
        assert await asyncio.wait([beginning], timeout=0.5) == (set(), {beginning})
        await write(late, [[start()]], app_name)
        await late.commit()
    replay = await beginning
    assert [step.replay.published async for step in client.replays.run(replay.name)][-1] == 2
    assert ids(await taken(amqp_url, heard)) == [f"{fast}:1", f"{slow}:1"]


async def test_an_app_that_nobody_knows_has_no_replays(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, life(), app="another")
    with pytest.raises(ReplayRefused, match=f"there is no app '{app_name}' here"):
        await client.replays.begin(to_exchange=heard)
    with pytest.raises(ReplayRefused, match=f"there is no app '{app_name}' here"):
        await client.replays.count()
    assert await client.replays.list() == []


async def test_a_moment_that_is_to_come_is_no_beginning(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, life(), app=app_name)
    with pytest.raises(ReplayRefused, match="which is still to come"):
        await client.replays.begin(to_exchange=heard, since=datetime.now(UTC) + timedelta(days=1))
    assert await client.replays.list() == []


async def test_an_app_without_history_has_nothing_to_replay(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """insert into holdfast.programs (app, program_hash, workflow, format, program)
            values (%s, 'p', 'w', 1, '{}')""",
            [app_name],
        )
    last = await replayed(client, database_url, to_exchange=heard)
    assert (last.replay.published, last.replay.finished_at is not None) == (0, True)
    assert await client.replays.count() == {}


async def test_what_was_removed_from_the_log_meanwhile_holds_nothing_up(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, life(), life(), app=app_name)
    replay = await client.replays.begin(to_exchange=heard)
    with psycopg.connect(database_url) as connection:
        connection.execute("alter table holdfast.events disable trigger user")
        connection.execute("delete from holdfast.events where position > 4")
    await settle(database_url)
    steps = [step async for step in client.replays.run(replay.name)]
    assert (steps[-1].replay.published, steps[-1].replay.finished_at is not None) == (4, True)


# What goes wrong.


@pytest.mark.parametrize(
    "name",
    ["", ".hash", ".00", ".17", ".dead", ".control", ".out", ".activities", ".activity.mail"],
)
async def test_nothing_of_any_app_is_a_destination(client: Client, app_name: str, name: str) -> None:
    for app in (app_name, "another"):
        ours = f"holdfast.{app}{name}"
        with pytest.raises(ReplayRefused, match="is for apps"):
            await client.replays.begin(to_exchange=ours)
        with pytest.raises(ReplayRefused, match="is for apps"):
            await client.replays.begin(to_queue=ours)
    assert await client.replays.list() == []


async def test_of_the_events_exchanges_only_the_own_one_is_a_destination(client: Client, app_name: str) -> None:
    with pytest.raises(ReplayRefused, match=f"exchange holdfast.another.events is for apps.*{events(app_name)}"):
        await client.replays.begin(to_exchange="holdfast.another.events")
    with pytest.raises(ReplayRefused, match="is for apps"):
        await client.replays.begin(to_queue=events(app_name))


async def test_what_makes_no_sense_is_refused(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, life(), app=app_name)
    with pytest.raises(ReplayRefused, match="either to an exchange or to a queue"):
        await client.replays.begin()
    with pytest.raises(ReplayRefused, match="either to an exchange or to a queue"):
        await client.replays.begin(to_exchange=heard, to_queue=heard)
    with pytest.raises(ReplayRefused, match="exchange is empty"):
        await client.replays.begin(to_exchange="")
    with pytest.raises(ReplayRefused, match="queue is empty"):
        await client.replays.begin(to_queue="")
    with pytest.raises(ReplayRefused, match="name has 256 bytes"):
        await client.replays.begin("n" * 256, to_exchange=heard)
    with pytest.raises(BrokerError, match=rf"cannot publish to exchange {heard}-not.*no exchange"):
        await client.replays.begin(to_exchange=f"{heard}-not")
    with pytest.raises(BrokerError, match=rf"cannot publish to queue {heard}-not.*no queue"):
        await client.replays.begin(to_queue=f"{heard}-not")
    await client.replays.begin("july", to_exchange=heard)
    with pytest.raises(ReplayRefused, match="there is a replay 'july' already"):
        await client.replays.begin("july", to_exchange=heard)
    with pytest.raises(ReplayRefused, match="not -1"):
        await anext(client.replays.run("july", rate=-1))
    await client.replays.remove("july")
    with pytest.raises(ReplayNotFound, match="there is no replay 'july'"):
        await anext(client.replays.run("july"))
    with pytest.raises(ReplayNotFound):
        await client.replays.remove("july")
    async with Client(database_url, app=app_name) as deaf:
        with pytest.raises(SettingsError, match="the URL of RabbitMQ"):
            await deaf.replays.begin(to_exchange=heard)
    async with Client(database_url, amqp_url) as anybody:
        with pytest.raises(SettingsError, match="whose history"):
            await anybody.replays.begin(to_exchange=heard)


async def test_an_event_that_no_queue_takes_ends_it_and_nothing_is_passed_over(
    client: Client, database_url: str, amqp_url: str, app_name: str
) -> None:
    name = f"{app_name}-starts"
    await queue(amqp_url, name, exchange=name, key="*.InstanceStarted")
    (instance,) = await commit(database_url, [start(), *life()[1:]], app=app_name)
    with pytest.raises(ReplayStopped, match=f"event 2 of instance {instance} .*NO_ROUTE") as stopped:
        await replayed(client, database_url, "july", to_exchange=name)
    (row,) = rows(database_url, "select epoch||'-'||xid||'-'||position from holdfast.events where version = 2")
    assert stopped.value.cursor == row[0]
    (replay,) = await client.replays.list()
    assert (replay.published, replay.finished_at) == (1, None)
    # As soon as a queue takes them, it goes on there.
    await queue(amqp_url, name, exchange=name, key="#")
    steps = [step async for step in client.replays.run("july")]
    assert steps[-1].replay.published == 3
    assert ids(await taken(amqp_url, name)) == [f"{instance}:{version}" for version in (1, 2, 3)]
    await remove(amqp_url, name, exchange=name)


async def test_an_event_that_is_too_large_for_the_broker_ends_it_at_its_place(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    large = InstanceCompleted(result="x" * (17 << 20))
    (instance,) = await commit(database_url, [start(), large, *life()[1:]], app=app_name)
    with pytest.raises(ReplayStopped, match=f"event 2 of instance {instance} .*larger than 16777216 bytes"):
        await replayed(client, database_url, to_exchange=heard)
    assert rows(database_url, "select published from holdfast.replays") == [(1,)]
    # Nothing has gone out behind it.
    assert ids(await taken(amqp_url, heard)) == [f"{instance}:1"]


async def test_a_broker_that_takes_nothing_ends_it_after_a_while(
    client: Client, database_url: str, amqp_url: str, app_name: str
) -> None:
    name = f"{app_name}-full"
    await queue(amqp_url, name, limit=2)
    await commit(database_url, life(), life(), app=app_name)
    await settle(database_url)
    replay = await client.replays.begin(to_queue=name)
    with pytest.raises(BrokerError, match="has taken no message for 3 s"):
        assert [step async for step in client.replays.run(replay.name, rate=0, patience=3)] == []
    (found,) = await client.replays.list()
    assert found.published == 2
    assert len(await taken(amqp_url, name)) == 2
    await queue(amqp_url, name)
    assert [step async for step in client.replays.run(replay.name, rate=0)][-1].replay.published == 6
    await remove(amqp_url, name)


async def test_who_begins_to_run_a_replay_takes_it_over(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, *(life() for _ in range(200)), app=app_name)
    await settle(database_url)
    replay = await client.replays.begin(to_exchange=heard)
    first, second = client.replays.run(replay.name, rate=0), client.replays.run(replay.name, rate=0)
    await anext(first)
    assert (await anext(first)).replay.published == 500
    assert (await anext(second)).replay.published == 500
    with pytest.raises(ReplayRefused, match="is run by another process, or was removed"):
        await anext(first)
    assert [step.replay.published async for step in second][-1] == 600


async def test_a_replay_that_is_over_publishes_nothing_more(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, life(), app=app_name)
    last = await replayed(client, database_url, to_exchange=heard)
    assert [step.replay async for step in client.replays.run(last.replay.name)] == [last.replay]
    assert len(await taken(amqp_url, heard)) == 3


async def test_observers_look_and_workers_replay(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    def member_of(role: str) -> Client:
        return Client(in_role(database_url, role), amqp_url, app_name)

    await commit(database_url, life(), app=app_name)
    await settle(database_url)
    async with member_of("holdfast_observer") as observer, member_of("holdfast_worker") as worker:
        assert sum((await observer.replays.count()).values()) == 3
        with pytest.raises(StorageError, match="permission denied"):
            await observer.replays.begin("july", to_exchange=heard)
        await replayed(worker, database_url, "july", to_exchange=heard)
        assert [it.published for it in await observer.replays.list()] == [3]
        with pytest.raises(StorageError, match="permission denied"):
            await observer.replays.remove("july")
        await worker.replays.remove("july")


# How fast it goes.


class Clock:
    """An environment whose time passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Noting(Publisher):
    """Notes, on a clock of its own, when it is given each message."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self.publisher = publisher
        self.clock = clock
        self.moments: list[float] = []

    async def send(self, *given: Any, **more: Any) -> Any:
        self.moments.append(self.clock.now)
        return await self.publisher.send(*given, **more)


async def test_no_second_sees_more_messages_than_the_rate(
    client: Client, database_url: str, amqp_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, *(life() for _ in range(100)), app=app_name)
    await settle(database_url)
    replay = await client.replays.begin(to_exchange=heard)
    clock = Clock()
    connections = Connections(database_url, limit=1)
    async with Connection(amqp_url, name="slow", heartbeat=10, random=Random(1)) as connection:  # noqa: S311 # A test.
        noting = Noting(Publisher(connection), clock)
        replayer = Replayer(connections, noting, clock, rate=50, patience=30)  # type: ignore[arg-type]  # It needs a clock.
        published = [step.replay.published async for step in replayer.run(replay)]
    await connections.close()
    # A chunk takes no longer than a second, so no more than that is out and not yet noted.
    assert published == [0, 50, 100, 150, 200, 250, 300, 300]
    moments = noting.moments
    assert len(moments) == 300
    assert max(sum(first <= it < first + 1 for it in moments) for first in moments) == 50
    assert moments[-1] - moments[0] == pytest.approx(299 / 50, rel=0.02)


async def test_without_a_rate_messages_go_out_in_large_chunks(
    client: Client, database_url: str, app_name: str, heard: str
) -> None:
    await commit(database_url, *(life() for _ in range(400)), app=app_name)
    await settle(database_url)
    replay = await client.replays.begin(to_exchange=heard)
    assert [step.replay.published async for step in client.replays.run(replay.name, rate=0)] == [
        0,
        500,
        1000,
        1200,
        1200,
    ]
