"""The hosts as an operator sees them: who lives, what each consumes and holds."""

import json

from holdfast.processor.client import Client
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, Store
from tests.support.commands import holdfast
from tests.support.stores import BehindPostgres
from tests.support.workers import environment


async def test_hosts_are_listed_with_their_partitions_and_locks(database_url: str) -> None:
    provider = PostgresProvider(database_url, APP)
    store = Store(provider, BehindPostgres(database_url))
    here, there = await store.host(machine="here"), await store.host(machine="there")
    since = await provider.now()
    await provider.share(here, {1: since, 0: since})
    await store.waiting(here, "k", "Paid")
    await store.waiting(there, "l", "Paid")
    await store.waiting(there, "m", "Paid")
    await store.behind.lapse(there)
    async with Client(database_url, app=APP) as client:
        alive, dead = await client.hosts()
    assert (alive.host_id, alive.machine, alive.is_alive, alive.locks) == (here, "here", True, 1)
    assert (alive.partitions, alive.consuming_since) == ([0, 1], [since, since])
    assert alive.shared_at is not None
    assert alive.shared_at >= since
    assert (dead.host_id, dead.is_alive, dead.locks, dead.partitions, dead.shared_at) == (there, False, 2, [], None)

    env = environment(database_url, "")
    shown = holdfast("hosts", "--app", APP, env=env)
    assert shown.returncode == 0, shown.stderr
    heading, first, second = shown.stdout.splitlines()
    assert heading.split() == ["host", "app", "machine", "process", "started", "lease", "until", "partitions", "locks"]
    assert first.split()[-3:] == ["00", "01", "1"]
    assert "dead since" in second
    listed = [json.loads(line) for line in holdfast("hosts", "--json", env=env).stdout.splitlines()]
    assert [host["host_id"] for host in listed] == [str(here), str(there)]
    assert listed[0]["partitions"] == [0, 1]
    await provider.close()


async def test_a_host_that_ended_long_ago_is_listed_as_long_as_it_has_locks(database_url: str) -> None:
    provider = PostgresProvider(database_url, APP)
    store = Store(provider, BehindPostgres(database_url))
    gone = await store.host()
    await store.waiting(gone, "k", "Paid")
    await store.host()
    await BehindPostgres(database_url).ask("update holdfast.hosts set lease_expiration = now() - interval '2 hours'")
    async with Client(database_url, app=APP) as client:
        assert [host.host_id for host in await client.hosts()] == [gone]
        await provider.close_host(gone)
        assert await client.hosts() == []
    await provider.close()
