"""Moving instances to new code while something fails: a connection, or the database at one of them."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from holdfast import App, Client, Message, receive
from holdfast.processor import migrating
from holdfast.processor.store.persistence_point import write
from holdfast.schemas.errors import WrongExpectedVersion
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import Host, running_host
from tests.support.proxy import proxy_to
from tests.support.workers import environment

SPEC = "tests.integration.test_migrate_faults:two"

one = App("faults")
two = App("faults")


class Begun(Message, correlation="key"):
    key: str


class Over(Message, correlation="key"):
    key: str


@one.workflow(start=Begun, name="wait")
async def first(begun: Begun) -> str:
    await receive(Over, begun.key)
    return "old"


@two.workflow(start=Begun, name="wait")
async def second(begun: Begun) -> str:
    await receive(Over, begun.key)
    return "new"


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(one, database_url, Settings()) as host:
        yield host


async def waiting(host: Host, database_url: str, *keys: str, suspended: str | None = None) -> list[UUID]:
    """Return instances that wait under the first program and that their worker has let go of, the oldest first."""
    found = [await host.deliver(Begun(key=key)) for key in keys]
    async with Client(database_url, app=one.name) as client:
        for key, instance_id in zip(keys, found, strict=True):
            if key == suspended:
                await client.suspend(instance_id, by="tester")
                await host.look()
            await client.unload(instance_id, by="tester")
            await host.look()
    assert await host.ask("select count(*) from holdfast.instances where lock_owner is not null") == [(0,)]
    return found


async def migrations(host: Host) -> list[tuple[UUID, int]]:
    """Return which instances were moved, and how often."""
    return await host.ask(
        "select instance_id, count(*) from holdfast.events where type = 'InstanceMigrated' group by 1 order by 1"
    )


async def test_a_move_whose_connection_broke_after_the_commit_is_made_once(
    host: Host, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (instance_id,) = await waiting(host, database_url, "a")
    async with proxy_to(database_url) as (proxy, url), Client(url, app=two.name) as client:

        async def write_and_cut(*arguments: Any) -> Any:
            if proxy.cuts == 0:
                proxy.cut = "after"
            return await write(*arguments)

        monkeypatch.setattr(migrating, "write", write_and_cut)
        verdict = await client.migrate(two, instance_id, by="ann")
        assert proxy.cuts == 1
        assert verdict.can_move
        assert (await client.migrate(two, instance_id, by="ann")).is_current
        assert [checked.differences async for checked in client.verify() if checked.differences] == []
    assert await migrations(host) == [(instance_id, 1)]


async def test_a_stream_that_went_on_otherwise_is_not_taken_for_the_move(
    host: Host, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (instance_id,) = await waiting(host, database_url, "a")

    async def write_late(*arguments: Any) -> Any:
        await host.ask("update holdfast.instance_rows set version = version + 1 returning 1")
        return await write(*arguments)

    monkeypatch.setattr(migrating, "write", write_late)
    async with Client(database_url, app=two.name) as client:
        with pytest.raises(WrongExpectedVersion):
            await client.migrate(two, instance_id, by="ann")
    assert await migrations(host) == []


async def test_where_the_database_fails_at_one_the_others_are_moved(
    host: Host, database_url: str, amqp_url: str
) -> None:
    spoilt, moved = await waiting(host, database_url, "a", "b")
    await host.ask(
        f"""do $$ begin
            create function refuse() returns trigger language plpgsql as
                'begin raise exception ''no space left''; end';
            create trigger refuse before insert on holdfast.events for each row
                when (new.instance_id = '{spoilt}') execute function refuse();
        end $$; select 1"""
    )
    env = environment(database_url, amqp_url)
    done = holdfast("migrate-instances", SPEC, "--json", env=env)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = {each["instance_id"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert {instance_id: each["moved"] for instance_id, each in lines.items()} == {str(spoilt): False, str(moved): True}
    assert "no space left" in lines[str(spoilt)]["refusal"]
    assert await migrations(host) == [(moved, 1)]
    done = holdfast("migrate-instances", SPEC, env=env)
    assert done.returncode == 1
    assert f"{spoilt}  refused: the database failed: no space left" in done.stderr
    assert "0 moved, 1 left as they are, 1 up to date" in done.stdout


async def test_who_moves_what_is_suspended_is_told_that_it_stays_so(
    host: Host, database_url: str, amqp_url: str
) -> None:
    suspended, moved = await waiting(host, database_url, "a", "b", suspended="a")
    env = environment(database_url, amqp_url)
    hint = "  suspended: moved or not, it stays so until `holdfast resume`\n"
    before = holdfast("preflight", SPEC, env=env)
    assert before.stdout.count(hint) == 1
    assert f"{suspended}  wait/a: goes on with its old program, can be moved\n{hint}" in before.stdout
    lines = [json.loads(line) for line in holdfast("preflight", SPEC, "--json", env=env).stdout.splitlines()]
    assert {each["instance_id"]: each["is_suspended"] for each in lines} == {str(suspended): True, str(moved): False}
    done = holdfast("migrate-instances", SPEC, env=env)
    assert done.stdout.count(hint) == 1
    assert f"{suspended}  wait/a: moved\n{hint}" in done.stdout
    async with Client(database_url, app=two.name) as client:
        assert (await client.state(suspended)).is_suspended
