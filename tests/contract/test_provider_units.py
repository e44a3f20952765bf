"""Units of work: what every persistence provider promises of marks in an open transaction."""

import pytest

from holdfast.processor.engine.provider import UnitOfWork
from tests.support.stores import BehindPostgres, Store


@pytest.fixture(autouse=True)
async def _notes(store: Store) -> None:
    if isinstance(store.behind, BehindPostgres):
        await store.behind.ask("create table notes (number serial, note text)")


async def write(unit: UnitOfWork, note: str, error: Exception | None = None) -> None:
    async with unit.savepoint() as transaction:
        await transaction.execute("insert into notes (note) values (%s)", (note,))
        if error is not None:
            raise error


async def test_what_came_after_a_mark_can_be_dropped(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await write(unit, "before")
        await unit.mark()
        await write(unit, "dropped")
        await unit.back_to_mark()
        await write(unit, "after")
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["before", "after"]


async def test_what_came_after_a_mark_that_was_dropped_stays(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await unit.mark()
        await write(unit, "kept")
        await unit.drop_mark()
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["kept"]


async def test_marks_nest(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await unit.mark()
        await write(unit, "outer")
        await unit.mark()
        await write(unit, "inner, dropped")
        await unit.back_to_mark()
        await unit.mark()
        await write(unit, "inner, kept")
        await unit.drop_mark()
        await unit.drop_mark()
        await unit.mark()
        await write(unit, "all dropped")
        await unit.mark()
        await write(unit, "kept within what is dropped")
        await unit.drop_mark()
        await unit.back_to_mark()
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["outer", "inner, kept"]


async def test_an_activity_that_fails_drops_its_own_writes_only(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await write(unit, "kept")
        with pytest.raises(ValueError, match="no"):
            await write(unit, "dropped", ValueError("no"))
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["kept"]


async def test_what_is_not_committed_was_never_written(store: Store) -> None:
    host = await store.host()
    async with store.provider.begin(host) as unit:
        await unit.mark()
        await write(unit, "dropped")
        await unit.rollback()
    async with store.provider.begin(host) as unit:
        await write(unit, "dropped too")
    assert await store.behind.notes() == []
