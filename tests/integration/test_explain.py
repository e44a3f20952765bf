"""Why an instance stands where it stands, on Postgres: one test for each way of standing still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from holdfast import App, Client, InstanceNotFound, Message, delay, first_of, receive, start
from holdfast.processor.engine.arrival import Arrival
from holdfast.projections.explanation import Explanation
from holdfast.schemas.activity_messages import ActivityHeartbeat
from holdfast.schemas.message import Envelope
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres

app = App("explain")
charging = asyncio.Event()

Hosts = Callable[[], AbstractAsyncContextManager[Host]]
"""Starts one more host."""


class Began(Message, correlation="key"):
    key: str


class Bought(Began): ...


class Posted(Began): ...


class Charged(Began): ...


class Fell(Began): ...


class Returned(Began): ...


class Paid(Began): ...


class Refunded(Began): ...


@app.activity(queue="post")
async def post(key: str) -> None: ...


@app.activity(repeatable=False)
async def charge(key: str) -> None:
    charging.set()
    await asyncio.get_running_loop().create_future()


@app.activity
async def fall(key: str) -> None:
    raise ValueError(key)


@app.workflow(start=Began)
async def began(it: Began) -> None:
    await first_of(paid=receive(Paid, it.key), late=delay(timedelta(days=3)))


@app.workflow(start=Bought)
async def bought(it: Bought) -> None:
    await start(began, Began(key=f"{it.key}/sub"))


@app.workflow(start=Posted)
async def posted(it: Posted) -> None:
    await post(it.key)


@app.workflow(start=Charged)
async def charged(it: Charged) -> None:
    await charge(it.key)


@app.workflow(start=Fell)
async def fell(it: Fell) -> None:
    await fall(it.key)


@app.workflow(start=Returned)
async def returned(it: Returned) -> None:
    await receive(Refunded, it.key)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    charging.clear()


@pytest.fixture
def hosts(database_url: str) -> Hosts:
    return partial(running_host, app, database_url, Settings())


@pytest.fixture
async def host(hosts: Hosts) -> AsyncIterator[Host]:
    async with hosts() as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


def said(found: Explanation) -> list[tuple[str, str | None]]:
    """Return the ways on: what does it, and which bookmark that closes."""
    return [(way.by, way.bookmark) for way in found.ways]


async def the_only_one(host: Host) -> UUID:
    ((instance_id,),) = await host.ask("select instance_id from holdfast.instances")
    found: UUID = instance_id
    return found


async def test_an_idle_instance_is_moved_by_its_message_or_its_timer(host: Host, client: Client) -> None:
    found = await client.explain(await host.deliver(Began(key="k")))
    assert said(found) == [("timer", "0.1/late"), ("message", "0.1/paid")]
    timer, message = found.ways
    bookmark = next(wait for wait in found.waits if wait.kind == "timer")
    assert bookmark.due is not None
    assert bookmark.due > bookmark.opened_at
    assert f"{bookmark.due:%Y-%m-%d %H:%M:%S}" in timer.text
    assert message.text == "a Paid with key 'k', to exchange holdfast.explain"
    assert (found.mailbox, found.near_misses, found.detail) == ([], [], None)


async def test_a_timer_that_is_due_says_so(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Began(key="k"))
    await host.ask("update holdfast.bookmarks set due = now() where kind = 'timer'")
    assert "a worker is about to find it" in (await client.explain(instance_id)).ways[0].text


async def test_a_due_timer_that_waits_for_what_came_before_says_so(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Began(key="k"))
    await host.ask("update holdfast.bookmarks set due = now() where kind = 'timer'")
    now = await host.runtime.provider.now()
    await host.runtime.provider.share(host.runtime.host_id, {0: now}, [0])
    assert "first takes in the messages that it found" in (await client.explain(instance_id)).ways[0].text
    await host.runtime.provider.share(host.runtime.host_id, {0: now}, [])
    assert "a worker is about to find it" in (await client.explain(instance_id)).ways[0].text


async def test_messages_that_came_close_are_told_with_why_and_look_alikes_come_first(
    host: Host, client: Client
) -> None:
    instance_id = await host.deliver(Began(key="order-17"))
    await host.deliver(Returned(key="order-18"))
    await host.hear(Paid(key="Order_0017 ").envelope("case"))
    await host.hear(Paid(key="order-0018").envelope("far"))
    await host.hear(Refunded(key="order-17").envelope("type"))
    await host.hear(Envelope(message_id="no-json", type="Paid", key="order-17", body=b"{"))
    await host.hear(Envelope(message_id="no-json-either", type="Paid", key="order-19", body=b"{"))
    found = await client.explain(instance_id)
    assert [(miss.message_id, miss.why, miss.looks_alike) for miss in found.near_misses] == [
        ("case", "another_key", True),
        ("no-json", "dead_letter", False),
        ("type", "another_type", False),
        ("far", "another_key", False),
    ]


async def test_what_another_instance_waits_for_is_no_near_miss(host: Host, client: Client) -> None:
    waiting = await host.deliver(Began(key="order-17"))
    other = await host.deliver(Began(key="ORDER-17"))
    await client.suspend(other, by="ann")
    await host.look()
    await host.tell(Paid(key="ORDER-17"))
    assert (await client.explain(waiting)).near_misses == []
    assert [message.message_id for message in (await client.explain(other)).mailbox] == ["Paid/ORDER-17"]


async def test_a_suspended_instance_says_why_and_how_it_goes_on(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Began(key="k"))
    command = await client.suspend(instance_id, by="ann", why="a mistake")
    pending = await client.explain(instance_id)
    assert said(pending)[0] == ("command", None)
    assert [(m.message_id, m.kind) for m in pending.mailbox] == [(command, "control")]
    await host.look()
    await host.tell(Paid(key="k"))
    found = await client.explain(instance_id)
    assert [way.text for way in found.ways] == [f"holdfast resume {instance_id}, once the cause is mended"]
    assert found.detail == "a mistake"
    assert [(m.message_id, m.kind) for m in found.mailbox] == [("Paid/k", "message")]


async def test_one_that_runs_names_its_worker_then_that_it_is_gone_then_what_is_in_doubt(
    hosts: Hosts, client: Client, database_url: str
) -> None:
    async with hosts() as dying:
        dying.engine.deliver(Arrival(envelope=Charged(key="k").envelope("m"), received_at=dying.runtime.now()))
        await charging.wait()
        instance_id = await the_only_one(dying)
        running = await client.explain(instance_id)
        assert [way.text.partition(";")[0] for way in running.ways] == ["it is in the hands of here"]
        assert running.instance.execution_status == "executing"
    await BehindPostgres(database_url).lapse(dying.runtime.host_id)
    gone = await client.explain(instance_id)
    assert gone.circumstances.holder_lapsed
    assert "the lease of the one that held it lapsed at" in gone.ways[0].text
    assert gone.ways[1].text == "first of all a worker of the app explain: none is alive"
    async with hosts() as host:
        await host.look()
        doubtful = await client.explain(instance_id)
        assert len(doubtful.in_doubt) == 1
        assert [way.text for way in doubtful.ways] == [
            f"holdfast resolve {instance_id} with --done RESULT, --retry or --fail"
        ]


async def test_a_parent_names_its_subflow_and_how_that_is(host: Host, client: Client) -> None:
    parent = await host.deliver(Bought(key="k"))
    ((child,),) = await host.ask("select instance_id from holdfast.instances where parent_id = %s", parent)
    (way,) = (await client.explain(parent)).ways
    assert (way.by, way.bookmark) == ("child", "0.1")
    assert way.text == f"the end of subflow {child} (began), which is idle"
    await client.suspend(child, by="ann")
    await host.look()
    (way,) = (await client.explain(parent)).ways
    assert way.text.endswith("which is suspended")


async def test_an_activity_on_a_queue_is_told_with_how_far_its_request_came(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Posted(key="k"))

    async def told() -> str:
        (way,) = (await client.explain(instance_id)).ways
        assert (way.by, way.bookmark) == ("activity", "0.1")
        return way.text

    result = "the result of post, attempt 1, from a worker of queue post"
    assert await told() == f"{result}: the request is committed, but not published yet"
    await host.ask("update holdfast.outbox set dead_reason = 'NO_ROUTE'")
    assert "the request was given up (NO_ROUTE), holdfast dead-letters requeue" in await told()
    ((request,),) = await host.ask("delete from holdfast.outbox returning message_id")
    assert await told() == result
    await host.hear(ActivityHeartbeat(request=request, seconds=60).envelope("h"))
    assert "which says that it lives and is given up at" in await told()


async def test_one_that_was_never_persisted_says_what_its_start_depends_on(
    hosts: Hosts, client: Client, database_url: str
) -> None:
    async with hosts() as host:
        instance_id = await host.deliver(Fell(key="k"))
        (suspended,) = (await client.explain(instance_id)).ways
        assert suspended.text == f"holdfast resume {instance_id}, which runs it from the start"
        await host.ask("update holdfast.instance_rows set is_suspended = false, suspension_reason = null")

        async def told() -> str:
            found = await client.explain(instance_id)
            assert found.non_persisted is not None
            (way,) = found.ways
            return f"{found.non_persisted.class_}: {way.text}"

        assert await told() == "orphan: any worker of its app, from its start message Fell/k in the inbox"
        await host.ask("update holdfast.inbox set verdict = 'dead_lettered'")
        assert (await told()).startswith("orphan: holdfast dead-letters requeue Fell/k")
        await host.ask("delete from holdfast.inbox")
        lost = await told()
        assert lost.startswith("message_lost: ")
        assert "should it still wait in RabbitMQ" in lost


async def test_nothing_moves_what_is_closed(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Began(key="k"))
    await host.tell(Paid(key="k"))
    await host.hear(Envelope(message_id="no-json", type="Paid", key="k", body=b"{"))
    found = await client.explain(instance_id)
    assert (found.ways, found.mailbox, found.near_misses, found.waits) == ([], [], [], [])


async def test_an_instance_that_is_not_there_is_named(client: Client) -> None:
    with pytest.raises(InstanceNotFound):
        await client.explain(uuid4())
