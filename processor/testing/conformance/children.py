"""Instances that a batch brings into being."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from holdfast.processor.engine.provider import Committed, Deposit, Intake, Loaded, Suspension
from holdfast.processor.testing.conformance.harness import AUDIT, ORDER, Case, Store, message, stored
from holdfast.processor.testing.conformance.laws import law
from holdfast.schemas.errors import (
    InstanceLockLost,
    InstanceNotFound,
    KeyInUse,
)


async def runnable(store: Store, host: UUID, *start_types: str) -> list[UUID | None]:
    """Return the instances that a look for work finds; None stands for a start message."""
    return [found.instance_id for found in await store.provider.runnable(host, start_types, 10)]


async def loaded(store: Store, host: UUID, case: Case) -> Loaded:
    """Load an instance, which must succeed."""
    (answer,) = await store.provider.load(host, [case.instance_id])
    assert isinstance(answer, Loaded), answer
    case.host_id, case.token = host, answer.lock_token
    return answer


async def refused_load(store: Store, case: Case) -> type:
    """Load an instance, which must fail, and return how."""
    (answer,) = await store.provider.load(await store.host(), [case.instance_id])
    return type(answer)


async def family(store: Store, key: str = "k") -> tuple[Case, Case]:
    """Bring a parent to where it has just born a child of another workflow with a key."""
    parent = await store.waiting(await store.host(), f"{key}-parent", "Paid")
    child = parent.child(key)
    await store.commit(parent.move(children=[child.newborn]))
    return parent, child


@law
async def a_child_is_there_with_its_parent_s_commit_for_any_host_to_take_up(store: Store) -> None:
    parent, child = await family(store)
    there = await store.host()
    assert await runnable(store, there) == [child.instance_id]

    found = await loaded(store, there, child)
    assert (found.parent_id, found.subflow) == (parent.instance_id, "start")
    assert (found.is_initialized, found.is_suspended, found.is_taken_over, found.state) == (False, False, False, None)
    assert found.start_message is not None
    assert found.start_message.envelope == child.start
    assert await store.behind.versions(child.instance_id) == []

    await store.commit(child.begin(child.wait("Note"), consumed=[stored(child.start)]))
    assert await store.verdict(child.start) == "applied"
    assert await runnable(store, there) == []
    found = await loaded(store, there, child)
    assert (found.parent_id, found.subflow, found.state) == (parent.instance_id, "start", child.state)


@law("locking")
async def nothing_of_a_batch_that_is_refused_is_born(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    child = parent.child("c")
    refusal = parent.move(children=[child.newborn], deposits=[Deposit(envelope=message("Note", "x"))])
    parent.token += 1
    (answer,) = await store.provider.commit([replace(refusal.batch, lock_token=parent.token)])
    assert isinstance(answer, InstanceLockLost)
    assert await refused_load(store, child) is InstanceNotFound
    assert await store.verdict(child.start) is None


@law
async def a_child_whose_key_lives_spoils_its_parent_s_batch_alone(store: Store) -> None:
    host = await store.host()
    await store.commit((await store.register(host, "taken", AUDIT)).begin())
    parent, other = await store.waiting(host, "a", "Paid"), await store.waiting(host, "b", "Paid")
    child, free = parent.child("taken"), other.child("free")
    answers = await store.provider.commit(
        [
            parent.move(children=[parent.child("new").newborn, child.newborn]).batch,
            other.move(children=[free.newborn]).batch,
        ]
    )
    assert [type(answer) for answer in answers] == [KeyInUse, Committed]
    in_use = answers[0]
    assert isinstance(in_use, KeyInUse)
    assert (in_use.instance_id, in_use.message_type, in_use.correlation_key) == (
        parent.instance_id,
        "Audited",
        "taken",
    )
    assert await refused_load(store, child) is InstanceNotFound
    assert await store.verdict(child.start) is None
    assert await runnable(store, host) == [free.instance_id]
    await store.commit(parent.move())


@law
async def of_two_in_a_group_that_want_one_child_one_gets_it(store: Store) -> None:
    host = await store.host()
    cases = [await store.waiting(host, key, "Paid") for key in ("a", "b", "c")]
    moves = [case.move(children=[case.child("same").newborn]) for case in cases]
    answers = await store.provider.commit([move.batch for move in moves])
    assert sorted(type(answer).__name__ for answer in answers) == ["Committed", "KeyInUse", "KeyInUse"]


@law
async def two_children_of_one_key_spoil_their_batch(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    children = [parent.child("same").newborn, parent.child("same").newborn]
    (answer,) = await store.provider.commit([parent.move(children=children).batch])
    assert isinstance(answer, KeyInUse)
    assert await store.behind.versions(parent.instance_id) == [1, 2, 3]


@law
async def a_key_is_free_for_a_child_once_its_instance_is_closed(store: Store) -> None:
    parent, child = await family(store)
    await loaded(store, parent.host_id, child)
    await store.commit(child.begin(consumed=[stored(child.start)]))
    await store.commit(child.end())
    again = parent.child("k")
    await store.commit(parent.move(children=[again.newborn]))
    assert await runnable(store, parent.host_id) == [again.instance_id]


@law
async def a_child_is_found_at_once_however_much_lies_in_the_inbox(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    await store.buffer(*(message("Unheard", f"x-{number}") for number in range(1100)))
    child = parent.child("c")
    await store.commit(parent.move(children=[child.newborn]))
    assert await runnable(store, await store.host()) == [child.instance_id]


@law
async def the_start_message_of_a_child_is_its_own(store: Store) -> None:
    host = await store.host()
    thief = await store.waiting(host, "thief", "Paid")
    await store.commit(thief.move(thief.wait("Audited", "k")))
    _, child = await family(store)
    (woken,) = await store.provider.wakeups(host, [thief.instance_id])
    assert woken.messages == []
    assert await runnable(store, host, "Audited") == [child.instance_id]


@law("locking")
async def a_child_whose_host_died_before_it_was_persisted_is_found_again(store: Store) -> None:
    parent, child = await family(store)
    there = await store.host()
    await loaded(store, there, child)
    assert await runnable(store, parent.host_id) == []
    await store.behind.lapse(there)
    assert await runnable(store, parent.host_id) == [child.instance_id]
    assert (await loaded(store, parent.host_id, child)).is_taken_over
    await store.provider.release(parent.host_id, [child.instance_id])
    assert await runnable(store, parent.host_id) == [child.instance_id]


@law
async def a_child_that_is_suspended_or_whose_start_was_given_up_is_left_alone(store: Store) -> None:
    parent, suspended = await family(store, "suspended")
    given_up = parent.child("given-up")
    await store.commit(parent.move(children=[given_up.newborn]))
    await loaded(store, parent.host_id, suspended)
    await store.provider.suspend(
        [
            Suspension(
                instance_id=suspended.instance_id,
                host_id=parent.host_id,
                lock_token=suspended.token,
                reason="unhandled_exception",
                exception_name="ValueError",
                message=stored(suspended.start),
            )
        ]
    )
    await store.provider.take_in([Intake(envelope=given_up.start, verdict="dead_lettered", reason="failed")])
    assert await runnable(store, parent.host_id) == []
    found = await loaded(store, parent.host_id, suspended)
    assert found.start_message is not None
    assert found.start_message.envelope == suspended.start


@law
async def who_goes_on_in_the_place_of_another_keeps_its_mailbox(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note, start_again = message("Note", "k"), message("Placed", "k")
    await store.buffer(note, start_again)
    command = await store.command(case.instance_id)
    successor = case.child("k", "continued", ORDER)
    await store.commit(case.end(children=[successor.newborn]))
    assert [await store.verdict(m) for m in (note, start_again, command)] == [
        "buffered",
        "buffered",
        "buffered",
    ]
    assert (await loaded(store, host, successor)).subflow == "continued"
    await store.commit(successor.begin(successor.wait("Note"), consumed=[stored(successor.start)]))
    (woken,) = await store.provider.wakeups(host, [successor.instance_id])
    assert [m.envelope.message_id for m in woken.messages] == [note.message_id, command.message_id]
    await store.commit(successor.end(consumed=[stored(command)]))
    assert await store.verdict(start_again) == "rejected: completed"


@law
async def who_goes_on_is_commanded_and_awaited_as_the_one_that_was_started(store: Store) -> None:
    parent, child = await family(store)
    found = await loaded(store, parent.host_id, child)
    assert found.awaited_as == child.instance_id
    second = child.child("k", "continued", AUDIT)
    await store.commit(child.begin(consumed=[stored(child.start)]))
    await store.commit(child.end(children=[second.newborn]))
    await loaded(store, parent.host_id, second)
    await store.commit(second.begin(consumed=[stored(second.start)]))
    third = second.child("k", "continued", AUDIT)
    await store.commit(second.end(children=[third.newborn]))
    assert (await loaded(store, parent.host_id, third)).awaited_as == child.instance_id
    cancel = message("cancel", "c")
    deposit = Deposit(envelope=cancel, kind="control", instance_id=child.instance_id)
    await store.commit(parent.move(deposits=[deposit]))
    (woken,) = await store.provider.wakeups(parent.host_id, [third.instance_id])
    assert [m.envelope.message_id for m in woken.messages] == [cancel.message_id]


@law
async def states_are_read_of_those_that_are_persisted_whoever_holds_them(store: Store) -> None:
    parent, child = await family(store)
    inner = parent.child("inner", "run")
    begin = inner.begin()
    await store.commit(parent.move(inner=[inner.inner(begin)]))
    answers = await store.provider.read_states([inner.instance_id, child.instance_id, parent.instance_id])
    assert [answers[0], type(answers[1]), answers[2]] == [begin.batch.state, InstanceNotFound, parent.state]
