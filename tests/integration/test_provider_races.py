"""What happens on Postgres when two hosts, or two transactions, are about the same thing at the same time."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from holdfast.events.types import InstanceCompleted
from holdfast.processor.engine.provider import (
    AlreadyConsumed,
    Committed,
    Intake,
    Keeping,
    Loaded,
    Route,
    RouteKind,
    UnitOfWork,
)
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, Case, Store, fresh, message, stored
from holdfast.schemas.errors import (
    CommitRefused,
    InstanceLocked,
    InstanceLockLost,
    InstanceUnreadable,
    KeyInUse,
    StorageError,
)
from tests.support.races import held_open, until
from tests.support.stores import BehindPostgres


async def take_in(store: Store, envelope: Any) -> Route:
    (route,) = await store.provider.take_in([Intake(envelope=envelope, verdict="buffered")])
    return route


async def test_a_bookmark_that_commits_last_finds_the_message(stores: tuple[Store, Store], database_url: str) -> None:
    here, there = stores
    host = await here.host()
    case = await here.register(host, "k")
    paid = message("Paid", "k")
    move = case.begin(case.wait("Paid"))
    async with held_open(database_url, "bookmarks", here.provider.commit([move.batch])) as commit:
        assert (await take_in(there, paid)).kind is RouteKind.NONE
        assert not commit.done()
    (committed,) = commit.result()
    assert isinstance(committed, Committed)
    (woken,) = await here.provider.wakeups(host, [case.instance_id])
    assert [m.envelope for m in woken.messages] == [paid]


async def test_a_message_that_commits_last_finds_the_bookmark(stores: tuple[Store, Store], database_url: str) -> None:
    here, there = stores
    host = await here.host()
    case = await here.register(host, "k")
    paid = message("Paid", "k")
    await here.commit(case.begin())
    async with held_open(database_url, "inbox", take_in(there, paid)) as intake:
        await here.commit(case.move(case.wait("Paid")))
        (woken,) = await here.provider.wakeups(host, [case.instance_id])
        assert not woken.messages
        assert not intake.done()
    assert intake.result() == Route(RouteKind.BOOKMARK, case.instance_id)


async def test_no_wake_up_is_lost_when_bookmarks_and_messages_commit_side_by_side(
    stores: tuple[Store, Store],
) -> None:
    here, there = stores
    host = await here.host()
    for number in range(60):
        case = await here.register(host, f"k{number}")
        await here.commit(case.begin())
        paid = message("Paid", case.key)

        async def wait(case: Case = case) -> int:
            await here.commit(case.move(case.wait("Paid")))
            (woken,) = await here.provider.wakeups(host, [case.instance_id])
            return len(woken.messages)

        found, route = await asyncio.gather(wait(), take_in(there, paid))
        assert found == 1 or route.kind is RouteKind.BOOKMARK


async def test_a_message_for_an_instance_that_closes_meanwhile_does_not_stay(
    stores: tuple[Store, Store], database_url: str
) -> None:
    here, there = stores
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    note = message("Note", "k")
    async with held_open(database_url, "inbox", take_in(there, note)) as intake:
        await here.commit(case.end())
    assert intake.result() == Route(RouteKind.FINISHED, case.instance_id)
    assert await here.verdict(note) == "rejected: completed"


async def test_a_message_that_was_too_early_to_be_seen_and_too_late_to_see_is_found_by_the_sweep(
    stores: tuple[Store, Store], database_url: str
) -> None:
    here, there = stores
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    note = message("Note", "k")
    async with held_open(database_url, "events", here.provider.commit([case.end().batch])):
        assert (await take_in(there, note)).kind is RouteKind.NONE
    assert await here.verdict(note) == "buffered"
    assert list(await there.provider.runnable(await there.host(), ["Placed"], 10)) == []
    assert await here.verdict(note) == "rejected: completed"


async def test_of_two_hosts_that_load_a_lapsed_one_s_instances_each_is_one_s(stores: tuple[Store, Store]) -> None:
    here, there = stores
    late, one, two = await here.host(), await here.host(), await there.host()
    cases = [await here.waiting(late, f"k{number}", "Paid") for number in range(20)]
    await here.behind.lapse(late)
    ids = [case.instance_id for case in cases]
    mine, theirs = await asyncio.gather(here.provider.load(one, ids), there.provider.load(two, ids[::-1]))
    for left, right in zip(mine, reversed(theirs), strict=True):
        assert sorted([type(left).__name__, type(right).__name__]) == ["InstanceLocked", "Loaded"]


async def test_a_takeover_waits_for_a_commit_on_its_way_and_sees_what_it_wrote(
    stores: tuple[Store, Store], database_url: str
) -> None:
    here, there = stores
    late, heir = await here.host(), await there.host()
    case = await here.waiting(late, "k", "Paid")
    move = case.move(case.wait("Note"))
    async with held_open(database_url, "events", here.provider.commit([move.batch])) as commit:
        await here.behind.lapse(late)
        load = asyncio.create_task(there.provider.load(heir, [case.instance_id]))
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await until(connection, "select count(*) > 0 from pg_locks where not granted and locktype <> 'advisory'")
    (committed,), (loaded,) = commit.result(), await load
    assert isinstance(committed, Committed)
    assert isinstance(loaded, Loaded)
    assert loaded.state == move.batch.state


async def test_of_two_hosts_that_register_a_key_one_gets_it(stores: tuple[Store, Store]) -> None:
    hosts = [await store.host() for store in stores]
    for number in range(20):
        cases = [Case(uuid4(), host, message("Placed", f"k{number}")) for host in hosts]
        answers = await asyncio.gather(
            *(s.provider.register(h, [c.registration]) for s, h, c in zip(stores, hosts, cases, strict=True))
        )
        assert sorted(type(answer).__name__ for (answer,) in answers) == ["KeyInUse", "int"]


# Protocol: I1.
async def test_a_message_is_applied_once_however_many_hosts_have_it(stores: tuple[Store, Store]) -> None:
    hosts = [await store.host() for store in stores]
    cases = [await s.waiting(h, str(h), "Paid") for s, h in zip(stores, hosts, strict=True)]
    for number in range(20):
        note = message("Note", f"k{number}")
        if number % 2:
            await stores[0].buffer(note)
        consumed = [fresh(note), stored(note)] if number % 4 > 1 else [fresh(note)] * 2
        moves = [case.move(consumed=[c]) for case, c in zip(cases, consumed, strict=True)]
        answers = await asyncio.gather(*(s.provider.commit([m.batch]) for s, m in zip(stores, moves, strict=True)))
        assert sorted(type(answer).__name__ for (answer,) in answers) == ["AlreadyConsumed", "Committed"]
        for move, (answer,) in zip(moves, answers, strict=True):
            if isinstance(answer, Committed):
                move.take()


async def test_hosts_that_want_each_other_s_keys_and_messages_come_to_an_end(stores: tuple[Store, Store]) -> None:
    hosts = [await store.host() for store in stores]
    rng = random.Random(7)  # noqa: S311 It only shuffles, the same way each time.
    for _ in range(15):
        keys = [f"key-{rng.randrange(10**9)}" for _ in range(8)]
        notes = [message("Note", key) for key in keys]
        groups = []
        for store, host in zip(stores, hosts, strict=True):
            cases = [await store.register(host, f"{host}-{key}") for key in keys]
            rng.shuffle(keys)
            rng.shuffle(notes)
            groups.append(
                [
                    case.begin(case.wait("Paid", key), consumed=[fresh(case.start), fresh(note)])
                    for case, key, note in zip(cases, keys, notes, strict=True)
                ]
            )
        answers = await asyncio.gather(
            *(s.provider.commit([m.batch for m in group]) for s, group in zip(stores, groups, strict=True))
        )
        kinds = {type(answer) for group in answers for answer in group}
        assert kinds <= {Committed, KeyInUse, AlreadyConsumed}
        inbox = await stores[0].behind.inbox()
        for answer, move in zip([*answers[0], *answers[1]], [*groups[0], *groups[1]], strict=True):
            started = inbox.get(move.case.start.message_id)
            assert (started is not None) == isinstance(answer, Committed)


# Protocol: I8.
async def test_a_transaction_older_than_the_last_commit_is_refused(stores: tuple[Store, Store]) -> None:
    here, _ = stores
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    async with here.provider.begin(host) as unit:
        await here.commit(case.move())
        late = case.move()
        with pytest.raises(StorageError, match="run again"):
            await unit.commit(late.batch)
    await here.commit(late)


async def test_a_member_that_the_database_refuses_harms_no_other(stores: tuple[Store, Store]) -> None:
    here, _ = stores
    host = await here.host()
    cases = [await here.register(host, f"k{number}") for number in range(7)]
    moves = [case.begin(case.wait("Paid")) for case in cases]
    moves[3] = cases[3].begin(cases[3].wait("Paid", "no\x00key"))
    answers = await here.provider.commit([move.batch for move in moves])
    assert [type(answer) for answer in answers] == [Committed] * 3 + [CommitRefused] + [Committed] * 3
    assert await here.behind.versions(cases[3].instance_id) == []


async def attempt(unit: UnitOfWork, *statements: str) -> None:
    """Run statements under a savepoint, as a record activity does."""
    async with unit.savepoint() as transaction:
        for statement in statements:
            await transaction.execute(statement)


# Protocol: I3.
async def test_user_sql_and_batch_commit_together_or_not_at_all(stores: tuple[Store, Store], database_url: str) -> None:
    here, _ = stores
    behind = BehindPostgres(database_url)
    await behind.ask("create table notes (note text primary key)")
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    async with here.provider.begin(host) as unit:
        async with unit.savepoint() as transaction:
            await transaction.execute("insert into notes values (%s)", ("kept",))
        with pytest.raises(psycopg.errors.UniqueViolation):
            await attempt(unit, "insert into notes values ('undone')", "insert into notes values ('kept')")
        move = case.move()
        await unit.commit(move.batch)
        move.take()
    await here.behind.lapse(host)
    async with here.provider.begin(host) as unit:
        async with unit.savepoint() as transaction:
            await transaction.execute("insert into notes values ('fenced')")
        with pytest.raises(InstanceLockLost):
            await unit.commit(case.move().batch)
    async with here.provider.begin(host) as unit, unit.savepoint() as transaction:
        await transaction.execute("insert into notes values ('left')")
    assert await behind.ask("select note from notes") == [("kept",)]
    assert await behind.ask("select count(*) from pg_stat_activity where state like 'idle in transaction%%'") == [(0,)]


async def test_a_deferred_constraint_of_user_sql_is_told_from_a_lost_connection(
    stores: tuple[Store, Store], database_url: str
) -> None:
    here, _ = stores
    await BehindPostgres(database_url).ask("create table notes (note text unique deferrable initially deferred)")
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    async with here.provider.begin(host) as unit:
        await attempt(unit, "insert into notes values ('twice')", "insert into notes values ('twice')")
        with pytest.raises(CommitRefused):
            await unit.commit(case.move().batch)
    await here.commit(case.move())


async def test_a_missing_table_is_nobody_s_fault(stores: tuple[Store, Store], database_url: str) -> None:
    here, _ = stores
    cases = [await here.register(await here.host(), f"k{number}") for number in range(2)]
    await BehindPostgres(database_url).ask("alter table holdfast.inbox rename to outbox_of_old")
    with pytest.raises(StorageError) as raised:
        await here.provider.commit([case.begin().batch for case in cases])
    assert not isinstance(raised.value, CommitRefused)
    await BehindPostgres(database_url).ask("alter table holdfast.outbox_of_old rename to inbox")
    await here.commit(*(case.begin() for case in cases))


@pytest.mark.parametrize("statements", [["commit"], ["rollback"], ["commit", "begin"]])
async def test_user_sql_that_ends_the_transaction_is_found_out(
    stores: tuple[Store, Store], statements: list[str]
) -> None:
    here, _ = stores
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    async with here.provider.begin(host) as unit:
        with suppress(psycopg.Error):
            await attempt(unit, *statements)
        with pytest.raises(StorageError):
            await unit.commit(case.move().batch)
    assert await here.behind.versions(case.instance_id) == [1, 2, 3]
    await here.commit(case.move())


@pytest.mark.parametrize("statements", [["commit"], ["rollback"], ["commit", "begin"], ["release holdfast_mark"]])
async def test_user_sql_that_takes_a_mark_away_is_found_out(stores: tuple[Store, Store], statements: list[str]) -> None:
    here, _ = stores
    host = await here.host()
    for back in (False, True):
        async with here.provider.begin(host) as unit:
            await unit.mark()
            with suppress(psycopg.Error):
                await attempt(unit, *statements)
            with pytest.raises(StorageError):
                await (unit.back_to_mark() if back else unit.drop_mark())


async def test_units_of_work_are_bounded_and_leave_the_writer_alone(database_url: str) -> None:
    provider = PostgresProvider(database_url, APP, user_connections=1)
    store = Store(provider, BehindPostgres(database_url))
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")

    async def open_another() -> None:
        async with provider.begin(host):
            pass

    async with provider.begin(host):
        another = asyncio.create_task(open_another())
        await store.commit(case.move())
        assert not another.done()
    await another
    await provider.close()


async def test_locked_says_by_whom(stores: tuple[Store, Store]) -> None:
    here, there = stores
    host = await here.host(machine="berlin")
    case = await here.waiting(host, "k", "Paid")
    (answer,) = await there.provider.load(await there.host(), [case.instance_id])
    assert isinstance(answer, InstanceLocked)
    assert "berlin" in str(answer)


async def test_a_cancelled_commit_leaves_no_locks_behind(stores: tuple[Store, Store], database_url: str) -> None:
    here, there = stores
    host = await here.host()
    case = await here.waiting(host, "k", "Paid")
    move = case.move(case.wait("Note"))
    async with held_open(database_url, "bookmarks", here.provider.commit([move.batch])) as commit:
        commit.cancel()
        await asyncio.wait([commit])
        await here.behind.lapse(host)
        (loaded,) = await there.provider.load(await there.host(), [case.instance_id])
    assert commit.cancelled()
    assert isinstance(loaded, Loaded)
    assert loaded.state == case.state


async def test_a_state_that_cannot_be_read_keeps_no_other_from_being_loaded(stores: tuple[Store, Store]) -> None:
    here, _ = stores
    host = await here.host()
    newer, known = await here.waiting(host, "newer", "Paid"), await here.waiting(host, "k", "Paid")
    assert isinstance(here.behind, BehindPostgres)
    await here.behind.ask(
        "update holdfast.instance_states set state = '{\"format\": 2}' where instance_id = %s", newer.instance_id
    )
    unreadable, loaded = await here.provider.load(host, [newer.instance_id, known.instance_id])
    assert isinstance(unreadable, InstanceUnreadable)
    assert isinstance(loaded, Loaded)


# Protocol: I21.
async def test_a_start_message_starts_once_however_fast_its_instance_comes_and_goes(
    stores: tuple[Store, Store], database_url: str
) -> None:
    here, there = stores
    host, other = await here.host(), await there.host()
    deleted = Keeping(on_completion="delete")
    case = await here.register(host, "k")
    move = case.begin(InstanceCompleted(result=None), reason="completed", keeping=deleted)
    again = replace(Case(uuid4(), other, case.start).registration, keeping=deleted)
    innocent = replace(Case(uuid4(), other, message("Placed", "innocent")).registration, keeping=deleted)
    async with held_open(database_url, "inbox", here.provider.commit([move.batch])) as commit:
        registering = asyncio.create_task(there.provider.register(other, [again, innocent]))
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await until(
                connection, "select count(*) > 0 from pg_locks where locktype = 'transactionid' and not granted"
            )
        assert not commit.done()
    assert isinstance(commit.result()[0], Committed)
    refused, token = await registering
    assert isinstance(refused, AlreadyConsumed)
    assert token == 1
    assert (await there.provider.route([case.start]))[0].kind is RouteKind.DUPLICATE
