"""What the provider does when Postgres goes away: at rest, in mid-transaction, under COMMIT."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from compose.local.services import Services
from holdfast.processor.engine.provider import Committed
from holdfast.processor.store import commit
from holdfast.processor.store.commit import TransactionAborted, commit_transaction
from holdfast.processor.store.connections import Connections
from holdfast.processor.store.persistence_point import write
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, Store, message
from holdfast.schemas.errors import CommitOutcomeUnknown, StorageError
from holdfast.schemas.postgres.migrate import migrate
from tests.support.proxy import Cut, Proxy, proxy_to
from tests.support.stores import BehindPostgres


@pytest.fixture
def private_url(own_services: Services, app_name: str) -> str:
    """A database on a server that the test may stop."""
    assert own_services.postgres is not None
    return own_services.new_database(app_name.replace("-", "_"))


@pytest.fixture
async def proxied(private_url: str) -> AsyncIterator[tuple[Proxy, Store]]:
    """A store whose provider talks to Postgres through a proxy."""
    await migrate(private_url)
    async with proxy_to(private_url) as (proxy, url):
        provider = PostgresProvider(url, APP)
        yield proxy, Store(provider, BehindPostgres(private_url))
        await provider.close()


# Protocol: C5, D4.
async def test_what_committed_under_a_broken_connection_is_known_to_be_committed(
    proxied: tuple[Proxy, Store],
) -> None:
    proxy, store = proxied
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    proxy.cut = "after"
    move = case.move()
    (answer,) = await store.provider.commit([move.batch])
    assert proxy.cuts == 1
    assert isinstance(answer, Committed)
    move.take()
    assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
    await store.commit(case.move())


# Protocol: C4, C5, D4.
async def test_what_did_not_commit_under_a_broken_connection_is_committed_again(
    proxied: tuple[Proxy, Store],
) -> None:
    proxy, store = proxied
    host = await store.host()
    cases = [await store.waiting(host, key, "Paid") for key in ("k", "l")]
    proxy.cut = "before"
    await store.commit(*(case.move() for case in cases))
    assert proxy.cuts == 1
    for case in cases:
        assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))


@pytest.mark.parametrize(("cut", "is_committed"), [("before", False), ("after", True)])
async def test_a_unit_of_work_knows_too(proxied: tuple[Proxy, Store], *, cut: Cut, is_committed: bool) -> None:
    proxy, store = proxied
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    move = case.move()
    proxy.cut = cut
    async with store.provider.begin(host) as unit:
        if is_committed:
            await unit.commit(move.batch)
            move.take()
        else:
            with pytest.raises(StorageError, match="the commit failed"):
                await unit.commit(move.batch)
    assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
    await store.commit(case.move())


# Protocol: C5, I5.
async def test_a_commit_that_the_server_lost_is_not_taken_for_that_of_a_later_one_under_the_same_id(
    own_services: Services, private_url: str
) -> None:
    await migrate(private_url)
    postgres, behind = own_services.postgres, BehindPostgres(private_url)
    assert postgres is not None
    provider = PostgresProvider(private_url, APP)
    store = Store(provider, behind)
    host = await store.host(lease_seconds=600)
    case = await store.waiting(host, "k", "Paid")
    move = case.move()
    connections = Connections(private_url, limit=1)
    async with await connections.open() as connection:
        await connection.execute("begin")
        outcome = await write(connection, APP, [move.batch])
        assert case.instance_id in outcome.written
        await asyncio.to_thread(postgres.restart, "immediate")
        # Others go on at once, and get the ids that the server no longer knows of.
        later = [await behind.ask("select pg_current_xact_id()::text::bigint") for _ in range(20)]
        assert [(outcome.xid,)] in later
        with pytest.raises(TransactionAborted):
            await commit_transaction(connections, connection, outcome.xid, move.batch)
    assert await behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
    await store.commit(case.move())
    await provider.close()


# Protocol: C5.
async def test_an_outcome_that_nobody_can_tell_is_unknown(
    proxied: tuple[Proxy, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PAUSES", (0.0, 0.0))
    proxy, store = proxied
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    move = case.move()
    proxy.cut, proxy.is_closed = "after", True
    (answer,) = await store.provider.commit([move.batch])
    assert isinstance(answer, CommitOutcomeUnknown)
    with pytest.raises(StorageError):
        await store.provider.commit([case.move().batch])
    proxy.is_closed = False
    (loaded,) = await store.provider.load(host, [case.instance_id])
    assert getattr(loaded, "state", None) == move.batch.state


async def test_the_provider_works_again_once_postgres_is_back(own_services: Services, private_url: str) -> None:
    await migrate(private_url)
    postgres = own_services.postgres
    assert postgres is not None
    provider = PostgresProvider(private_url, APP)
    store = Store(provider, BehindPostgres(private_url))
    host = await store.host(lease_seconds=600)
    case = await store.waiting(host, "k", "Paid")
    hints = provider.listen()
    await anext(hints)
    move = case.move()
    async with provider.begin(host) as unit:
        await asyncio.to_thread(postgres.stop)
        with pytest.raises(StorageError):
            async with unit.savepoint() as transaction:
                await transaction.execute("select 1")
        with pytest.raises(StorageError):
            await unit.commit(move.batch)
    for work in (
        provider.commit([move.batch]),
        provider.route([message("Paid", "k")]),
        provider.load(host, [case.instance_id]),
        provider.renew_host(host),
        provider.now(),
        provider.begin(host).__aenter__(),
    ):
        with pytest.raises(StorageError):
            await work
    await asyncio.to_thread(postgres.start)
    await store.commit(move)
    assert await provider.renew_host(host)
    async with provider.begin(host) as unit:
        move = case.move()
        await unit.commit(move.batch)
    await anext(hints)
    await hints.aclose()
    await provider.close()


async def test_idle_connections_that_broke_are_not_noticed_by_anybody(own_services: Services, private_url: str) -> None:
    await migrate(private_url)
    postgres = own_services.postgres
    assert postgres is not None
    provider = PostgresProvider(private_url, APP)
    store = Store(provider, BehindPostgres(private_url))
    host = await store.host(lease_seconds=600)
    case = await store.waiting(host, "k", "Paid")
    await asyncio.gather(*(provider.now() for _ in range(8)))
    await asyncio.to_thread(postgres.restart, "immediate")
    await store.commit(case.move())
    await asyncio.gather(*(provider.now() for _ in range(8)))
    await provider.close()


async def test_a_wrong_address_is_a_storage_error() -> None:
    provider = PostgresProvider("postgresql://nobody@127.0.0.1:1/nothing", APP)
    with pytest.raises(StorageError):
        await provider.now()
    await provider.close()
    with pytest.raises(StorageError, match="closed"):
        await provider.now()
