"""One instance through time."""

import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.events.postgres import append
from holdfast.events.types import FrameChange, InstanceResumed, InstanceSuspended, Persisted, Where
from holdfast.projections.history import Entry, history, place, state_at
from holdfast.projections.instance import fold, initial
from holdfast.schemas.errors import InstanceNotFound, InvalidQuery, VersionNotFound
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
    here = Where("0", 2, 11)
    assert [(it.recorded.version, type(it.recorded.event).__name__, it.where, it.program) for it in entries] == [
        (1, "InstanceStarted", None, None),
        (2, "BookmarkOpened", here, "p-1"),
        (3, "BookmarkOpened", here, "p-1"),
        (4, "Persisted", here, "p-1"),
        (5, "MessageReceived", here, "p-1"),
        (6, "InstanceCompleted", None, None),
        (7, "Persisted", None, None),
    ]
    assert len({it.recorded.cursor.xid for it in entries}) == 2


async def test_history_tells_what_each_event_changed(connection: psycopg.AsyncConnection, order: UUID) -> None:
    def told(entry: Entry) -> list[tuple[str, str, str, object, object]]:
        return [(it.section, it.name, it.kind, it.before, it.after) for it in entry.changes]

    started, late, paid, idle, received, completed, _ = [told(it) async for it in history(connection, order)]
    assert ("instance", "workflow", "changed", "", "order") in started
    assert [it[:3] for it in (*late, *paid)] == [("bookmark", "0:late", "added"), ("bookmark", "0:paid", "added")]
    assert ("variable", "amount", "added", None, 5) in idle
    assert ("status", "execution_status", "changed", "executing", "idle") in idle
    assert [it[:3] for it in received] == [
        ("status", "execution_status", "changed"),
        ("bookmark", "0:late", "removed"),
        ("bookmark", "0:paid", "removed"),
    ]
    assert ("status", "outcome", "changed", None, "completed") in completed


async def test_a_part_of_the_history_has_both_its_ends(connection: psycopg.AsyncConnection, order: UUID) -> None:
    whole = [it async for it in history(connection, order)]
    assert [it.recorded.version async for it in history(connection, order, 3, 5)] == [3, 4, 5]
    # What an event changed does not depend on where the part begins.
    assert [it.changes async for it in history(connection, order, 3)] == [it.changes for it in whole[2:]]


async def test_a_part_that_ends_before_it_begins_is_refused(connection: psycopg.AsyncConnection, order: UUID) -> None:
    now = datetime.now(UTC)
    for first, last in ((6, 4), (now, now - timedelta(1))):
        with pytest.raises(InvalidQuery, match="the second comes before the first"):
            await anext(history(connection, order, first, last))
    assert [it.recorded.version async for it in history(connection, order, 4, 4)] == [4]


async def test_a_part_of_the_history_may_be_given_by_moments(connection: psycopg.AsyncConnection, order: UUID) -> None:
    whole = [it.recorded async for it in history(connection, order)]
    placed, paid = whole[0].recorded_at, whole[4].recorded_at

    async def part(*ends: datetime) -> list[int]:
        return [it.recorded.version async for it in history(connection, order, *ends)]

    instant = timedelta(microseconds=1)
    assert await part(placed, paid) == [1, 2, 3, 4, 5, 6, 7]
    assert await part(placed, paid - instant) == [1, 2, 3, 4]
    assert await part(placed + instant) == [5, 6, 7]
    # The same moment in another zone is the same moment.
    assert await part(paid.astimezone(timezone(timedelta(hours=9)))) == [5, 6, 7]


async def test_the_state_at_each_version_is_the_fold_up_to_it(connection: psycopg.AsyncConnection, order: UUID) -> None:
    events = [*WAITING, *PAID]
    for version in range(1, 8):
        assert await state_at(connection, order, version) == fold(events[:version])
    assert await state_at(connection, order) == fold(events)


async def test_the_state_at_a_moment_is_that_of_the_last_event_by_then(
    connection: psycopg.AsyncConnection, order: UUID
) -> None:
    recorded = [it.recorded async for it in history(connection, order)]
    placed, paid = recorded[3].recorded_at, recorded[4].recorded_at
    assert placed < paid
    instant = timedelta(microseconds=1)
    assert (await state_at(connection, order, paid.astimezone(timezone(timedelta(hours=-5))))).version == 7
    assert (await state_at(connection, order, placed)).version == 4
    assert (await state_at(connection, order, paid - instant)).version == 4
    assert (await state_at(connection, order, datetime(9999, 1, 1, tzinfo=UTC))).version == 7


@pytest.mark.parametrize("version", [-1, 0, 8])
async def test_a_version_that_never_was_is_refused(
    connection: psycopg.AsyncConnection, order: UUID, version: int
) -> None:
    with pytest.raises(VersionNotFound, match=rf"has versions 1 to 7, not {version}$"):
        await state_at(connection, order, version)


async def test_a_moment_before_the_first_event_is_refused(connection: psycopg.AsyncConnection, order: UUID) -> None:
    first = await anext(history(connection, order))
    with pytest.raises(VersionNotFound, match=r"had no event by 20.+\+00:00$"):
        await state_at(connection, order, (first.recorded.recorded_at - timedelta(microseconds=1)).astimezone(UTC))


async def test_a_moment_without_an_offset_is_refused(connection: psycopg.AsyncConnection, order: UUID) -> None:
    unclear = datetime(2026, 1, 31, 12)  # noqa: DTZ001  This is the mistake.
    with pytest.raises(ValueError, match=r"^2026-01-31T12:00:00 is no certain moment: give its offset from UTC$"):
        await state_at(connection, order, unclear)
    with pytest.raises(ValueError, match="offset from UTC"):
        [it async for it in history(connection, order, unclear)]


async def test_a_long_history_is_streamed(connection: psycopg.AsyncConnection) -> None:
    host = await add_host(connection)
    instance_id = await register(connection, host)
    change = FrameChange(step=2, line=11, visits=1, set={"round": 0, "text": "x" * 1000})
    batches = [[Persisted(reason="checkpoint", frames={"0": replace(change, set={"round": n})})] for n in range(9_995)]
    await persist(connection, host, instance_id, [*WAITING, Persisted(reason="checkpoint", frames={"0": change})])
    await append(connection, instance_id, 5, [event for batch in batches for event in batch])
    await connection.commit()

    async def peak(*, keep: bool) -> int:
        kept: list[Entry] = []
        count = 0
        tracemalloc.start()
        try:
            async for entry in history(connection, instance_id):
                count += 1
                if not keep:
                    kept.clear()
                kept.append(entry)
            assert count == 10_000
            assert [(it.name, it.before, it.after) for it in kept[-1].changes] == [("round", 9_993, 9_994)]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert await peak(keep=False) * 3 < await peak(keep=True)


async def test_an_instance_without_a_persistence_point_has_no_versions(connection: psycopg.AsyncConnection) -> None:
    with pytest.raises(VersionNotFound, match=r"is not persisted, so it has no versions yet$"):
        await state_at(connection, await register(connection), 1)


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
    assert place(Persisted(reason="idle", frames={"0": change, "0.1": inner, "1": change})) == Where("0.1", 1, 9)
    assert place(InstanceSuspended(reason="requested")) is None
    assert place(InstanceResumed(by="ops")) is None
