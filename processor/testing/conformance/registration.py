"""Instances before their first persistence point, and what loading them gives."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import AlreadyConsumed, Committed, Intake, Loaded, Suspension
from holdfast.processor.testing.conformance.harness import APP, AUDIT, Case, Store, fresh, message
from holdfast.processor.testing.conformance.laws import law, refused
from holdfast.schemas.errors import (
    InstanceCompleted,
    InstanceNotFound,
    KeyInUse,
    StorageError,
)


async def load(store: Store, host_id: UUID, case: Case) -> Loaded:
    (loaded,) = await store.provider.load(host_id, [case.instance_id])
    assert isinstance(loaded, Loaded), loaded
    return loaded


@law
async def a_host_id_is_used_once(store: Store) -> None:
    host = Host(host_id=uuid4(), app=APP, machine="here", process_id=1, lease_seconds=60)
    await store.provider.open_host(host)
    with refused(StorageError):
        await store.provider.open_host(host)


@law
async def registered_instances_are_locked_and_not_persisted(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    loaded = await load(store, host, case)
    assert (loaded.lock_token, loaded.is_initialized, loaded.state) == (case.token, False, None)
    assert (loaded.workflow, loaded.correlation_key) == ("order", "k")
    assert loaded.start_message_id == case.start.message_id
    assert await store.behind.versions(case.instance_id) == []


@law
async def registering_the_same_again_gives_the_same_token(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    assert list(await store.provider.register(host, [case.registration])) == [case.token]


@law
async def each_registration_is_answered_for_itself(store: Store) -> None:
    host = await store.host()
    first = await store.register(host, "taken")
    given_up = message("Placed", "dead")
    await store.provider.take_in([Intake(envelope=given_up, verdict="dead_lettered", reason="why")])
    waits = message("Placed", "waits")
    await store.buffer(waits)
    cases = [
        Case(uuid4(), host, message("Placed", "free")),
        Case(uuid4(), host, message("Placed", "taken")),
        Case(uuid4(), host, replace(first.start, key="another")),
        Case(uuid4(), host, given_up),
        Case(uuid4(), host, waits),
        Case(uuid4(), host, message("Audited", "taken"), AUDIT),
    ]
    answers = await store.provider.register(host, [case.registration for case in cases])
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        1,
        KeyInUse,
        AlreadyConsumed,
        AlreadyConsumed,
        1,
        1,
    ]
    in_use = answers[1]
    assert isinstance(in_use, KeyInUse)
    assert (in_use.message_type, in_use.correlation_key) == ("Placed", "taken")


@law
async def a_key_is_free_again_for_a_new_instance_once_its_own_is_closed(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.commit(case.begin())
    await store.commit(case.end())
    await store.register(host, "k")


@law
async def unknown_and_closed_instances_are_not_loaded(store: Store) -> None:
    host = await store.host()
    closed = await store.waiting(host, "k", "Paid")
    await store.commit(closed.end())
    alive = await store.waiting(host, "l", "Paid")
    answers = await store.provider.load(host, [uuid4(), closed.instance_id, alive.instance_id])
    assert [type(answer) for answer in answers] == [InstanceNotFound, InstanceCompleted, Loaded]


def suspension(case: Case, reason: str = "unhandled_exception") -> Suspension:
    return Suspension(
        instance_id=case.instance_id,
        host_id=case.host_id,
        lock_token=case.token,
        reason=reason,
        exception_name="ValueError",
        message=fresh(case.start),
    )


@law
async def a_suspended_non_persisted_instance_keeps_its_start_message(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.suspend([suspension(case)])
    assert await store.verdict(case.start) == "buffered"
    loaded = await load(store, await store.host(), case)
    assert (loaded.is_suspended, loaded.is_initialized) == (True, False)
    assert loaded.start_message is not None
    assert loaded.start_message.envelope == case.start
    assert await store.behind.versions(case.instance_id) == []


@law
async def attempts_of_a_burst_are_gone_with_the_suspension_of_a_non_persisted_instance(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    assert [await store.provider.attempt_burst(case.instance_id, "alone") for _ in range(2)] == [1, 2]
    await store.provider.suspend([suspension(case)])
    assert await store.provider.attempt_burst(case.instance_id, "alone") == 1


@law
async def a_resumed_non_persisted_instance_starts_over(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.suspend([suspension(case)])
    command = await store.command(case.instance_id)
    case.token = (await load(store, host, case)).lock_token
    await store.provider.resume(host, case.instance_id, command.message_id)
    assert await store.verdict(command) == "applied"
    assert not (await load(store, host, case)).is_suspended
    await store.commit(case.begin())
    assert await store.verdict(case.start) == "applied"


@law
async def a_dead_lettered_start_message_is_still_given(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.take_in([Intake(envelope=case.start, verdict="dead_lettered", reason="failed")])
    loaded = await load(store, host, case)
    assert loaded.start_message is not None
    answers = await store.provider.commit([case.begin().batch])
    assert isinstance(answers[0], Committed)
    assert await store.verdict(case.start) == "applied"
