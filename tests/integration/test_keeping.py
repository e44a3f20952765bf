"""How a host keeps instances on Postgres: encoded states, instances that are deleted as they close, keys used again."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from holdfast import App, Client, Message, delay, receive, run, start
from holdfast.schemas.errors import InstanceCompleted
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("keeping")


class Opened(Message, correlation="key"):
    key: str


class Inner(Message, correlation="key"):
    key: str


class Apart(Message, correlation="key"):
    key: str


class Round(Message, correlation="key"):
    key: str


class Packed(Message, correlation="key"):
    key: str


class Go(Message, correlation="key"):
    key: str


@app.workflow(start=Opened, on_completion="delete", promote=("stage",))
async def opened(message: Opened) -> str:
    stage = "open"
    await receive(Go, message.key)
    stage = "gone"
    inside = await run(inner, Inner(key=message.key))
    outside = await start(apart, Apart(key=message.key))
    return f"{stage} {inside} {outside}"


@app.workflow(start=Inner, persistence="in_memory", on_completion="delete")
async def inner(message: Inner) -> str:
    return f"in {message.key}"


@app.workflow(start=Apart, on_completion="delete")
async def apart(message: Apart) -> str:
    await delay(timedelta(milliseconds=1))
    return f"out {message.key}"


@app.workflow(start=Round, reuse_key=True)
async def a_round(message: Round) -> str:
    await receive(Go, message.key)
    return message.key


@app.workflow(start=Packed, state_encoding="gzip")
async def packed(message: Packed) -> int:
    text = message.key * 10_000
    await receive(Go, message.key)
    return len(text)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings(runnable_detection=0.1)) as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def ids(host: Host, workflow: str) -> list[UUID]:
    """Return the instances of a workflow that ever began, as the log has them."""
    rows = await host.ask(
        "select instance_id from holdfast.events where version = 1 and data ->> 'workflow' = %s order by position",
        workflow,
    )
    return [instance_id for (instance_id,) in rows]


async def until_closed(host: Host, instance_id: UUID) -> None:
    async def is_closed() -> bool:
        rows = await host.ask(
            "select version from holdfast.events where instance_id = %s and type = 'InstanceCompleted'", instance_id
        )
        if not rows:
            await host.look()
        return bool(rows)

    await host.until(is_closed)


async def test_a_family_that_is_deleted_as_it_closes_lives_on_in_its_history(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Opened(key="k"))
    row, _ = await client.instance(instance_id)
    assert (row.is_discarded, row.state_encoding, row.promoted) == (False, "none", {"stage": "open"})
    await host.tell(Go(key="k"))
    await until_closed(host, instance_id)
    assert await host.ask("select instance_id from holdfast.instance_rows") == []
    assert await host.ask("select instance_id from holdfast.instance_states") == []
    assert await host.ask("select instance_id from holdfast.bookmarks") == []
    assert await client.instances() == []

    row, bookmarks = await client.instance(instance_id)
    assert (row.is_discarded, row.workflow, row.correlation_key, row.outcome) == (True, "opened", "k", "completed")
    assert (row.app, row.start_message_id, row.promoted) == ("keeping", "Opened/k", {"stage": "gone"})
    assert bookmarks == []
    (child,) = await ids(host, "apart")
    (within,) = await ids(host, "inner")
    assert (await client.instance(child))[0].parent_id == instance_id
    assert (await client.instance(within))[0].subflow == "run"
    state = await client.state(instance_id)
    assert state.result == "gone in k out k"
    assert (await client.state(instance_id, 3)).execution_status == "idle"
    history = [entry.recorded.event async for entry in client.history(instance_id)]
    assert len(history) == row.version
    commits = [commit async for commit in client.transactions(instance_id)]
    assert sum(len(commit.consumed) for commit in commits) == 2
    assert all(consumed.verdict == "applied" for commit in commits for consumed in commit.consumed)
    assert (await client.explain(instance_id)).ways == []
    assert [it.depth for it in await client.tree(instance_id)] == [0]
    with pytest.raises(InstanceCompleted):
        await client.suspend(instance_id, by="ops")

    assert [checked async for checked in client.verify()] == []
    (checked,) = [it async for it in client.verify(instance_id)]
    assert (checked.events, checked.differences) == (row.version, ())


async def test_a_start_message_that_comes_twice_starts_one_and_the_next_one_is_free_to_start(
    host: Host, client: Client
) -> None:
    first = await host.deliver(Opened(key="k"))
    await host.tell(Go(key="k"))
    await until_closed(host, first)
    await host.tell(Opened(key="k"))
    assert await ids(host, "opened") == [first]
    await host.hear(Opened(key="k").envelope("another"))
    _, second = await ids(host, "opened")
    (row,) = await client.instances()
    assert (row.instance_id, row.correlation_key) == (second, "k")


async def test_a_start_message_waits_for_the_end_of_the_one_before_it(host: Host, client: Client) -> None:
    await host.tell(Round(key="k"))
    await host.hear(Round(key="k").envelope("second"))
    assert [row.outcome for row in await client.instances()] == [None]
    await host.tell(Go(key="k"))
    await host.look()
    assert [row.outcome for row in await client.instances()] == [None, "completed"]
    assert {m.message_id: m.verdict for m in await client.messages()} == {
        "Round/k": "applied",
        "second": "applied",
        "Go/k": "applied",
    }


async def test_what_comes_between_two_rounds_is_too_late(host: Host, client: Client) -> None:
    await host.tell(Round(key="k"))
    await host.tell(Go(key="k"))
    await host.hear(Go(key="k").envelope("late"))
    await host.hear(Round(key="k").envelope("second"))
    verdicts = {m.message_id: (m.verdict, m.reason) for m in await client.messages()}
    assert verdicts["late"] == ("rejected", "completed")
    assert [row.outcome for row in await client.instances()] == [None, "completed"]


async def test_packed_and_plain_states_lie_side_by_side(host: Host, client: Client, database_url: str) -> None:
    first = await host.deliver(Packed(key="a"))
    second = await host.deliver(Round(key="b"))
    encodings = {row.instance_id: row.state_encoding for row in await client.instances()}
    assert encodings == {first: "gzip", second: "none"}
    view = await host.ask(
        "select i.instance_id, i.state is null, i.state_encoding, octet_length(s.state) < 2000"
        " from holdfast.instances i join holdfast.instance_states s on s.instance_id = i.instance_id"
    )
    assert {row[0]: row[1:] for row in view} == {first: (True, "gzip", True), second: (False, "none", True)}
    assert all([not checked.differences async for checked in client.verify()])
    assert len(str((await client.state(first)).frames["0"].variables["text"])) == 10_000

    # Another host, that packs all states unless a workflow says what it wants, reads both and goes on with them.
    await host.runtime.provider.close_host(host.runtime.host_id)
    async with running_host(app, database_url, Settings(state_encoding="gzip")) as other:
        await other.tell(Go(key="a"))
        await other.tell(Go(key="b"))
        rows = await client.instances()
        assert {row.outcome for row in rows} == {"completed"}
        assert {row.state_encoding for row in rows} == {"gzip"}
        assert (await client.state(first)).result == 10_000
        assert all([not checked.differences async for checked in client.verify()])


async def test_a_packed_state_that_was_damaged_is_found(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Packed(key="a"))
    await host.ask("update holdfast.instance_states set state = 'damaged'")
    (checked,) = [it async for it in client.verify(instance_id)]
    assert [it.what for it in checked.differences] == ["state"]


async def test_an_open_instance_whose_row_is_missing_is_found(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Packed(key="a"))
    await host.ask("alter table holdfast.instance_rows disable trigger user")
    await host.ask("delete from holdfast.instance_rows")
    for asked in (None, instance_id):
        (checked,) = [it async for it in client.verify(asked)]
        assert (checked.instance_id, [it.what for it in checked.differences]) == (instance_id, ["row"])
