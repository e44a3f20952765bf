"""One instance through time."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.events.types import FrameChange, InstanceResumed, InstanceSuspended, Persisted
from holdfast.projections.history import history, place, state_at
from holdfast.projections.instance import fold, initial
from holdfast.schemas.errors import InstanceNotFound, VersionNotFound
from tests.support.instances import PAID, WAITING, add_host, persist, register


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def order(connection: psycopg.AsyncConnection) -> UUID:
    """An order that was placed in one transaction and paid in a later one."""
    host = await add_host(connection)
    instance_id = await register(connection, host)
    await persist(connection, host, instance_id, WAITING, release=False)
    await connection.commit()
    await persist(connection, host, instance_id, PAID)
    await connection.commit()
    return instance_id


async def test_history_tells_what_happened_at_which_line(connection: psycopg.AsyncConnection, order: UUID) -> None:
    entries = [it async for it in history(connection, order)]
    assert [(it.recorded.version, type(it.recorded.event).__name__, it.frame, it.line) for it in entries] == [
        (1, "InstanceStarted", None, None),
        (2, "BookmarkOpened", "0", 11),
        (3, "BookmarkOpened", "0", 11),
        (4, "Persisted", "0", 11),
        (5, "MessageReceived", "0", 11),
        (6, "InstanceCompleted", None, None),
        (7, "Persisted", None, None),
    ]
    assert len({it.recorded.cursor.xid for it in entries}) == 2


async def test_a_part_of_the_history_has_both_its_ends(connection: psycopg.AsyncConnection, order: UUID) -> None:
    assert [it.recorded.version async for it in history(connection, order, 3, 5)] == [3, 4, 5]


async def test_the_state_at_each_version_is_the_fold_up_to_it(connection: psycopg.AsyncConnection, order: UUID) -> None:
    events = [*WAITING, *PAID]
    for version in range(8):
        assert await state_at(connection, order, version) == fold(events[:version])
    assert await state_at(connection, order) == fold(events)


async def test_the_state_at_a_moment_is_that_of_the_last_event_by_then(
    connection: psycopg.AsyncConnection, order: UUID
) -> None:
    recorded = [it.recorded async for it in history(connection, order)]
    placed, paid = recorded[3].recorded_at, recorded[4].recorded_at
    assert placed < paid
    instant = timedelta(microseconds=1)
    assert await state_at(connection, order, recorded[0].recorded_at - instant) == initial
    assert (await state_at(connection, order, placed)).version == 4
    assert (await state_at(connection, order, paid - instant)).version == 4
    assert (await state_at(connection, order, datetime(9999, 1, 1, tzinfo=UTC))).version == 7


@pytest.mark.parametrize("version", [-1, 8])
async def test_a_version_that_never_was_is_refused(
    connection: psycopg.AsyncConnection, order: UUID, version: int
) -> None:
    with pytest.raises(VersionNotFound, match=rf"has versions up to 7, not {version}$"):
        await state_at(connection, order, version)


async def test_an_instance_without_a_persistence_point_has_no_history_yet(
    connection: psycopg.AsyncConnection,
) -> None:
    instance_id = await register(connection)
    assert [it async for it in history(connection, instance_id)] == []
    assert await state_at(connection, instance_id) == initial


async def test_an_instance_that_is_not_there_is_named(connection: psycopg.AsyncConnection) -> None:
    with pytest.raises(InstanceNotFound):
        await state_at(connection, uuid4())
    with pytest.raises(InstanceNotFound):
        [it async for it in history(connection, uuid4())]


def test_a_persistence_point_stands_where_its_innermost_frame_does() -> None:
    change = FrameChange(step=1, line=5, visits=1)
    inner = FrameChange(step=1, line=9, visits=1)
    assert place(Persisted(reason="idle", frames={"0": change, "0.1": inner, "1": change})) == ("0.1", 9)
    assert place(InstanceSuspended(reason="requested")) == (None, None)
    assert place(InstanceResumed(by="ops")) == (None, None)
