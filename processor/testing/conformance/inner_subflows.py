"""Subflows that are written with their parent."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from holdfast.processor.engine.provider import Committed, RouteKind
from holdfast.processor.testing.conformance.children import loaded, refused_load, runnable
from holdfast.processor.testing.conformance.harness import AUDIT, Case, Store, message, stored
from holdfast.processor.testing.conformance.laws import law
from holdfast.schemas.errors import (
    InstanceCompleted,
    InstanceLockLost,
    InstanceNotFound,
    KeyInUse,
    WrongExpectedVersion,
)


@law("locking")
async def an_inner_subflow_is_written_with_its_parent(store: Store) -> None:
    host = await store.host()
    parent = await store.waiting(host, "k", "Paid")
    child = parent.child("k", "run")
    begin = child.begin()
    await store.commit(parent.move(inner=[child.inner(begin)]))
    begin.take()
    assert await store.behind.versions(child.instance_id) == [1, 2]
    end = child.end()
    await store.commit(parent.move(inner=[child.inner(end)]))
    end.take()
    assert await store.behind.versions(child.instance_id) == [1, 2, 3, 4]
    assert await refused_load(store, child) is InstanceCompleted
    (answer,) = await store.provider.commit([parent.move(inner=[child.inner(child.move())]).batch])
    assert isinstance(answer, InstanceLockLost)
    await store.commit(parent.move())


@law
async def an_inner_subflow_lives_and_ends_in_one_batch_even_the_first(store: Store) -> None:
    parent = await store.register(await store.host(), "k")
    child = parent.child("k", "run")
    begin = child.begin()
    begin.take()
    end = child.end()
    whole = replace(child.inner(begin), events=[*begin.batch.events, *end.batch.events], state=end.batch.state)
    await store.commit(parent.begin(inner=[whole]))
    assert await store.behind.versions(child.instance_id) == [1, 2, 3, 4]
    assert await refused_load(store, child) is InstanceCompleted


@law
async def an_inner_subflow_at_another_version_spoils_its_parent_s_batch_alone(store: Store) -> None:
    host = await store.host()
    parent, other = await store.waiting(host, "k", "Paid"), await store.waiting(host, "l", "Paid")
    child = parent.child("k", "run")
    begin = child.begin()
    await store.commit(parent.move(inner=[child.inner(begin)]))
    again = child.inner(child.begin())
    unknown = parent.child("m", "run")
    late = replace(unknown.inner(unknown.begin()), expected_version=2)
    for wrong in (again, late):
        answers = await store.provider.commit([parent.move(inner=[wrong]).batch, (move := other.move()).batch])
        assert [type(answer) for answer in answers] == [WrongExpectedVersion, Committed]
        move.take()
    assert await store.behind.versions(child.instance_id) == [1, 2]
    assert await store.behind.versions(unknown.instance_id) == []
    await store.commit(parent.move())


@law("locking")
async def an_inner_subflow_is_neither_found_nor_loaded_nor_addressed_by_itself(store: Store) -> None:
    host, there = await store.host(), await store.host()
    parent = await store.waiting(host, "k", "Paid")
    child = parent.child("inner", "run")
    await store.commit(parent.move(inner=[child.inner(child.begin())]))
    await store.command(child.instance_id)
    await store.behind.lapse(host)
    assert await runnable(store, there) == []
    (answer,) = await store.provider.load(there, [child.instance_id])
    assert isinstance(answer, InstanceNotFound)
    await store.behind.lapse(there)
    assert await runnable(store, await store.host()) == []
    (route,) = await store.provider.route([message("Note", "inner")])
    assert route.kind is RouteKind.NONE


@law
async def the_key_of_an_inner_subflow_is_free_for_others(store: Store) -> None:
    host = await store.host()
    parent = await store.waiting(host, "k", "Paid")
    one, two, three = parent.child("same", "run"), parent.child("same", "run"), parent.child("same")
    await store.commit(parent.move(inner=[one.inner(one.begin()), two.inner(two.begin())], children=[three.newborn]))
    (answer,) = await store.provider.register(host, [(await _another(host)).registration])
    assert isinstance(answer, KeyInUse)
    await loaded(store, host, three)
    await store.commit(three.begin(consumed=[stored(three.start)]))
    await store.commit(three.end())
    (answer,) = await store.provider.register(host, [(await _another(host)).registration])
    assert answer == 1


async def _another(host: UUID) -> Case:
    return Case(UUID(int=7), host, message("Audited", "same"), AUDIT)
