"""Removals that meet a host which is just about to take up, to persist or to start the very instance."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest

from holdfast import App, Client, Message, Retry, start
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.provider import Committed, Loaded
from holdfast.processor.services.detection import Detection
from holdfast.processor.store import locks
from holdfast.processor.testing.conformance.harness import APP, Case, Store
from holdfast.schemas.errors import InstanceLockLost, InstanceNotFound, NotRemovable, SubflowFailed
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.races import held_open, until
from tests.support.stores import BehindPostgres

BLOCKED = "select count(*) > 0 from pg_locks where not granted and locktype <> 'advisory'"
PLAIN = "delete from holdfast.instances where instance_id = %s"


@pytest.fixture
async def watcher(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("update holdfast.settings set removal_age = '0'")
        yield connection


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


@asynccontextmanager
async def removing(database_url: str, instance_id: UUID) -> AsyncIterator[None]:
    """Have the instance removed in a transaction that commits at the end of the block."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        assert (await connection.execute(PLAIN, [instance_id])).rowcount == 1
        yield


async def orphaned(store: Store) -> Case:
    """Register an instance whose host falls."""
    case = await store.register(await store.host(), "k")
    await store.behind.lapse(case.host_id)
    return case


# Protocol: I18.
async def test_a_removal_waits_for_the_commit_that_persists_the_instance_and_then_leaves_it(
    stores: tuple[Store, Store], watcher: psycopg.AsyncConnection, database_url: str
) -> None:
    here, _ = stores
    case = await here.register(await here.host(), "k")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        async with held_open(database_url, "events", here.provider.commit([case.begin().batch])) as commit:
            # What the delete finds at first is a row that no living host holds.
            await here.behind.lapse(case.host_id)
            removal = asyncio.create_task(connection.execute(PLAIN, [case.instance_id]))
            await until(watcher, BLOCKED)
        with pytest.raises(psycopg.Error) as refused:
            await removal
    (committed,) = commit.result()
    assert isinstance(committed, Committed)
    assert refused.value.sqlstate == "HF002"


async def test_a_removal_waits_for_a_takeover_and_then_leaves_the_instance(
    stores: tuple[Store, Store], watcher: psycopg.AsyncConnection, client: Client, database_url: str
) -> None:
    here, _ = stores
    case = await orphaned(here)
    heir = await here.host()
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        (loaded,) = await locks.load(connection, APP, heir, [case.instance_id])
        removal = asyncio.create_task(client.remove(case.instance_id))
        await until(watcher, BLOCKED)
    assert isinstance(loaded, Loaded)
    with pytest.raises(NotRemovable) as refused:
        await removal
    assert refused.value.obstacle == "live"
    case.host_id, case.token = heir, loaded.lock_token
    await here.commit(case.begin())


async def test_a_takeover_waits_for_a_removal_and_then_finds_nothing(
    stores: tuple[Store, Store], watcher: psycopg.AsyncConnection, database_url: str
) -> None:
    here, _ = stores
    case = await orphaned(here)
    heir = await here.host()
    async with removing(database_url, case.instance_id):
        load = asyncio.create_task(here.provider.load(heir, [case.instance_id]))
        await until(watcher, BLOCKED)
    assert [type(answer) for answer in await load] == [InstanceNotFound]


async def test_a_host_that_wakes_up_after_the_removal_commits_nothing(
    stores: tuple[Store, Store], watcher: psycopg.AsyncConnection, database_url: str
) -> None:
    here, _ = stores
    case = await orphaned(here)
    async with removing(database_url, case.instance_id):
        pass
    assert [type(answer) for answer in await here.provider.commit([case.begin().batch])] == [InstanceLockLost]
    assert await here.behind.versions(case.instance_id) == []


# Whole hosts.


app = App("removals")


class Gate:
    """Holds the activity up until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


gates: dict[str, Gate] = {}


class Asked(Message, correlation="key"):
    key: str


class Checked(Message, correlation="key"):
    key: str


@app.activity
async def examine(key: str) -> str:
    gates[key].reached.set()
    await gates[key].opened.wait()
    return key


@app.activity(retry=Retry(attempts=1))
async def fail(key: str) -> None:
    raise ValueError(key)


@app.workflow(start=Checked, on_unhandled="abandon")
async def check(checked: Checked) -> None:
    await fail(checked.key)


@app.workflow(start=Asked)
async def ask(asked: Asked) -> str:
    return await examine(asked.key)


class Ordered(Message, correlation="key"):
    key: str


@app.workflow(start=Ordered)
async def order(ordered: Ordered) -> str:
    try:
        await start(check, Checked(key=ordered.key))
    except SubflowFailed as error:
        return error.outcome
    return "checked"


@pytest.fixture
def gate() -> Gate:
    gates["k"] = Gate()
    return gates["k"]


async def fallen(database_url: str, gate: Gate) -> UUID:
    """Have a host start an instance and fall in its first activity."""
    async with running_host(app, database_url, Settings()) as host:
        envelope = Asked(key="k").envelope("Asked/k")
        host.engine.deliver(Arrival(envelope=envelope, received_at=host.runtime.now()))
        await gate.reached.wait()
        ((instance_id,),) = await host.ask("select instance_id from holdfast.instances")
        await BehindPostgres(database_url).lapse(host.runtime.host_id)
    return UUID(str(instance_id))


async def outcomes(host: Host) -> list[tuple[UUID, str]]:
    return await host.ask("select instance_id, outcome from holdfast.instances order by creation_time")


async def test_a_start_message_that_comes_again_while_its_instance_is_removed_starts_another(
    watcher: psycopg.AsyncConnection, database_url: str, gate: Gate
) -> None:
    instance_id = await fallen(database_url, gate)
    gate.opened.set()
    async with running_host(app, database_url, Settings()) as host:
        settled = asyncio.Event()
        async with removing(database_url, instance_id):
            arrival = Arrival(
                envelope=Asked(key="k").envelope("Asked/k"), received_at=host.runtime.now(), settle=settled.set
            )
            host.engine.deliver(arrival)
            await until(watcher, BLOCKED)
        await settled.wait()
        await host.rest()
        await Detection(host.engine).look()
        await host.rest()
        ((started, outcome),) = await outcomes(host)
        assert started != instance_id
        assert outcome == "completed"
        assert await host.ask("select verdict from holdfast.inbox") == [("applied",)]


async def test_an_instance_that_a_host_just_starts_again_is_left_to_it(
    watcher: psycopg.AsyncConnection, client: Client, database_url: str, gate: Gate
) -> None:
    instance_id = await fallen(database_url, gate)
    gate.reached.clear()
    async with running_host(app, database_url, Settings()) as host:
        delivery = asyncio.create_task(host.deliver(Asked(key="k")))
        await gate.reached.wait()
        with pytest.raises(NotRemovable) as refused:
            await client.remove(instance_id)
        assert refused.value.obstacle == "live"
        gate.opened.set()
        assert await delivery == instance_id
        assert await outcomes(host) == [(instance_id, "completed")]


async def test_a_parent_goes_on_when_the_child_that_it_waits_for_is_removed(
    watcher: psycopg.AsyncConnection, client: Client, database_url: str
) -> None:
    async with running_host(app, database_url, Settings(max_attempts=1)) as host:
        parent = await host.deliver(Ordered(key="k"))
        await Detection(host.engine).look()
        await host.rest()
        (child,) = await client.non_persisted()
        assert (child.parent_id, child.class_, child.start_message_verdict) == (parent, "orphan", "dead_lettered")
        await client.remove(child.instance_id)
        await host.engine.unload_idle(0)
        await Detection(host.engine).look()
        await host.rest()
        assert (await client.state(parent)).result == "terminated"
