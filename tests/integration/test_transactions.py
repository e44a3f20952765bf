"""An instance's transactions, and the family that it belongs to."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.events.types import ActivityCompleted, InstanceContinued, MessageReceived, MessageSent, SubflowStarted
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, HERE, Case, Store, fresh, message
from holdfast.projections.queries import tree
from holdfast.projections.transactions import Born, Commit, Consumed, Joined, Sent, transactions
from holdfast.projections.verify import verify
from holdfast.schemas.errors import InstanceNotFound
from holdfast.schemas.words import SubflowMode
from tests.support.stores import BehindPostgres


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    provider = PostgresProvider(database_url, APP)
    yield Store(provider, BehindPostgres(database_url))
    await provider.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def commits(connection: psycopg.AsyncConnection, case: Case) -> list[Commit]:
    return [commit async for commit in transactions(connection, case.instance_id)]


def asked(child: Case, mode: SubflowMode) -> SubflowStarted:
    return SubflowStarted(
        where=HERE,
        instance_id=str(child.instance_id),
        workflow=child.program.workflow,
        correlation_key=child.key,
        mode=mode,
    )


async def test_the_history_is_cut_where_the_instance_committed(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    case = await store.register(await store.host(), "k")
    await store.commit(case.begin(case.wait("Paid")))
    (bookmark,) = case.state.bookmarks
    paid = message("Paid", "k")
    received = MessageReceived(
        where=HERE,
        bookmark=bookmark,
        closes=(bookmark,),
        message_id=paid.message_id,
        message_type="Paid",
        correlation_key="k",
        body={},
    )
    sent = MessageSent(where=HERE, message_id="s-1", message_type="Shipped", correlation_key="k", body={})
    booked, packed = (
        ActivityCompleted(
            where=HERE, activity=name, idempotency_key=name, attempts=1, result=None, is_record=name == "book"
        )
        for name in ("book", "pack")
    )
    await store.commit(case.move(received, booked, packed, sent, reason="activity_completed", consumed=[fresh(paid)]))
    await store.commit(case.end())

    first, second, third = await commits(connection, case)
    assert [(c.first_version, c.last_version, c.reason) for c in (first, second, third)] == [
        (1, 3, "idle"),
        (4, 8, "activity_completed"),
        (9, 10, "completed"),
    ]
    assert first.xid < second.xid < third.xid
    assert first.recorded_at < second.recorded_at < third.recorded_at
    assert second.events == (
        "MessageReceived",
        "ActivityCompleted",
        "ActivityCompleted",
        "MessageSent",
        "Persisted",
    )
    assert second.record_activities == ("book",)
    start = Consumed(message_id=case.start.message_id, message_type="Placed", verdict="applied", version=3)
    assert first.consumed == (start,)
    assert second.consumed == (Consumed(message_id=paid.message_id, message_type="Paid", verdict="applied", version=8),)
    assert second.sent == (Sent(message_id="s-1", message_type="Shipped", correlation_key="k"),)
    assert (third.consumed, third.sent, third.children, third.joined, third.others) == ((), (), (), (), 0)


async def test_a_message_that_the_inbox_has_forgotten_has_no_verdict(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    case = await store.waiting(await store.host(), "k", "Paid")
    await connection.execute("delete from holdfast.inbox")
    (commit,) = await commits(connection, case)
    assert commit.consumed == (
        Consumed(message_id=case.start.message_id, message_type="Placed", verdict=None, version=None),
    )


async def test_what_ran_within_an_instance_is_told_from_what_only_shared_its_group(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    host = await store.host()
    parent, stranger = await store.waiting(host, "k", "Paid"), await store.waiting(host, "l", "Paid")
    inner = parent.child("inner", "run")
    deeper = inner.child("deeper", "run")
    other = stranger.child("other", "run")
    await store.commit(
        parent.move(asked(inner, "run"), inner=[inner.inner(inner.begin()), deeper.inner(deeper.begin())]),
        stranger.move(inner=[other.inner(other.begin())]),
    )
    within = [
        Joined(
            instance_id=case.instance_id,
            workflow=case.program.workflow,
            first_version=1,
            last_version=2,
            events=("InstanceStarted", "Persisted"),
        )
        for case in sorted((inner, deeper), key=lambda case: case.instance_id)
    ]
    commit = (await commits(connection, parent))[-1]
    assert list(commit.joined) == within
    assert (commit.children, commit.others) == ((), 2)

    (commit,) = await commits(connection, inner)
    assert {it.instance_id for it in commit.joined} == {parent.instance_id, deeper.instance_id}
    assert commit.others == 2
    (commit,) = await commits(connection, other)
    assert {it.instance_id for it in commit.joined} == {stranger.instance_id}


async def test_children_are_named_where_they_were_born(store: Store, connection: psycopg.AsyncConnection) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    started, spawned = parent.child("a"), parent.child("b", "spawn")
    successor = parent.child("k", "continued")
    await store.commit(
        parent.move(
            asked(started, "start"),
            asked(spawned, "spawn"),
            reason="subflow",
            children=[started.newborn, spawned.newborn],
        )
    )
    await store.commit(
        parent.move(
            InstanceContinued(instance_id=str(successor.instance_id)),
            reason="completed",
            children=[successor.newborn],
        )
    )
    _, born, continued = await commits(connection, parent)
    assert born.children == (
        Born(instance_id=started.instance_id, mode="start", workflow="audit", correlation_key="a"),
        Born(instance_id=spawned.instance_id, mode="spawn", workflow="audit", correlation_key="b"),
    )
    assert continued.children == (Born(instance_id=successor.instance_id, mode="continued"),)


async def test_a_long_history_is_read_page_by_page(store: Store, connection: psycopg.AsyncConnection) -> None:
    case = await store.waiting(await store.host(), "k", "Paid")
    for _ in range(120):
        await store.commit(case.move(reason="checkpoint"))
    found = await commits(connection, case)
    assert [commit.first_version for commit in found] == [1, *range(4, 124)]
    assert [commit.others for commit in found] == [0] * 121


async def test_an_instance_without_a_persistence_point_has_no_transactions(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    assert await commits(connection, await store.register(await store.host(), "k")) == []
    with pytest.raises(InstanceNotFound):
        await commits(connection, Case(uuid4(), uuid4(), message("Placed", "x")))


async def test_a_tree_holds_what_came_out_of_an_instance_nearest_first(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    host = await store.host()
    root = await store.waiting(host, "root", "Paid")
    await store.waiting(host, "stranger", "Paid")
    run, started = root.child("run", "run"), root.child("started")
    await store.commit(root.move(inner=[run.inner(run.begin())], children=[started.newborn]))
    (answer,) = await store.provider.load(host, [started.instance_id])
    assert not isinstance(answer, Exception)
    spawned = started.child("spawned", "spawn")
    await store.commit(started.begin(children=[spawned.newborn], consumed=[fresh(started.start)]))

    found = await tree(connection, root.instance_id)
    assert [(it.depth, it.correlation_key) for it in found if it.depth != 1] == [(0, "root"), (2, "spawned")]
    generation = {it.correlation_key: (it.subflow, it.parent_id, it.is_initialized) for it in found[1:3]}
    assert generation == {"run": ("run", root.instance_id, True), "started": ("start", root.instance_id, True)}
    assert [it.depth for it in await tree(connection, started.instance_id)] == [0, 1]
    assert len(await tree(connection, root.instance_id, limit=2)) == 2
    with pytest.raises(InstanceNotFound):
        await tree(connection, UUID(int=1))


async def test_what_subflows_leave_in_the_store_agrees_with_the_log(
    store: Store, connection: psycopg.AsyncConnection
) -> None:
    host = await store.host()
    root = await store.waiting(host, "root", "Paid")
    run, started = root.child("run", "run"), root.child("started")
    await store.commit(root.move(inner=[run.inner(run.begin())], children=[started.newborn]))
    await store.provider.load(host, [started.instance_id])
    await store.commit(started.begin(consumed=[fresh(started.start)]))
    checked = [it async for it in verify(connection)]
    assert {it.instance_id for it in checked} == {root.instance_id, run.instance_id, started.instance_id}
    assert [it.differences for it in checked] == [(), (), ()]
    await connection.execute(
        "update holdfast.instance_rows set parent_id = gen_random_uuid(), subflow = 'continued', "
        "awaited_as = gen_random_uuid() where parent_id is not null"
    )
    different = [{d.what for d in it.differences} for it in [c async for c in verify(connection)] if it.differences]
    assert different == [{"parent_id", "subflow", "awaited_as"}] * 2
