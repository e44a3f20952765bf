"""Activities on queues on Postgres: which transactions they take, and what is kept of them between hosts."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from holdfast.processor.client import Client
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.services.detection import Detection
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host
from tests.support.mailing import Given, InMemory, Retried, Wanted, Watched, app, failure

DONE = "ActivityCompleted"
ASKED = ["ActivityRequested", "BookmarkOpened"]
ANSWERED = ["BookmarkClosed", DONE]


Hosts = Callable[[], AbstractAsyncContextManager[Host]]
"""Starts one more host."""


@pytest.fixture
def hosts(database_url: str) -> Hosts:
    return partial(running_host, app, database_url, Settings(lease=60))


@pytest.fixture
async def host(hosts: Hosts) -> AsyncIterator[Host]:
    async with hosts() as host:
        yield host


async def requests(host: Host) -> list[ActivityRequest]:
    """Return what activity workers were asked for, in order."""
    rows = await host.ask("select message_id, correlation_key, body, type, exchange, routing_key from holdfast.outbox")
    assert {(exchange, queue) for *_, exchange, queue in rows} <= {
        ("holdfast.mailing.activities", "mail"),
        ("holdfast.mailing.activities", "copy"),
    }
    envelopes = [Envelope(message_id=row[0], key=row[1], body=bytes(row[2]), type=row[3]) for row in rows]
    return [ActivityRequest.parse(envelope) for envelope in envelopes]


async def hear(host: Host, message: Message, message_id: str) -> str | None:
    """Deliver what a worker says and return its verdict."""
    host.engine.deliver(Arrival(envelope=message.envelope(message_id), received_at=host.runtime.now()))
    await host.rest()
    rows = await host.ask(
        "select concat_ws(': ', verdict, reason) from holdfast.inbox where message_id = %s", message_id
    )
    return rows[0][0] if rows else None


async def answer(host: Host, request: ActivityRequest, value: Any, message_id: str) -> str | None:
    return await hear(host, ActivityResult(request=request.request, outcome="completed", result=value), message_id)


async def result_of(host: Host, instance_id: UUID) -> Any:
    rows = await host.ask(
        "select data -> 'result' from holdfast.events where instance_id = %s and type = 'InstanceCompleted'",
        instance_id,
    )
    return rows[0][0] if rows else None


async def look(host: Host) -> None:
    await Detection(host.engine).look()
    await host.rest()


async def test_the_intent_is_one_transaction_more(host: Host) -> None:
    regular = await host.deliver(Wanted(key="regular"))
    in_memory = await host.deliver(InMemory(key="memory"))
    for number, request in enumerate(await requests(host)):
        assert await answer(host, request, "sent", f"r{number}") == "applied"
    assert await host.transactions(regular) == [
        ("activity_intent", ["InstanceStarted", DONE, *ASKED]),
        ("activity_completed", ANSWERED),
        ("completed", [DONE, "InstanceCompleted"]),
    ]
    assert await host.transactions(in_memory) == [
        ("activity_intent", ["InstanceStarted", DONE, *ASKED]),
        ("completed", [*ANSWERED, DONE, "InstanceCompleted"]),
    ]


async def test_another_host_takes_the_result_of_what_a_dead_one_asked_for(
    hosts: Hosts,
) -> None:
    async with hosts() as first:
        instance_id = await first.deliver(Wanted(key="k"))
        (request,) = await requests(first)
    async with hosts() as second:
        assert await answer(second, request, "sent", "r1") == "buffered"
        await second.ask("update holdfast.hosts set lease_expiration = now() where host_id = %s", first.runtime.host_id)
        await look(second)
        assert await result_of(second, instance_id) == "before, sent, after"
        assert await answer(second, request, "sent again", "r2") == "rejected: late"


async def test_attempts_are_requests_of_their_own_with_a_timer_in_between(host: Host) -> None:
    instance_id = await host.deliver(Retried(key="k"))
    (first,) = await requests(host)
    assert await hear(host, failure(first, "no such box"), "r1") == "applied"
    await host.ask("update holdfast.bookmarks set due = now() where name = '0.1:retry-1'")
    await look(host)
    _, second = await requests(host)
    assert (first.call, first.attempt, second.call, second.attempt) == (first.call, 1, first.call, 2)
    assert await answer(host, first, "too late", "r2") == "rejected: late"
    assert await answer(host, second, "sent", "r3") == "applied"
    assert await result_of(host, instance_id) == "sent"
    assert [reason for reason, _ in await host.transactions(instance_id)] == [
        "activity_intent",
        "idle",
        "activity_intent",
        "completed",
    ]


async def test_a_worker_that_falls_silent_is_given_up(host: Host) -> None:
    instance_id = await host.deliver(Watched(key="k"))
    (request,) = await requests(host)
    assert await hear(host, ActivityHeartbeat(request=request.request, seconds=60), "h1") is None
    await look(host)
    assert await result_of(host, instance_id) is None
    assert await hear(host, ActivityHeartbeat(request=request.request, seconds=1e-6), "h2") is None
    await look(host)
    assert await result_of(host, instance_id) == "lost: its worker fell silent"
    assert await host.ask("select * from holdfast.heartbeats") == []


async def test_the_log_and_the_store_agree_at_every_turn(host: Host, database_url: str) -> None:
    await host.deliver(Given(key="waits"))
    await host.deliver(Retried(key="is delayed"))
    for request in await requests(host):
        if request.activity == "insist":
            await hear(host, failure(request, "no such box"), "r1")
    async with Client(database_url, app=app.name) as client:
        checked = [each async for each in client.verify()]
    assert len(checked) == 2
    assert [each for each in checked if each.differences] == []
