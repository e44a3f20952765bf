"""What happens on Postgres when hosts are about the same subflows at the same time."""

import asyncio
import random
from uuid import uuid4

import psycopg

from holdfast.processor.engine.provider import Committed, Deposit, Loaded
from holdfast.processor.testing.conformance.harness import AUDIT, Case, Move, Store, message, stored
from holdfast.schemas.errors import InstanceLocked, InstanceLockLost, KeyInUse
from tests.support.races import held_open, until

Stores = tuple[Store, Store]


async def waits_for_a_lock(database_url: str) -> None:
    """Return once some transaction waits for another one."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await until(connection, "select count(*) > 0 from pg_locks where not granted and locktype <> 'advisory'")


async def begun(store: Store, child: Case) -> Case:
    """Let the host of the parent take a child up and bring it to its first idle point."""
    (loaded,) = await store.provider.load(child.host_id, [child.instance_id])
    assert isinstance(loaded, Loaded)
    child.token = loaded.lock_token
    await store.commit(child.begin(child.wait("Note"), consumed=[stored(child.start)]))
    return child


def command(case: Case) -> Deposit:
    return Deposit(envelope=message("cancel", str(case.instance_id)), kind="control", instance_id=case.instance_id)


async def test_of_two_hosts_that_want_one_child_one_gets_it(stores: Stores) -> None:
    hosts = [await store.host() for store in stores]
    parent = await stores[0].waiting(hosts[0], "k", "Paid")
    children = [parent.child(f"k{number}") for number in range(20)]
    await stores[0].commit(parent.move(children=[child.newborn for child in children]))
    ids = [child.instance_id for child in children]
    found = await asyncio.gather(*(s.provider.runnable(h, [], 100) for s, h in zip(stores, hosts, strict=True)))
    assert all({each.instance_id for each in look} == set(ids) for look in found)
    mine, theirs = await asyncio.gather(
        stores[0].provider.load(hosts[0], ids), stores[1].provider.load(hosts[1], ids[::-1])
    )
    for left, right in zip(mine, reversed(theirs), strict=True):
        assert sorted([type(left).__name__, type(right).__name__]) == ["InstanceLocked", "Loaded"]


async def test_a_child_that_is_taken_over_is_begun_once(stores: Stores) -> None:
    here, there = stores
    late, heir = await here.host(), await there.host()
    parent = await here.waiting(late, "k", "Paid")
    child = parent.child("c")
    await here.commit(parent.move(children=[child.newborn]))
    (mine,) = await here.provider.load(late, [child.instance_id])
    await here.behind.lapse(late)
    (theirs,) = await there.provider.load(heir, [child.instance_id])
    assert isinstance(mine, Loaded)
    assert isinstance(theirs, Loaded)
    child.token = mine.lock_token
    stale = child.begin(consumed=[stored(child.start)])
    child.host_id, child.token = heir, theirs.lock_token
    (refused,) = await here.provider.commit([stale.batch])
    assert isinstance(refused, InstanceLockLost)
    await there.commit(child.begin(consumed=[stored(child.start)]))
    assert await there.behind.versions(child.instance_id) == [1, 2]


async def test_of_two_parents_that_start_one_child_one_gets_it(stores: Stores) -> None:
    hosts = [await store.host() for store in stores]
    parents = [await s.waiting(h, str(h), "Paid") for s, h in zip(stores, hosts, strict=True)]
    for number in range(20):
        moves = [parent.move(children=[parent.child(f"k{number}").newborn]) for parent in parents]
        answers = await asyncio.gather(*(s.provider.commit([m.batch]) for s, m in zip(stores, moves, strict=True)))
        assert sorted(type(answer).__name__ for (answer,) in answers) == ["Committed", "KeyInUse"]
        _take(moves, [answer for (answer,) in answers])


async def test_of_a_parent_and_a_message_that_start_one_key_one_gets_it(stores: Stores) -> None:
    here, there = stores
    host, other = await here.host(), await there.host()
    parent = await here.waiting(host, "k", "Paid")
    for number in range(20):
        child = parent.child(f"k{number}")
        case = Case(uuid4(), other, message("Audited", f"k{number}"), AUDIT)
        move = parent.move(children=[child.newborn])
        (committed,), (token,) = await asyncio.gather(
            here.provider.commit([move.batch]), there.provider.register(other, [case.registration])
        )
        _take([move], [committed])
        assert isinstance(committed, KeyInUse) != isinstance(token, KeyInUse)


async def test_a_command_for_a_child_that_closes_meanwhile_does_not_stay(stores: Stores, database_url: str) -> None:
    here, there = stores
    parent = await here.waiting(await here.host(), "k", "Paid")
    child = parent.child("c")
    await here.commit(parent.move(children=[child.newborn]))
    child.host_id = await there.host()
    await begun(there, child)
    cancel = command(child)
    async with held_open(database_url, "events", there.provider.commit([child.end().batch])) as end:
        move = parent.move(deposits=[cancel])
        late = asyncio.create_task(here.provider.commit([move.batch]))
        await waits_for_a_lock(database_url)
    assert [type(answer) for answer in (*end.result(), *await late)] == [Committed, Committed]
    assert await here.verdict(cancel.envelope) == "rejected: completed"


async def test_a_child_that_closes_sees_the_command_that_comes_meanwhile(stores: Stores, database_url: str) -> None:
    here, there = stores
    parent = await here.waiting(await here.host(), "k", "Paid")
    child = parent.child("c")
    await here.commit(parent.move(children=[child.newborn]))
    child.host_id = await there.host()
    await begun(there, child)
    cancel = command(child)
    move = parent.move(deposits=[cancel])
    async with held_open(database_url, "events", here.provider.commit([move.batch])) as deposit:
        late = asyncio.create_task(there.provider.commit([child.end().batch]))
        await waits_for_a_lock(database_url)
    assert [type(answer) for answer in (*deposit.result(), *await late)] == [Committed, Committed]
    assert await here.verdict(cancel.envelope) == "rejected: completed"


async def test_a_parent_that_waits_last_finds_what_its_child_answered(stores: Stores, database_url: str) -> None:
    here, there = stores
    host, other = await here.host(), await there.host()
    parent = await here.waiting(host, "k", "Paid")
    child = parent.child("c")
    await here.commit(parent.move(children=[child.newborn]))
    child.host_id = other
    await begun(there, child)
    key = str(child.instance_id)
    answer = Deposit(envelope=message("holdfast.SubflowResult", key))
    move = parent.move(parent.wait("holdfast.SubflowResult", key, kind="child"))
    async with held_open(database_url, "bookmarks", here.provider.commit([move.batch])):
        await there.commit(child.end(deposits=[answer]))
    (woken,) = await here.provider.wakeups(host, [parent.instance_id])
    assert [each.envelope for each in woken.messages] == [answer.envelope]


async def test_parents_that_command_each_other_s_children_come_to_an_end(stores: Stores) -> None:
    hosts = [await store.host() for store in stores]
    families: list[list[tuple[Case, Case]]] = []
    for store, host in zip(stores, hosts, strict=True):
        parents = [await store.waiting(host, f"{host}-{number}", "Paid") for number in range(6)]
        children = [parent.child(f"{host}-{number}-child") for number, parent in enumerate(parents)]
        await store.commit(*(p.move(children=[c.newborn]) for p, c in zip(parents, children, strict=True)))
        families.append([(p, await begun(store, c)) for p, c in zip(parents, children, strict=True)])
    rng = random.Random(7)  # noqa: S311 It only shuffles, the same way each time.
    for _ in range(10):
        groups: list[list[Move]] = []
        for mine, theirs in ((families[0], families[1]), (families[1], families[0])):
            targets = [child for _, child in theirs]
            rng.shuffle(targets)
            group = [p.move(deposits=[command(t)]) for (p, _), t in zip(mine, targets, strict=True)]
            groups.append(group + [child.move() for _, child in mine])
        answers = await asyncio.gather(
            *(s.provider.commit([m.batch for m in group]) for s, group in zip(stores, groups, strict=True))
        )
        for group, answered in zip(groups, answers, strict=True):
            assert {type(answer) for answer in answered} == {Committed}
            _take(group, answered)


async def test_a_parent_that_lost_its_lock_writes_no_inner_subflow(stores: Stores) -> None:
    here, there = stores
    late, heir = await here.host(), await there.host()
    parent = await here.waiting(late, "k", "Paid")
    child = parent.child("c", "run")
    begin = child.begin()
    await here.commit(parent.move(inner=[child.inner(begin)], release=True))
    begin.take()
    (refused,) = await there.provider.load(heir, [child.instance_id])
    assert not isinstance(refused, Loaded | InstanceLocked)
    (loaded,) = await there.provider.load(heir, [parent.instance_id])
    assert isinstance(loaded, Loaded)
    (answer,) = await here.provider.commit([parent.move(inner=[child.inner(child.end())]).batch])
    assert isinstance(answer, InstanceLockLost)
    assert await here.behind.versions(child.instance_id) == [1, 2]


def _take(moves: list[Move], answers: object) -> None:
    assert isinstance(answers, list)
    for move, answer in zip(moves, answers, strict=True):
        if isinstance(answer, Committed):
            move.take()
