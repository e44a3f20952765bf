"""Units of work: what user code writes with a commit."""

from __future__ import annotations

from uuid import UUID, uuid4

from holdfast.events.recorded import Cursor
from holdfast.processor.engine.provider import AlreadyConsumed, UnitOfWork
from holdfast.processor.testing.conformance.harness import (
    Case,
    Store,
    fresh,
    message,
)
from holdfast.processor.testing.conformance.laws import law, refused
from holdfast.schemas.errors import InstanceLockLost, KeyInUse


@law
async def a_unit_of_work_commits_a_batch(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        move = case.begin(case.wait("Paid"))
        committed = await unit.commit(move.batch)
        move.take()
    assert str(Cursor.parse(committed.cursor)) == committed.cursor
    assert await store.behind.versions(case.instance_id) == [1, 2, 3]
    await store.commit(case.move())


@law
async def a_unit_of_work_raises_what_a_commit_answers(store: Store) -> None:
    host = await store.host()
    taken = await store.waiting(host, "k", "Paid")
    case = await store.register(host, "l")
    await store.commit(case.begin())
    note = message("Note", "l")
    await store.commit(taken.move(consumed=[fresh(note)]))
    for move, error in (
        (case.move(case.wait("Paid", "k")), KeyInUse),
        (case.move(consumed=[fresh(note)]), AlreadyConsumed),
        (Case(uuid4(), host, message("Placed", "x")).begin(), InstanceLockLost),
    ):
        async with store.provider.begin(host) as unit:
            with refused(error):
                await unit.commit(move.batch)
    assert await store.behind.versions(case.instance_id) == [1, 2]
    await store.commit(case.move())


@law
async def a_unit_of_work_that_is_left_has_done_nothing(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await unit.rollback()
    async with store.provider.begin(host):
        pass
    await store.commit(case.begin())


async def noted(store: Store, key: str = "k") -> tuple[UUID, Case]:
    """Return a host and an instance of its own, with a table to write to."""
    await store.behind.make_notes()
    host = await store.host()
    return host, await store.register(host, key)


async def write(unit: UnitOfWork, note: str, error: Exception | None = None) -> None:
    async with unit.savepoint() as transaction:
        await transaction.execute("insert into notes (note) values (%s)", (note,))
        if error is not None:
            raise error


@law
async def what_came_after_a_mark_can_be_dropped(store: Store) -> None:
    host, case = await noted(store)
    async with store.provider.begin(host) as unit:
        await write(unit, "before")
        await unit.mark()
        await write(unit, "dropped")
        await unit.back_to_mark()
        await write(unit, "after")
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["before", "after"]


@law
async def what_came_after_a_mark_that_was_dropped_stays(store: Store) -> None:
    host, case = await noted(store)
    async with store.provider.begin(host) as unit:
        await unit.mark()
        await write(unit, "kept")
        await unit.drop_mark()
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["kept"]


@law
async def marks_nest(store: Store) -> None:
    host, case = await noted(store)
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


@law
async def an_activity_that_fails_drops_its_own_writes_only(store: Store) -> None:
    host, case = await noted(store)
    async with store.provider.begin(host) as unit:
        await write(unit, "kept")
        with refused(ValueError):
            await write(unit, "dropped", ValueError("no"))
        await unit.commit(case.begin().batch)
    assert await store.behind.notes() == ["kept"]


@law
async def what_is_not_committed_was_never_written(store: Store) -> None:
    host, _ = await noted(store)
    async with store.provider.begin(host) as unit:
        await unit.mark()
        await write(unit, "dropped")
        await unit.rollback()
    async with store.provider.begin(host) as unit:
        await write(unit, "dropped too")
    assert await store.behind.notes() == []
