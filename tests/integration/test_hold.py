"""Holding an instance from outside of the workers, on Postgres, beside a host that works."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from holdfast import (
    App,
    Client,
    InstanceCompleted,
    InstanceLocked,
    InstanceLockLost,
    InstanceNotFound,
    Message,
    Retry,
    delay,
    first_of,
    receive,
)
from holdfast.events.types import FrameChange, Persisted
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.engine.provider import Batch, Committed
from holdfast.processor.hold import LEASE, RENEWAL, OnLocked
from holdfast.processor.store.wakeups import PAGE
from holdfast.projections.instance import fold
from holdfast.schemas.identifiers import uuid7
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres

app = App("held")
failing: set[str] = set()


class Opened(Message, correlation="key"):
    key: str


class Told(Message, correlation="key"):
    key: str
    text: str = ""


@app.activity(retry=Retry(attempts=1))
async def greet(key: str) -> str:
    if key in failing:
        raise ValueError(key)
    return f"hello {key}"


@app.workflow(start=Opened)
async def waiting(opened: Opened) -> str:
    greeting = await greet(opened.key)
    outcome = await first_of(told=receive(Told, opened.key), late=delay(timedelta(hours=1)))
    return f"{greeting}: {outcome.name}"


class Patience(RealEnvironment):
    """Sleeps not at all, but notes how long it should; the lease is not renewed unless somebody says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.slept = asyncio.Condition()
        self.renew = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds == RENEWAL:
            await self.renew.wait()
            self.renew.clear()
            return
        async with self.slept:
            self.pauses.append(seconds)
            self.slept.notify_all()
        await asyncio.sleep(0)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host
    failing.clear()


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture
async def client(database_url: str, patience: Patience) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name, environment=patience) as client:
        yield client


async def test_who_holds_an_instance_sees_it_as_plain_data_and_others_see_who_holds_it(
    host: Host, client: Client
) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with client.hold(instance_id) as held:
        assert held.workflow == "waiting"
        assert held.correlation_key == "k"
        assert held.variables["0"]["greeting"] == "hello k"
        found, _ = await client.instance(instance_id)
        assert held.version == found.version > 0
        assert (found.lock_owner, found.lock_token) == (held.host_id, held.lock_token)
        ((programs, message_types),) = await host.ask(
            "select programs, message_types from holdfast.hosts where host_id = %s", held.host_id
        )
        assert (programs, message_types) == ([], [])
    found, _ = await client.instance(instance_id)
    assert found.lock_owner is None
    assert await host.ask("select from holdfast.hosts where host_id = %s", held.host_id) == []


async def test_a_message_that_comes_meanwhile_is_kept_and_handled_at_the_next_look_after_it(
    host: Host, client: Client
) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    # So much lies in the inbox that one look does not come to the end of it.
    await host.ask(
        """
        insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict)
        select 'held', 'm' || n, 'Told', 'x' || n, '{}', '', 'buffered' from generate_series(1, %s) n returning 1
        """,
        2 * PAGE,
    )
    async with client.hold(instance_id):
        await host.tell(Told(key="k"))
        await host.look()
        assert await host.ask("select verdict from holdfast.inbox where correlation_key = 'k' and type = 'Told'") == [
            ("buffered",)
        ]
        hints = host.runtime.provider.listen()
        await anext(hints)
    await anext(hints)
    await hints.aclose()
    await host.look()
    found, _ = await client.instance(instance_id)
    assert found.outcome == "completed"


async def test_an_instance_for_which_nothing_came_stays_where_it_is(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with client.hold(instance_id):
        pass
    await host.look()
    assert host.engine.held == {}


async def test_timers_and_commands_wait_until_the_instance_is_given_back(host: Host, client: Client) -> None:
    late, asked = await host.deliver(Opened(key="late")), await host.deliver(Opened(key="asked"))
    await host.engine.unload_idle(0)
    async with client.hold(late), client.hold(asked):
        await host.ask(
            "update holdfast.bookmarks set due = now() where instance_id = %s and kind = 'timer' returning 1", late
        )
        await client.cancel(asked, by="tester")
        await host.look()
        assert [(await client.instance(each))[0].outcome for each in (late, asked)] == [None, None]
    await host.look()
    assert [(await client.instance(each))[0].outcome for each in (late, asked)] == ["completed", "cancelled"]


async def test_a_non_persisted_instance_can_be_held_and_runs_from_its_start_message_after_it(
    host: Host, client: Client
) -> None:
    failing.add("k")
    instance_id = await host.deliver(Opened(key="k"))
    async with client.hold(instance_id) as held:
        assert (held.state, held.version, held.variables, held.is_suspended) == (None, 0, {}, True)
    failing.clear()
    await host.resume(instance_id)
    found, _ = await client.instance(instance_id)
    assert (found.is_initialized, found.execution_status) == (True, "idle")


@pytest.mark.parametrize(
    ("on_locked", "pauses"),
    [
        ("no_retry", []),
        ("basic_retry", [3.0] * 10),
        ("aggressive_retry", [30 / 255 * 2**n for n in range(8)]),
    ],
)
async def test_an_instance_that_a_worker_holds_is_locked_after_so_many_tries(
    on_locked: OnLocked, pauses: list[float], host: Host, client: Client, patience: Patience
) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    with pytest.raises(InstanceLocked) as caught:
        async with client.hold(instance_id, on_locked=on_locked):
            pytest.fail("it was not to be had")
    locked = caught.value
    found, _ = await client.instance(instance_id)
    assert (locked.owner, locked.machine) == (host.runtime.host_id, "here")
    assert locked.expiration == found.lock_expiration
    assert patience.pauses == pytest.approx(pauses)
    assert not pauses or sum(pauses) == pytest.approx(30)
    assert await host.ask("select count(*) from holdfast.hosts") == [(1,)]


async def test_who_tries_again_gets_an_instance_that_was_given_back_meanwhile(
    host: Host, client: Client, patience: Patience
) -> None:
    instance_id = await host.deliver(Opened(key="k"))

    async def give_back() -> None:
        async with patience.slept:
            await patience.slept.wait_for(lambda: len(patience.pauses) >= 3)
            await host.engine.unload_idle(0)

    giving = asyncio.create_task(give_back())
    async with client.hold(instance_id, on_locked="aggressive_retry") as held:
        assert held.version > 0
    await giving


async def test_two_clients_hold_an_instance_one_after_the_other(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with client.hold(instance_id) as first:
        with pytest.raises(InstanceLocked) as caught:
            async with client.hold(instance_id, on_locked="no_retry"):
                pytest.fail("it was not to be had")
        assert caught.value.owner == first.host_id
    async with client.hold(instance_id) as second:
        assert second.lock_token > first.lock_token


async def test_a_client_whose_lease_lapsed_is_told_so_and_harms_nobody(
    host: Host, client: Client, patience: Patience, database_url: str
) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(client.hold(instance_id))
        await BehindPostgres(database_url).lapse(held.host_id)
        await host.tell(Told(key="k"))
        patience.renew.set()
        assert (await client.instance(instance_id))[0].outcome == "completed"
        await lost(client)
        with pytest.raises(InstanceLockLost):
            await stack.aclose()


async def test_a_client_that_did_not_come_to_renew_its_lease_in_time_is_told_so_at_the_end(
    host: Host, client: Client, patience: Patience, database_url: str
) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    with pytest.raises(InstanceLockLost):
        async with client.hold(instance_id) as held:
            await BehindPostgres(database_url).lapse(held.host_id)
    assert not patience.renew.is_set()


async def lost(client: Client) -> None:
    """Return once the client has noticed that its lease is lost."""
    while any("_renew" in repr(task.get_coro()) for task in asyncio.all_tasks()):
        await client.tally()


async def test_the_lease_is_renewed_while_the_instance_is_held(host: Host, client: Client, patience: Patience) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with client.hold(instance_id) as held:
        left = "select extract(epoch from lease_expiration - now()) from holdfast.hosts where host_id = %s"
        await host.ask(
            "update holdfast.hosts set lease_expiration = now() + interval '10 s' where host_id = %s returning 1",
            held.host_id,
        )
        patience.renew.set()
        seconds = 0
        while seconds < 11:
            ((seconds,),) = await host.ask(left, held.host_id)
        assert LEASE - 10 < seconds <= LEASE


async def test_a_persistence_point_can_be_written_under_the_hold(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.engine.unload_idle(0)
    async with client.hold(instance_id) as held:
        assert held.state is not None
        frame = held.state.frames["0"]
        change = FrameChange(
            program=frame.program, step=frame.step, line=frame.line, visits=frame.visits, set={"greeting": "good day"}
        )
        events = [Persisted(reason="migrated", frames={"0": change})]
        batch = Batch(
            instance_id=instance_id,
            host_id=held.host_id,
            lock_token=held.lock_token,
            expected_version=held.version,
            events=events,
            metadata={"app": held.app},
            state=fold(events, held.state),
        )
        (answer,) = await host.runtime.provider.commit([batch])
        assert isinstance(answer, Committed)
    await host.tell(Told(key="k"))
    state = await client.state(instance_id)
    assert state.result == "good day: told"
    (late,) = await host.runtime.provider.commit([batch])
    assert isinstance(late, InstanceLockLost)
    assert all([not checked.differences async for checked in client.verify(instance_id)])


async def test_what_cannot_be_held_is_told_apart(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    await host.tell(Told(key="k"))
    with pytest.raises(InstanceCompleted):
        async with client.hold(instance_id):
            pytest.fail("it is closed")
    with pytest.raises(InstanceNotFound):
        async with client.hold(uuid7(0, bytes(10))):
            pytest.fail("it is not there")
