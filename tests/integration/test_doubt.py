"""Activities that must not run twice, and long retries, on Postgres: their transactions, and who takes over."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast import (
    ActivityInDoubt,
    App,
    Client,
    CommandRefused,
    Message,
    NotInDoubt,
    NotSuspended,
    Retry,
    gather,
    receive,
)
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.services.detection import Detection
from holdfast.schemas.control import Decision
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import Host, running_host
from tests.support.stores import BehindPostgres
from tests.support.workers import environment

app = App("doubts")
ran: list[str] = []
charging: dict[str, asyncio.Event] = {}
failures: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    charging.clear()
    failures.clear()


class Begun(Message, correlation="key"):
    key: str


class Hurried(Begun): ...


class Paired(Begun): ...


class Careful(Begun): ...


class Patient(Begun): ...


class Came(Begun): ...


@app.activity
async def note(what: str) -> str:
    ran.append(what)
    return what


@app.activity(repeatable=False)
async def charge(what: str) -> int:
    ran.append(f"charge {what}")
    if what in charging:
        charging[what].set()
        await asyncio.get_running_loop().create_future()
    return len(what)


@app.activity(retry=Retry(attempts=3, delay=timedelta(hours=1), max_delay=timedelta(days=1)))
async def flaky(what: str) -> str:
    ran.append(what)
    if failures.get(what, 0):
        failures[what] -= 1
        raise ConnectionError(what)
    return what


@app.workflow(start=Begun)
async def begun(start: Begun) -> int:
    await note("before")
    number = await charge(start.key)
    await note("after")
    return number


@app.workflow(start=Hurried, persistence="in_memory")
async def hurried(start: Hurried) -> int:
    await note("before")
    number = await charge(start.key)
    await note("after")
    return number


@app.workflow(start=Paired)
async def paired(start: Paired) -> list[int]:
    left, right = await gather(charge("left"), charge("right"))
    return [left, right]


@app.workflow(start=Careful)
async def careful(start: Careful) -> int:
    try:
        return await charge(start.key)
    except ActivityInDoubt:
        return -1


@app.workflow(start=Patient)
async def patient(start: Patient) -> str:
    answer = await flaky(start.key)
    await receive(Came, start.key)
    return answer


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def fall(url: str, message: Message, *charged: str) -> None:
    """Have a host fall while it charges."""
    async with running_host(app, url, Settings()) as dying:
        charging.update((what, asyncio.Event()) for what in charged)
        dying.engine.deliver(Arrival(envelope=message.envelope("start"), received_at=dying.runtime.now()))

        for has_begun in charging.values():
            await has_begun.wait()
    await BehindPostgres(url).lapse(dying.runtime.host_id)
    charging.clear()


async def look(host: Host) -> None:
    await Detection(host.engine).look()
    await host.rest()


async def instance_of(host: Host) -> tuple[UUID, Any]:
    """Return the only instance: its id, whether it is suspended, why, and its outcome."""
    ((instance_id, *about),) = await host.ask(
        "select instance_id, is_suspended, suspension_reason, outcome from holdfast.instances"
    )
    return instance_id, tuple(about)


# Protocol: I15.
async def test_the_intent_is_one_transaction_more_in_both_modes(host: Host) -> None:
    regular = await host.deliver(Begun(key="kay"))
    assert await host.transactions(regular) == [
        ("activity_completed", ["InstanceStarted", "ActivityCompleted"]),
        ("activity_intent", ["ActivityIntended"]),
        ("activity_completed", ["ActivityCompleted"]),
        ("completed", ["ActivityCompleted", "InstanceCompleted"]),
    ]
    in_memory = await host.deliver(Hurried(key="kim"))
    assert await host.transactions(in_memory) == [
        ("activity_intent", ["InstanceStarted", "ActivityCompleted", "ActivityIntended"]),
        ("completed", ["ActivityCompleted", "ActivityCompleted", "InstanceCompleted"]),
    ]


# Protocol: D16.
async def test_a_host_that_falls_meanwhile_leaves_it_to_somebody_to_say_what_became_of_it(
    database_url: str, host: Host, client: Client
) -> None:
    await fall(database_url, Begun(key="kay"), "kay")
    await look(host)
    instance_id, about = await instance_of(host)
    assert about == (True, "in_doubt", None)
    with pytest.raises(CommandRefused, match="holdfast resolve"):
        await client.resume(instance_id, by="ann")
    with pytest.raises(NotInDoubt) as caught:
        await client.resolve(instance_id, "retry", by="ann", call="another")
    (key,) = caught.value.calls
    assert key.endswith("/charge")
    command = await client.resolve(instance_id, "done", by="ann", why="it is booked", result=12)
    with pytest.raises(CommandRefused, match="before"):
        await client.resolve(instance_id, "done", by="bob", result=12)
    await look(host)
    assert (await client.state(instance_id)).result == 12
    assert ran == ["before", "charge kay", "after"]
    assert await host.ask("select verdict from holdfast.inbox where message_id = %s", command) == [("applied",)]
    assert [checked.differences async for checked in client.verify()] == [()]


async def test_several_calls_are_resolved_one_by_one(database_url: str, host: Host, client: Client) -> None:
    await fall(database_url, Paired(key="kay"), "left", "right")
    await look(host)
    instance_id, _ = await instance_of(host)
    with pytest.raises(NotInDoubt, match="name one") as caught:
        await client.resolve(instance_id, "retry", by="ann")
    left, right = caught.value.calls
    await client.resolve(instance_id, "done", by="ann", call=left, result=1)
    await client.resolve(instance_id, "retry", by="ann", call=right)
    await look(host)
    assert (await client.state(instance_id)).result == [1, 5]
    assert (ran.count("charge left"), ran.count("charge right")) == (1, 2)


@pytest.mark.parametrize(("decision", "outcome"), [("--done 12", (12, 1)), ("--retry", (3, 2)), ("--fail", (-1, 1))])
async def test_the_command_line_says_what_became_of_it_and_the_log_who_said_so(
    host: Host, client: Client, database_url: str, decision: str, outcome: tuple[int, int]
) -> None:
    await fall(database_url, Careful(key="kay"), "kay")
    await look(host)
    instance_id, _ = await instance_of(host)
    said = ("resolve", str(instance_id), *decision.split(), "--by", "ann", "--why", "the bank says so")
    done = await asyncio.to_thread(holdfast, *said, env=environment(database_url, ""))
    assert done.returncode == 0, done.stderr
    await look(host)
    assert ((await client.state(instance_id)).result, ran.count("charge kay")) == outcome
    ((resolved,),) = await host.ask("select data from holdfast.events where type = 'ActivityResolved'")
    assert f"--{resolved['decision']}" == decision.split(maxsplit=1)[0]
    assert (resolved["by"], resolved["why"]) == ("ann", "the bank says so")


async def test_a_failure_that_the_workflow_does_not_catch_stays_decided_and_is_raised_again(
    database_url: str, host: Host, client: Client
) -> None:
    await fall(database_url, Begun(key="kay"), "kay")
    await look(host)
    instance_id, _ = await instance_of(host)
    await client.resolve(instance_id, "fail", by="ann", why="the bank says so")
    await look(host)
    for _ in range(2):
        assert await instance_of(host) == (instance_id, (True, "unhandled_exception", None))
        await host.resume(instance_id)
    assert (await host.transactions(instance_id))[-4:] == [
        ("requested", ["ActivityResolved", "InstanceResumed"]),
        ("suspended", ["InstanceSuspended"]),
        ("suspended", ["InstanceResumed", "InstanceSuspended"]),
        ("suspended", ["InstanceResumed", "InstanceSuspended"]),
    ]
    ((resolved,),) = await host.ask("select data from holdfast.events where type = 'ActivityResolved'")
    assert (resolved["decision"], resolved["by"], resolved["why"]) == ("fail", "ann", "the bank says so")
    with pytest.raises(CommandRefused):
        await client.resolve(instance_id, "done", by="bob", result=12)
    await client.cancel(instance_id, by="ann")
    await look(host)
    assert await instance_of(host) == (instance_id, (False, None, "cancelled"))
    assert ran == ["before", "charge kay"]
    assert [checked.differences async for checked in client.verify()] == [()]


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        ("done", [("charge", "completed"), ("note", "completed")]),
        ("retry", [("charge", "completed"), ("note", "completed")]),
        ("fail", [("charge", "failed")]),
    ],
)
async def test_the_preview_of_a_fork_tells_what_may_have_run_and_then_what_was_decided(
    database_url: str, host: Host, client: Client, decision: Decision, told: list[tuple[str, str]]
) -> None:
    await fall(database_url, Begun(key="kay"), "kay")
    await look(host)
    instance_id, _ = await instance_of(host)
    ((at,),) = await host.ask("select version from holdfast.events where data ->> 'reason' = 'activity_completed'")

    async def done() -> list[tuple[str, str]]:
        planned = await client.fork(instance_id, at, by="ann", key="kim", dry_run=True)
        return [(it.name, it.detail) for it in planned.done]

    assert await done() == [("charge", "intended")]
    command = ("fork", str(instance_id), "--at", str(at), "--key", "kim", "--dry-run")
    shown = await asyncio.to_thread(holdfast, *command, env=environment(database_url, ""))
    assert "charge  may have run, and must not run twice" in shown.stdout
    await client.resolve(instance_id, decision, by="ann", result=12 if decision == "done" else None)
    await look(host)
    assert await done() == told


async def test_a_result_of_another_type_is_rejected_with_the_reason(
    database_url: str, host: Host, client: Client
) -> None:
    await fall(database_url, Begun(key="kay"), "kay")
    await look(host)
    instance_id, _ = await instance_of(host)
    command = await client.resolve(instance_id, "done", by="ann", result="a dozen")
    await look(host)
    ((verdict, reason, detail),) = await host.ask(
        "select verdict, reason, detail from holdfast.inbox where message_id = %s", command
    )
    assert (verdict, reason) == ("rejected", "not_applicable")
    assert detail.startswith("the result is not what activity charge returns")


async def test_only_what_is_suspended_is_resolved(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Patient(key="kay"))
    with pytest.raises(NotSuspended):
        await client.resolve(instance_id, "retry", by="ann")


async def test_a_long_retry_is_a_timer_that_another_host_may_fire(database_url: str, host: Host) -> None:
    failures["kay"] = 2
    async with running_host(app, database_url, Settings()) as dying:
        instance_id = await dying.deliver(Patient(key="kay"))
        assert await dying.transactions(instance_id) == [
            ("idle", ["InstanceStarted", "ActivityDelayed", "BookmarkOpened"])
        ]
    await BehindPostgres(database_url).lapse(dying.runtime.host_id)
    for attempt in (2, 3):
        assert await host.ask("select name, kind from holdfast.bookmarks") == [(f"0.1:retry-{attempt - 1}", "timer")]
        await look(host)
        assert len(ran) == attempt - 1
        await host.ask("update holdfast.bookmarks set due = now() returning true")
        await look(host)
        assert len(ran) == attempt
    reasons = [reason for reason, _ in await host.transactions(instance_id)]
    assert reasons == ["idle", "idle", "idle"]
    ((completed,),) = await host.ask("select data from holdfast.events where type = 'ActivityCompleted'")
    assert completed["attempts"] == 3
