"""Forking on Postgres, beside hosts that work."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast import (
    App,
    Client,
    ForkRefused,
    InstanceNotFound,
    Message,
    Transaction,
    VersionNotFound,
    activity_context,
    compensable,
    continue_as_new,
    delay,
    first_of,
    receive,
    send,
    start,
)
from holdfast.processor.forking import Done
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.settings import Settings
from tests.support import mailing
from tests.support.commands import holdfast
from tests.support.hosts import Host, running_host
from tests.support.workers import environment

app = App("forked")
keys: list[str] = []
undone: list[str] = []


class Placed(Message, correlation="key"):
    key: str
    item: str = "chair"


class Paid(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str
    item: str


class Late(Message, correlation="key"):
    key: str


class Parent(Message, correlation="key"):
    key: str


class Counted(Message, correlation="key"):
    key: str
    number: int = 0


class Twice(Message, correlation="key"):
    key: str


class Risky(Message, correlation="key"):
    key: str


@app.activity
async def reserve(key: str) -> str:
    keys.append(activity_context().idempotency_key)
    return f"R-{key}"


@app.activity
async def release(reservation: str) -> None:
    undone.append(reservation)


@app.activity
async def note(tx: Transaction, text: str) -> None:
    await tx.execute("insert into notes values (%s)", (text,))


@app.workflow(start=Placed)
async def order(placed: Placed) -> str:
    reservation = await reserve(placed.key)
    await receive(Paid, placed.key)
    await send(Shipped(key=placed.key, item=placed.item))
    await note(f"shipped {placed.item}")
    return f"{reservation} {placed.item}"


@app.workflow(start=Late)
async def late(started: Late) -> str:
    outcome = await first_of(paid=receive(Paid, started.key), late=delay(timedelta(seconds=0.01)))
    return outcome.name


@app.workflow(start=Parent)
async def parent(started: Parent) -> object:
    return await start(order, Placed(key=started.key))


@app.workflow(start=Counted)
async def counting(counted: Counted) -> int:
    await receive(Paid, counted.key)
    if counted.number == 0:
        await continue_as_new(Counted(key=counted.key, number=1))
    return counted.number


@app.workflow(start=Twice)
async def twice(started: Twice) -> str:
    first = await reserve(started.key)
    second = await reserve(started.key)
    return f"{first} {second}"


@app.workflow(start=Risky, on_unhandled="cancel")
async def risky(started: Risky) -> None:
    async with compensable() as stock:
        reservation = await reserve(started.key)
        stock.undo(release, reservation)
    await receive(Paid, started.key)
    raise ValueError(started.key)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    keys.clear()
    undone.clear()
    async with running_host(app, database_url, Settings()) as host:
        await host.ask("create table notes (text text)")
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def everything(host: Host, instance_id: UUID) -> Any:
    """Return all that the store has of an instance, as text."""
    return [
        await host.ask("select e::text from holdfast.events e where instance_id = %s order by version", instance_id),
        await host.ask("select r::text from holdfast.instance_rows r where instance_id = %s", instance_id),
        await host.ask("select s::text from holdfast.instance_states s where instance_id = %s", instance_id),
        await host.ask("select b::text from holdfast.bookmarks b where instance_id = %s order by name", instance_id),
    ]


async def ended(host: Host, client: Client) -> tuple[UUID, int]:
    """Return an order that has ended, and the version at which it waited for its payment."""
    instance_id = await host.deliver(Placed(key="k"))
    (found, _) = await client.instance(instance_id)
    await host.tell(Paid(key="k"))
    return instance_id, found.version


async def point(client: Client, instance_id: UUID, reason: str) -> int:
    """Return the version of the one persistence point that an instance took for a reason."""
    (version,) = [each.last_version async for each in client.transactions(instance_id) if each.reason == reason]
    return version


async def result(client: Client, instance_id: UUID) -> object:
    state = await client.state(instance_id)
    assert state.execution_status == "closed", state
    return state.result


async def verified(client: Client) -> None:
    assert [checked.differences async for checked in client.verify() if checked.differences] == []


async def test_a_fork_goes_on_by_itself_and_leaves_its_origin_as_it_is(host: Host, client: Client) -> None:
    origin, version = await ended(host, client)
    before = await everything(host, origin)
    fork = await client.fork(origin, version, by="ann", why="what if", variables={"placed.item": "table"})
    assert fork.instance_id is not None
    state = await client.state(fork.instance_id)
    assert state.frames["0"].variables["placed"]["item"] == "table"
    assert [mark.message_type for mark in state.bookmarks.values()] == ["Paid"]
    await host.hear(Paid(key="k").envelope("second"))
    assert await result(client, fork.instance_id) == "R-k table"
    assert await result(client, origin) == "R-k chair"
    assert await everything(host, origin) == before
    assert await host.ask("select text from notes order by text") == [("shipped chair",), ("shipped table",)]
    await verified(client)


@pytest.mark.parametrize("item", [{"$float": "nan"}, {"$int": hex(2**70)}, {"$str": r"\ud800\x00"}, -0.0, 2**63 - 1])
async def test_a_fork_stores_the_values_that_it_shows(host: Host, client: Client, item: Any) -> None:
    origin, version = await ended(host, client)
    made = await client.fork(origin, version, by="ann", variables={"placed.item": item})
    assert made.instance_id is not None
    stored = await client.state(made.instance_id, made.state.version)
    assert repr(stored.frames["0"].variables["placed"]["item"]) == repr(item)
    assert repr(stored.frames) == repr(made.state.frames)


async def test_the_preview_lists_what_the_origin_sent_and_did_since(host: Host, client: Client) -> None:
    origin, version = await ended(host, client)
    counts = await host.ask("select count(*) from holdfast.events")
    planned = await client.fork(origin, version, by="ann", dry_run=True)
    assert planned.instance_id is None
    ((sent_version, message_id),) = await host.ask(
        "select version, data ->> 'message_id' from holdfast.events where type = 'MessageSent'"
    )
    assert [(s.version, s.message_id, s.type, s.correlation_key) for s in planned.sent] == [
        (sent_version, message_id, "Shipped", "k")
    ]
    assert [(d.kind, d.name, d.detail) for d in planned.done] == [("record", "note", "completed")]
    assert await host.ask("select count(*) from holdfast.events") == counts
    assert await host.ask("select count(*) from holdfast.instances") == [(1,)]
    assert await host.ask("select count(*) from holdfast.hosts") == [(1,)]


async def test_the_preview_names_the_instance_as_which_the_origin_went_on(host: Host, client: Client) -> None:
    origin = await host.deliver(Counted(key="c"))
    (found, _) = await client.instance(origin)
    await host.tell(Paid(key="c"))
    planned = await client.fork(origin, found.version, by="ann", key="d", dry_run=True)
    ((successor,),) = await host.ask("select instance_id::text from holdfast.instances where instance_id <> %s", origin)
    assert [(d.kind, d.name, d.detail) for d in planned.done] == [("successor", "counting", successor)]


async def test_the_preview_tells_what_a_queue_was_asked_for_until_it_has_answered(database_url: str) -> None:
    async with (
        running_host(mailing.app, database_url, Settings(lease=60)) as host,
        Client(database_url, app=mailing.app.name) as client,
    ):
        origin = await host.deliver(mailing.Nudged(key="k"))
        (found, _) = await client.instance(origin)

        async def done() -> list[Done]:
            planned = await client.fork(origin, found.version, by="ann", key="l", dry_run=True)
            assert planned.sent == ()
            return list(planned.done)

        async def asked() -> list[Any]:
            return await host.ask(
                """select version, data ->> 'message_id', data ->> 'idempotency_key' from holdfast.events
                where type = 'ActivityRequested' order by position"""
            )

        assert await done() == []
        await host.tell(mailing.Nudge(key="k"))
        ((version, request, _),) = await asked()
        open_ = Done(version=version, kind="activity", name="insist", detail="requested", queue="mail", request=request)
        assert await done() == [open_]
        command = ("fork", str(origin), "--at", str(found.version), "--key", "l", "--dry-run")
        env = environment(database_url, "")
        assert f"insist  asked of queue mail by {request}, not answered" in holdfast(*command, env=env).stdout
        (told,) = json.loads(holdfast(*command, "--json", env=env).stdout)["done"]
        assert (told["detail"], told["queue"], told["request"]) == ("requested", "mail", request)

        error = {"$exception": "RuntimeError", "args": ["no such box"]}
        await host.hear(ActivityResult(request=request, outcome="failed", error=error).envelope("r1"))
        assert [(it.name, it.detail, it.queue) for it in await done()] == [("insist", "delayed", None)]
        assert "insist  failed, and was not tried again so far" in holdfast(*command, env=env).stdout
        await host.ask("update holdfast.bookmarks set due = now() where kind = 'timer' returning true")
        await host.look()
        (again,) = await done()
        assert (again.detail, again.request == request) == ("requested", False)
        await host.hear(ActivityResult(request=again.request or "", outcome="completed", result="sent").envelope("r2"))
        assert [(it.name, it.detail, it.queue) for it in await done()] == [("insist", "completed", None)]

        # As it said, the fork asks too, and nobody can take that for a double.
        await client.fork(origin, found.version, by="ann", key="l")
        await host.tell(mailing.Nudge(key="l"))
        *mine, (_, _, forks) = await asked()
        assert len(mine) == 2
        assert forks not in {call for _, _, call in mine}


async def test_a_fork_in_the_middle_of_a_burst_runs_on_from_there(host: Host, client: Client) -> None:
    origin = await host.deliver(Twice(key="k"))
    at = await point(client, origin, "activity_completed")
    fork = await client.fork(origin, at, by="ann", variables={"first": "other"})
    assert fork.instance_id is not None
    assert fork.state.execution_status == "executing"
    await host.look()
    assert await result(client, origin) == "R-k R-k"
    assert await result(client, fork.instance_id) == "other R-k"
    # Calls of the fork have idempotency keys of their own.
    assert [key.partition("/")[0] for key in keys] == [str(origin), str(origin), str(fork.instance_id)]
    await verified(client)


async def test_a_living_origin_and_its_fork_need_keys_of_their_own(host: Host, client: Client) -> None:
    origin = await host.deliver(Placed(key="k"))
    found, _ = await client.instance(origin)
    with pytest.raises(ForkRefused, match="it lives under the key 'k': give the fork a key of its own"):
        await client.fork(origin, found.version, by="ann")
    fork = await client.fork(origin, found.version, by="ann", key="k-again")
    assert fork.instance_id is not None
    assert fork.changed == ("0.placed",)
    with pytest.raises(ForkRefused, match=f"instance {fork.instance_id} lives under the key 'k-again'"):
        await client.fork(origin, found.version, by="ann", key="k-again")
    await host.hear(Paid(key="k-again").envelope("second"))
    assert await result(client, fork.instance_id) == "R-k chair"
    assert (await client.state(origin)).execution_status == "idle"
    await host.tell(Paid(key="k"))
    assert await result(client, origin) == "R-k chair"
    sent = await host.ask("select correlation_key from holdfast.outbox order by 1")
    assert sent == [("k",), ("k-again",)]
    await verified(client)


async def test_a_fork_of_what_another_instance_waits_for_is_refused(host: Host, client: Client) -> None:
    origin, version = await ended(host, client)
    await host.tell(Risky(key="k"))
    with pytest.raises(ForkRefused, match="another instance waits for Paid with key 'k', as the fork would"):
        await client.fork(origin, version, by="ann")
    assert await host.ask("select count(*) from holdfast.instances where workflow = 'order'") == [(1,)]


async def test_timers_of_a_fork_keep_their_moment_and_past_ones_fire(host: Host, client: Client) -> None:
    origin = await host.deliver(Late(key="k"))
    at = await point(client, origin, "idle")

    async def over(instance_id: UUID) -> bool:
        await host.look()
        return (await client.state(instance_id)).execution_status == "closed"

    await host.until(lambda: over(origin))
    fork = await client.fork(origin, at, by="ann")
    assert fork.instance_id is not None
    due = [mark.due for mark in (await client.state(origin, at)).bookmarks.values() if mark.due]
    assert [mark.due for mark in fork.state.bookmarks.values() if mark.due] == due
    await host.look()
    assert await result(client, fork.instance_id) == "late"


async def test_a_message_that_waits_for_the_key_goes_to_the_fork(host: Host, client: Client) -> None:
    origin = await host.deliver(Placed(key="k"))
    found, _ = await client.instance(origin)
    await host.hear(Paid(key="other").envelope("early"))
    fork = await client.fork(origin, found.version, by="ann", key="other")
    assert fork.instance_id is not None
    await host.look()
    assert await result(client, fork.instance_id) == "R-k chair"


async def test_what_a_fork_has_registered_is_undone_when_it_fails(host: Host, client: Client) -> None:
    origin = await host.deliver(Risky(key="k"))
    at = await point(client, origin, "idle")
    await host.tell(Paid(key="k"))
    assert undone == ["R-k"]
    fork = await client.fork(origin, at, by="ann")
    assert fork.instance_id is not None
    await host.hear(Paid(key="k").envelope("second"))
    assert (await client.state(fork.instance_id)).outcome == "cancelled"
    assert undone == ["R-k", "R-k"]
    await verified(client)


async def test_only_the_end_of_a_transaction_can_be_forked_and_the_nearest_are_named(
    host: Host, client: Client
) -> None:
    origin, version = await ended(host, client)
    with pytest.raises(ForkRefused, match=f"{version - 1} is inside of a transaction; the nearest .* {version}$"):
        await client.fork(origin, version - 1, by="ann")
    last = (await client.state(origin)).version
    with pytest.raises(ForkRefused, match="it had ended by then"):
        await client.fork(origin, last, by="ann")
    with pytest.raises(VersionNotFound):
        await client.fork(origin, last + 1, by="ann")
    with pytest.raises(InstanceNotFound):
        await client.fork(UUID(int=1), 1, by="ann")
    with pytest.raises(ForkRefused, match="correlation key is empty"):
        await client.fork(origin, version, by="ann", key="")


async def test_what_waits_for_a_subflow_cannot_be_forked(host: Host, client: Client) -> None:
    origin = await host.deliver(Parent(key="k"))
    found, _ = await client.instance(origin)
    with pytest.raises(ForkRefused, match="waits for the end of subflow order"):
        await client.fork(origin, found.version, by="ann", key="l")


async def test_what_was_never_persisted_cannot_be_forked(host: Host, client: Client) -> None:
    await host.ask(
        """insert into holdfast.instance_rows
            (instance_id, app, workflow, program_hash, correlation_key, start_message_id)
        values (%s, 'forked', 'order', 'p', 'x', 'm')""",
        UUID(int=5),
    )
    with pytest.raises(ForkRefused, match="nothing of it is persisted yet"):
        await client.fork(UUID(int=5), 1, by="ann")


async def test_a_fork_of_a_fork_knows_where_it_came_from(host: Host, client: Client) -> None:
    origin, version = await ended(host, client)
    first = await client.fork(origin, version, by="ann")
    assert first.instance_id is not None
    second = await client.fork(first.instance_id, first.state.version, by="ann", key="l")
    assert second.instance_id is not None
    assert await client.origin(second.instance_id) == (first.instance_id, first.state.version)
    assert await client.origin(first.instance_id) == (origin, version)
    assert await client.origin(origin) is None
    (made,) = await client.forks(origin)
    assert (made.instance_id, made.at, made.by, made.why) == (first.instance_id, version, "ann", None)
    assert [it.instance_id for it in await client.forks(first.instance_id)] == [second.instance_id]
    assert await client.forks(second.instance_id) == []


async def test_on_the_command_line_a_fork_is_announced_made_and_shown(
    host: Host, client: Client, database_url: str, amqp_url: str
) -> None:
    origin, version = await ended(host, client)
    env = environment(database_url, amqp_url)

    def run(*arguments: str, code: int = 0) -> str:
        done = holdfast(*arguments, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    dry = run("fork", str(origin), "--at", str(version), "--dry-run")
    assert "what the original sent after that" in dry
    assert "Shipped" in dry
    assert "forked as" not in dry
    assert await host.ask("select count(*) from holdfast.instances") == [(1,)]
    made = run("fork", str(origin), "--at", str(version), "--set", 'placed.item="bench"', "--why", "what if")
    assert "0.placed = Placed(key='k', item='bench')" in made
    fork = made.strip().rpartition(" ")[2]
    link = f"{origin} at version {version}"
    assert f"forked from      {link}" in run("show", fork)
    assert f"forked from      {link}" in run("state", fork)
    assert "what if" in run("history", fork)
    assert json.loads(run("show", fork, "--json"))["origin"] == str(origin)
    assert f"{fork} from version {version}, by " in run("show", str(origin))
    assert [it["instance_id"] for it in json.loads(run("show", str(origin), "--json"))["forks"]] == [fork]
    document = json.loads(run("fork", str(origin), "--at", str(version), "--key", "l", "--json"))
    assert document["instance_id"] is not None
    assert [each["type"] for each in document["sent"]] == ["Shipped"]
    assert "write NAME=JSON" in run("fork", str(origin), "--at", "5", "--set", "item=chair", code=2)
    assert "write NAME=JSON" in run("fork", str(origin), "--at", "5", "--set", "item", code=2)
    for value, said in (
        ("1e999", 'inf is stored as {"$float":"inf"}'),
        (r'"\ud800"', "is stored as"),
        ('{"$decimal": "abc"}', "cannot be read"),
    ):
        refused = run("fork", str(origin), "--at", str(version), "--set", f"placed.item={value}", code=1)
        assert said in refused
        assert len(refused.splitlines()) == 1
    assert "write NAME=JSON" in run("fork", str(origin), "--at", "5", "--set", "item=" + "[" * 100_000, code=2)
    assert "the correlation key is blank" in run("fork", str(origin), "--at", str(version), "--key", " ", code=1)
    assert "twice" in run("fork", str(origin), "--at", "5", "--set", "item=1", "--set", "item=2", code=2)
    assert "inside of a transaction" in run("fork", str(origin), "--at", str(version - 1), code=1)
