"""Leases and locks: the laws of a provider that several hosts use."""

from __future__ import annotations

from uuid import uuid4

from holdfast.processor.testing.conformance.harness import Case, Store, fresh, message
from holdfast.processor.testing.conformance.laws import law, refused
from holdfast.processor.testing.conformance.registration import load, suspension
from holdfast.schemas.errors import (
    InstanceLocked,
    InstanceLockLost,
)


@law("locking")
async def a_living_lease_is_renewed_and_a_lapsed_one_stays_lapsed(store: Store) -> None:
    host = await store.host()
    assert await store.provider.renew_host(host)
    await store.behind.lapse(host)
    assert not await store.provider.renew_host(host)
    assert not await store.provider.renew_host(host)


@law("locking")
async def types_are_known_as_long_as_a_host_that_knows_them_lives(store: Store) -> None:
    host = await store.host()
    assert await store.provider.known_types() == {"Placed", "Paid", "Note"}
    await store.behind.lapse(host)
    assert await store.provider.known_types() == frozenset()


@law("locking")
async def a_held_instance_is_locked_for_others(store: Store) -> None:
    here, there = await store.host(machine="here"), await store.host(machine="there")
    case = await store.waiting(here, "k", "Paid")
    (answer,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(answer, InstanceLocked)
    assert (answer.owner, answer.machine) == (here, "here")
    assert answer.expiration > await store.provider.now()


@law("locking")
async def the_holder_loads_again_under_the_same_token(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    loaded = await load(store, host, case)
    assert loaded.lock_token == case.token
    assert loaded.state == case.state


@law("locking")
async def a_released_instance_goes_to_whoever_loads_it_first(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.release(here, [case.instance_id])
    assert (await load(store, there, case)).lock_token == case.token + 1
    (answer,) = await store.provider.load(here, [case.instance_id])
    assert isinstance(answer, InstanceLocked)


@law("locking")
async def only_the_holder_releases(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.release(there, [case.instance_id])
    (answer,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(answer, InstanceLocked)


@law("locking")
async def a_closing_host_frees_its_locks_at_once(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.provider.close_host(here)
    assert (await load(store, there, case)).lock_token == case.token + 1


@law("locking")
async def what_a_lapsed_host_held_is_taken_over(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    case = await store.waiting(late, "k", "Paid")
    await store.behind.lapse(late)
    loaded = await load(store, heir, case)
    assert loaded.lock_token == case.token + 1
    assert loaded.state == case.state


@law("locking")
async def a_lapsed_host_can_do_nothing_any_more(store: Store) -> None:
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
    with refused(InstanceLockLost):
        await store.provider.suspend([suspension(unpersisted)])
    assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
    assert await store.verdict(paid) is None

    taken = await load(store, heir, case)
    await store.provider.release(late, [case.instance_id])
    case.host_id, case.token = heir, taken.lock_token
    await store.commit(case.move())


# Protocol: C2, I2.
@law("locking")
async def a_former_owner_with_an_old_token_cannot_commit(store: Store) -> None:
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


@law("locking")
async def only_the_holder_resumes(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.provider.suspend([suspension(case)])
    command = await store.command(case.instance_id)
    with refused(InstanceLockLost):
        await store.provider.resume(host, case.instance_id, command.message_id)
    assert await store.verdict(command) == "buffered"


@law("locking")
async def a_takeover_is_told_from_a_lock_that_was_given_back(store: Store) -> None:
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
