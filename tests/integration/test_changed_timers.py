"""Timers that a client fires, reschedules or cancels, on Postgres: rows, events, and what explains them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from holdfast import App, Client, CommandRefused, Message, delay, first_of, receive
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("changed-timers")


class Raced(Message, correlation="key"):
    key: str


class Slept(Raced): ...


class Paid(Raced): ...


@app.workflow(start=Raced)
async def raced(start: Raced) -> str:
    outcome = await first_of(paid=receive(Paid, start.key), late=delay(timedelta(days=3)))
    return outcome.name


@app.workflow(start=Slept)
async def slept(start: Slept) -> None:
    await delay(timedelta(days=3))


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def outcome(host: Host, instance_id: UUID, command: str) -> tuple[str, object]:
    """Let a worker take a command up; return its verdict and the instance's result."""
    await host.look()
    ((verdict,),) = await host.ask("select verdict from holdfast.inbox where message_id = %s", command)
    ((result,),) = await host.ask(
        "select state -> 'result' from holdfast.instances where instance_id = %s", instance_id
    )
    return verdict, result


async def test_a_timer_is_fired(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Raced(key="kay"))
    command = await client.fire_timer(instance_id, "0.1/late", by="ann", why="enough")
    assert await outcome(host, instance_id, command) == ("applied", "late")
    ((said,),) = await host.ask("select data from holdfast.events where type = 'TimerFired'")
    assert (said["by"], said["why"]) == ("ann", "enough")


@pytest.mark.parametrize("condition", ["loaded", "unloaded", "suspended"])
async def test_a_timer_is_rescheduled(host: Host, client: Client, condition: str) -> None:
    instance_id = await host.deliver(Raced(key="kay"))
    if condition == "suspended":
        await client.suspend(instance_id, by="ann")
        await host.look()
    elif condition == "unloaded":
        await client.unload(instance_id, by="ann")
        await host.look()
    due = datetime.now(UTC) + timedelta(hours=1)
    command = await client.reschedule_timer(instance_id, "0.1/late", due, by="ann", why="sooner")
    assert await outcome(host, instance_id, command) == ("applied", None)
    (timer,) = await client.timers(instance_id=instance_id)
    instance, _ = await client.instance(instance_id)
    assert (timer.due, instance.pending_timer) == (due, due)
    assert timer.opened_at < due
    (change,) = (await client.explain(instance_id)).changed_timers
    assert (change.bookmark, change.by, change.why) == ("0.1/late", "ann", "sooner")
    command = await client.reschedule_timer(instance_id, "0.1/late", datetime.now(UTC), by="ann")
    await outcome(host, instance_id, command)
    if condition == "suspended":
        await client.resume(instance_id, by="ann")
        await host.look()
    assert await outcome(host, instance_id, command) == ("applied", "late")


async def test_a_timer_is_cancelled_where_something_else_ends_the_wait(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Raced(key="kay"))
    command = await client.cancel_timer(instance_id, "0.1/late", by="ann", why="no hurry")
    assert await outcome(host, instance_id, command) == ("applied", None)
    explanation = await client.explain(instance_id)
    assert [wait.name for wait in explanation.waits] == ["0.1/paid"]
    (change,) = explanation.changed_timers
    assert (change.bookmark, change.due, change.why) == ("0.1/late", None, "no hurry")
    await host.tell(Paid(key="kay"))
    assert await outcome(host, instance_id, command) == ("applied", "paid")


async def test_what_makes_no_sense_is_refused_at_once(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Slept(key="kay"))
    with pytest.raises(CommandRefused, match=r"waits for nothing but 0\.1 there"):
        await client.cancel_timer(instance_id, "0.1", by="ann")
    with pytest.raises(CommandRefused, match=r"waits at no timer '0\.9'"):
        await client.fire_timer(instance_id, "0.9", by="ann")
    with pytest.raises(CommandRefused, match="cannot have a timer due at"):
        await client.reschedule_timer(instance_id, "0.1", datetime(2026, 2, 1), by="ann")  # noqa: DTZ001  Refused so.
    await client.suspend(instance_id, by="ann")
    await host.look()
    with pytest.raises(CommandRefused, match="is suspended"):
        await client.fire_timer(instance_id, "0.1", by="ann")
