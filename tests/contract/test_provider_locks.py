"""Hosts, leases, registration and locks: what every persistence provider promises."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from holdfast.processor.engine.provider import AlreadyConsumed, Committed, Host, Intake, Loaded, Suspension
from holdfast.schemas.errors import (
    InstanceCompleted,
    InstanceLocked,
    InstanceLockLost,
    InstanceNotFound,
    KeyInUse,
    StorageError,
)
from tests.support.stores import APP, AUDIT, ORDER, Case, Store, fresh, message


async def load(store: Store, host_id: UUID, case: Case) -> Loaded:
    (loaded,) = await store.provider.load(host_id, [case.instance_id])
    assert isinstance(loaded, Loaded), loaded
    return loaded


async def test_a_host_id_is_used_once(store: Store) -> None:
    host = Host(host_id=uuid4(), app=APP, machine="here", process_id=1, lease_seconds=60)
    await store.provider.open_host(host)
    with pytest.raises(StorageError):
        await store.provider.open_host(host)


async def test_a_living_lease_is_renewed_and_a_lapsed_one_stays_lapsed(store: Store) -> None:
    host = await store.host()
    assert await store.provider.renew_host(host)
    await store.behind.lapse(host)
    assert not await store.provider.renew_host(host)
    assert not await store.provider.renew_host(host)


async def test_types_are_known_as_long_as_a_host_that_knows_them_lives(store: Store) -> None:
    host = await store.host()
    assert await store.provider.known_types() == {"Placed", "Paid", "Note"}
    await store.behind.lapse(host)
    assert await store.provider.known_types() == frozenset()


async def test_a_program_stays_as_it_was_first_saved(store: Store) -> None:
    await store.provider.save_programs([ORDER])
    await store.provider.save_programs([replace(ORDER, program={"steps": [1]}, receives=()), AUDIT])
    assert await store.provider.load_program(ORDER.program_hash) == ORDER
    assert await store.provider.load_program(AUDIT.program_hash) == AUDIT
    assert await store.provider.load_program("unheard-of") is None


async def test_registered_instances_are_locked_and_not_persisted(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    loaded = await load(store, host, case)
    assert (loaded.lock_token, loaded.is_initialized, loaded.state) == (case.token, False, None)
    assert (loaded.workflow, loaded.correlation_key) == ("order", "k")
    assert loaded.start_message_id == case.start.message_id
    assert await store.behind.versions(case.instance_id) == []


async def test_registering_the_same_again_gives_the_same_token(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    assert list(await store.provider.register(host, [case.registration])) == [case.token]


async def test_each_registration_is_answered_for_itself(store: Store) -> None:
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


async def test_a_key_is_free_again_for_a_new_instance_once_its_own_is_closed(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.commit(case.begin())
    await store.commit(case.end())
    await store.register(host, "k")


async def test_a_held_instance_is_locked_for_others(store: Store) -> None:
    here, there = await store.host(machine="here"), await store.host(machine="there")
    case = await store.waiting(here, "k", "Paid")
    (answer,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(answer, InstanceLocked)
    assert (answer.owner, answer.machine) == (here, "here")
    assert answer.expiration > await store.provider.now()


async def test_the_holder_loads_again_under_the_same_token(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    loaded = await load(store, host, case)
    assert loaded.lock_token == case.token
    assert loaded.state == case.state


async def test_a_released_instance_goes_to_whoever_loads_it_first(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.release(here, [case.instance_id])
    assert (await load(store, there, case)).lock_token == case.token + 1
    (answer,) = await store.provider.load(here, [case.instance_id])
    assert isinstance(answer, InstanceLocked)


async def test_only_the_holder_releases(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.release(there, [case.instance_id])
    (answer,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(answer, InstanceLocked)


async def test_a_closing_host_frees_its_locks_at_once(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.close_host(here)
    assert (await load(store, there, case)).lock_token == case.token + 1


async def test_unknown_and_closed_instances_are_not_loaded(store: Store) -> None:
    host = await store.host()
    closed = await store.waiting(host, "k", "Paid")
    await store.commit(closed.end())
    alive = await store.waiting(host, "l", "Paid")
    answers = await store.provider.load(host, [uuid4(), closed.instance_id, alive.instance_id])
    assert [type(answer) for answer in answers] == [InstanceNotFound, InstanceCompleted, Loaded]


async def test_what_a_lapsed_host_held_is_taken_over(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    case = await store.waiting(late, "k", "Paid")
    await store.behind.lapse(late)
    loaded = await load(store, heir, case)
    assert loaded.lock_token == case.token + 1
    assert loaded.state == case.state


async def test_a_lapsed_host_can_do_nothing_any_more(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    case = await store.waiting(late, "k", "Paid")
    fresh_one = Case(uuid4(), late, message("Placed", "l"))
    unpersisted = await store.register(late, "n")
    await store.behind.lapse(late)
    paid = message("Paid", "k")

    assert not await store.provider.renew_host(late)
    (committed,) = await store.provider.commit([case.move(consumed=[fresh(paid)]).batch])
    (registered,) = await store.provider.register(late, [fresh_one.registration])
    (loaded,) = await store.provider.load(late, [case.instance_id])
    assert [type(a) for a in (committed, registered, loaded)] == [InstanceLockLost] * 3
    with pytest.raises(InstanceLockLost):
        await store.provider.suspend([suspension(unpersisted)])
    assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
    assert await store.verdict(paid) is None

    taken = await load(store, heir, case)
    await store.provider.release(late, [case.instance_id])
    case.host_id, case.token = heir, taken.lock_token
    await store.commit(case.move())


# Protocol: C2, I2.
async def test_a_former_owner_with_an_old_token_cannot_commit(store: Store) -> None:
    host, other = await store.host(), await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.provider.release(host, [case.instance_id])
    await load(store, other, case)
    await store.provider.release(other, [case.instance_id])
    again = await load(store, host, case)
    (answer,) = await store.provider.commit([case.move().batch])
    assert isinstance(answer, InstanceLockLost)
    case.token = again.lock_token
    await store.commit(case.move())


def suspension(case: Case, reason: str = "unhandled_exception") -> Suspension:
    return Suspension(
        instance_id=case.instance_id,
        host_id=case.host_id,
        lock_token=case.token,
        reason=reason,
        exception_name="ValueError",
        message=fresh(case.start),
    )


async def test_a_suspended_non_persisted_instance_keeps_its_start_message(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.suspend([suspension(case)])
    assert await store.verdict(case.start) == "buffered"
    loaded = await load(store, await store.host(), case)
    assert (loaded.is_suspended, loaded.is_initialized) == (True, False)
    assert loaded.start_message is not None
    assert loaded.start_message.envelope == case.start
    assert await store.behind.versions(case.instance_id) == []


async def test_a_resumed_non_persisted_instance_starts_over(store: Store) -> None:
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


async def test_only_the_holder_resumes(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.suspend([suspension(case)])
    command = await store.command(case.instance_id)
    with pytest.raises(InstanceLockLost):
        await store.provider.resume(host, case.instance_id, command.message_id)
    assert await store.verdict(command) == "buffered"


async def test_a_dead_lettered_start_message_is_still_given(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.take_in([Intake(envelope=case.start, verdict="dead_lettered", reason="failed")])
    loaded = await load(store, host, case)
    assert loaded.start_message is not None
    answers = await store.provider.commit([case.begin().batch])
    assert isinstance(answers[0], Committed)
    assert await store.verdict(case.start) == "applied"


async def test_a_takeover_is_told_from_a_lock_that_was_given_back(store: Store) -> None:
    fallen, ended, host = await store.host(), await store.host(), await store.host()
    taken_over = await store.register(fallen, "taken over")
    freed = await store.waiting(ended, "freed", "Paid")
    interrupted = await store.register(ended, "interrupted")
    await store.commit(interrupted.begin(reason="checkpoint"))
    await store.behind.lapse(fallen)
    await store.provider.close_host(ended)
    assert (await load(store, host, taken_over)).is_taken_over
    assert not (await load(store, host, taken_over)).is_taken_over
    assert not (await load(store, host, freed)).is_taken_over
    assert not (await load(store, host, interrupted)).is_taken_over
