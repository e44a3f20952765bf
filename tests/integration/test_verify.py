"""The instance store against the log."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.events.types import ActivityCompleted, Persisted, Where
from holdfast.projections import verify as module
from holdfast.projections.verify import Checked, verify
from holdfast.schemas.errors import InstanceNotFound
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, persist, register


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def host(connection: psycopg.AsyncConnection) -> UUID:
    return await add_host(connection)


async def check(connection: psycopg.AsyncConnection, instance_id: UUID | None = None) -> list[Checked]:
    return [it async for it in verify(connection, instance_id=instance_id)]


# Protocol: I4.
async def test_what_was_written_with_its_events_agrees_with_them(
    connection: psycopg.AsyncConnection, host: UUID
) -> None:
    ids = [
        await add_order(connection, host, *batches) for batches in ([WAITING], [WAITING, PAID], [WAITING, SUSPENDED])
    ]
    await register(connection, host)
    assert await check(connection) == [Checked(ids[0], 4, ()), Checked(ids[1], 7, ()), Checked(ids[2], 6, ())]
    assert await check(connection, ids[1]) == [Checked(ids[1], 7, ())]


async def test_what_participants_promote_is_in_the_store_and_checked(
    connection: psycopg.AsyncConnection, host: UUID
) -> None:
    promoted = {"city": "Ulm", "amount": 12.5, "far": 1e300, "ids": [1, None], "of": {"a": True}}
    instance_id = await add_order(connection, host, WAITING, [Persisted(reason="checkpoint", promoted=promoted)])
    found = await connection.execute("select instance_id from holdfast.instances where promoted->>'city' = 'Ulm'")
    assert await found.fetchall() == [(instance_id,)]
    assert await check(connection) == [Checked(instance_id, 5, ())]
    await connection.execute('update holdfast.instance_states set promoted = promoted || \'{"city": "Rome"}\'')
    (checked,) = await check(connection)
    assert [(d.what, d.folded) for d in checked.differences] == [("promoted", promoted)]


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (
            "update holdfast.instance_rows set version = 3",
            {"version", "execution_status", "state.version", "state.execution_status", "state.frames"},
        ),
        ("update holdfast.instance_rows set version = 5", {"log"}),
        ("update holdfast.instance_rows set is_initialized = false", {"is_initialized"}),
        ("update holdfast.instance_rows set execution_status = 'executing'", {"execution_status"}),
        (
            "update holdfast.instance_rows set execution_status = 'closed', is_completed = true, outcome = 'faulted'",
            {"execution_status", "outcome"},
        ),
        (
            "update holdfast.instance_rows set is_suspended = true, suspension_reason = 'requested'",
            {"is_suspended", "suspension_reason"},
        ),
        ("update holdfast.instance_rows set suspension_exception_name = 'X'", {"suspension_exception_name"}),
        ("update holdfast.instance_rows set correlation_key = 'x'", {"correlation_key"}),
        ("update holdfast.instance_rows set workflow = 'x', program_hash = 'y'", {"workflow", "program_hash"}),
        ("update holdfast.instance_rows set pending_timer = null", {"pending_timer"}),
        ("update holdfast.instance_rows set pending_timer = pending_timer + '1 us'", {"pending_timer"}),
        ("delete from holdfast.bookmarks where name = '0:late'", {"bookmarks"}),
        ("update holdfast.bookmarks set due = due + '1 us' where name = '0:late'", {"bookmarks"}),
        ("update holdfast.bookmarks set line = 12", {"bookmarks"}),
        ("update holdfast.bookmarks set correlation_key = 'x' where kind = 'message'", {"bookmarks"}),
        ("delete from holdfast.instance_states", {"state"}),
        ("update holdfast.instance_states set state = 'nonsense'", {"state"}),
        ("update holdfast.instance_states set state = state || ' '::bytea", {"state"}),
        (
            """update holdfast.instance_states
            set state = convert_to(replace(convert_from(state, 'UTF8'), '"amount":5', '"amount":6'), 'UTF8')""",
            {"state.frames"},
        ),
        (
            """update holdfast.instance_states
            set state = convert_to(replace(convert_from(state, 'UTF8'), '"amount":5', '"amount":5.0'), 'UTF8')""",
            {"state"},
        ),
    ],
)
async def test_every_damage_to_the_store_is_found(
    connection: psycopg.AsyncConnection, host: UUID, damage: str, where: set[str]
) -> None:
    instance_id = await add_order(connection, host, WAITING)
    await connection.execute(damage.encode())
    (checked,) = await check(connection)
    assert checked.instance_id == instance_id
    assert {it.what for it in checked.differences} == where
    assert all(it.stored != it.folded for it in checked.differences)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("delete from holdfast.events where version = 2", "gap after version 0"),
        ("delete from holdfast.events where version = 4", "gap after version 3"),
        ("update holdfast.events set type = 'InstanceTeleported' where version = 3", "InstanceTeleported"),
        ("update holdfast.events set data = '{}' where version = 3", "BookmarkOpened is stored in a shape"),
    ],
)
async def test_a_log_that_somebody_broke_is_reported(
    connection: psycopg.AsyncConnection, host: UUID, damage: str, message: str
) -> None:
    broken = await add_order(connection, host, WAITING)
    await connection.execute("alter table holdfast.events disable trigger events_are_append_only")
    await connection.execute(damage.encode())
    whole = await add_order(connection, host, WAITING)
    first, second = await check(connection)
    assert (first.instance_id, second) == (broken, Checked(whole, 4, ()))
    (difference,) = first.differences
    assert difference.what == "log"
    assert message in str(difference.folded)


async def test_many_instances_and_long_streams_are_read_in_pieces(
    connection: psycopg.AsyncConnection, host: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    monkeypatch.setattr(module, "_CHUNK", 2)
    done = ActivityCompleted(where=Where("0", 1, 8), activity="a", idempotency_key="k", attempts=1, result=None)
    ids = [await add_order(connection, host, WAITING, [done] * length + [*PAID]) for length in range(9)]
    assert await check(connection) == [Checked(it, 7 + length, ()) for length, it in enumerate(ids)]


async def test_events_that_come_meanwhile_are_no_difference(
    connection: psycopg.AsyncConnection, host: UUID, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = await register(connection, host, key="k")
    await persist(connection, host, instance_id, WAITING, release=False)
    await connection.commit()
    fold_all = module._run

    async def commit_more_and_fold_all(*arguments: Any) -> None:
        """Run between the look at the store and the look at the log."""
        async with await psycopg.AsyncConnection.connect(database_url) as other:
            await persist(other, host, instance_id, PAID)
        await fold_all(*arguments)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(module, "_run", commit_more_and_fold_all)
        assert await check(connection) == [Checked(instance_id, 4, ())]
    assert await check(connection) == [Checked(instance_id, 7, ())]


async def test_only_the_instances_of_one_app_are_checked(connection: psycopg.AsyncConnection, host: UUID) -> None:
    mine = await add_order(connection, host, WAITING)
    await add_order(connection, host, WAITING, app="other")
    assert [it.instance_id async for it in verify(connection, app="shop")] == [mine]


async def test_a_single_instance_that_is_not_persisted_is_not_found(
    connection: psycopg.AsyncConnection, host: UUID
) -> None:
    registered = await register(connection, host)
    for instance_id in (registered, uuid4()):
        with pytest.raises(InstanceNotFound):
            await check(connection, instance_id)
    assert await check(connection) == []
