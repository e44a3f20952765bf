"""How instances are kept: in which encoding, for how long after their end, and whether their keys are used again."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from holdfast.events.types import (
    CancelRequested,
    Event,
    InstanceCancelled,
    InstanceFaulted,
    InstanceTerminated,
)
from holdfast.processor.engine.provider import Deposit, Intake, Keeping, Loaded, Route, RouteKind
from holdfast.processor.testing.conformance.children import family, loaded, refused_load
from holdfast.processor.testing.conformance.harness import ORDER, Case, Store, fresh, message, stored
from holdfast.processor.testing.conformance.laws import law
from holdfast.processor.testing.conformance.routing import route
from holdfast.schemas.control import Command
from holdfast.schemas.errors import InstanceCompleted, InstanceNotFound, KeyInUse
from holdfast.schemas.results import SubflowResult

PACKED = Keeping(state_encoding="gzip")
DELETED = Keeping(on_completion="delete")


async def reuse_keys(store: Store) -> None:
    """Let the workflow of orders use its keys again."""
    await store.provider.save_programs([replace(ORDER, reuse_key=True)])


@law
async def a_state_comes_back_from_whichever_encoding_it_was_stored_in(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    for keeping in (PACKED, Keeping(), PACKED):
        await store.commit(case.begin(keeping=keeping) if case.state.version == 0 else case.move(keeping=keeping))
        assert (await loaded(store, host, case)).state == case.state


@law
async def the_states_of_inner_subflows_come_back_too(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    child = parent.child("k", "run")
    for keeping in (PACKED, Keeping()):
        move = child.begin(keeping=keeping) if child.state.version == 0 else child.move(keeping=keeping)
        await store.commit(parent.move(inner=[child.inner(move)], keeping=PACKED))
        move.take()
        assert list(await store.provider.read_states([child.instance_id])) == [child.state]


@law
async def of_a_discarded_instance_its_history_stays_and_no_more(store: Store) -> None:
    endings: list[list[Event]] = [
        [InstanceFaulted(error=None)],
        [InstanceTerminated(by="ops")],
        [CancelRequested(by="ops"), InstanceCancelled()],
    ]
    host = await store.host()
    for number, ending in enumerate(endings):
        case = await store.waiting(host, f"k-{number}", "Paid")
        await store.commit(case.move(*ending, keeping=DELETED))
        assert await refused_load(store, case) is InstanceNotFound
        assert await store.behind.versions(case.instance_id) == [*range(1, case.state.version + 1)]
    case = await store.register(host, "k")
    await store.commit(case.begin(case.wait("Paid"), keeping=DELETED))
    assert isinstance(await loaded(store, host, case), Loaded)
    await store.commit(case.end(keeping=DELETED))
    assert await refused_load(store, case) is InstanceNotFound
    kept = await store.waiting(host, "k", "Paid")
    await store.commit(kept.end())
    assert await refused_load(store, kept) is InstanceCompleted


@law
async def a_discarded_instance_frees_its_key_and_is_started_once_all_the_same(store: Store) -> None:
    host = await store.host()
    await reuse_keys(store)
    case = await store.waiting(host, "k", "Paid")
    late, waiting = message("Note", "k"), message("Placed", "k")
    await store.buffer(late, waiting)
    await store.commit(case.end(keeping=DELETED))
    assert await store.verdict(late) == "rejected: completed"
    assert await store.verdict(waiting) == "buffered"
    assert (await route(store, case.start)).kind is RouteKind.DUPLICATE
    assert await route(store, message("Placed", "k")) == Route(RouteKind.NONE)
    assert await route(store, message("Paid", "k")) == Route(RouteKind.NONE)
    (found,) = await store.provider.runnable(host, ["Placed"], 10)
    assert found.message is not None
    assert found.message.envelope == waiting
    again = Case(uuid4(), host, case.start)
    (answer,) = await store.provider.register(host, [again.registration])
    assert not isinstance(answer, int)
    await store.register(host, "k")


@law("locking")
async def nothing_is_discarded_by_a_batch_that_is_refused(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    taken = message("Paid", "k")
    await store.commit((await store.waiting(host, "other", "Note")).move(consumed=[fresh(taken)]))
    (answer,) = await store.provider.commit([case.end(keeping=DELETED, consumed=[fresh(taken)]).batch])
    assert isinstance(answer, Exception)
    assert (await loaded(store, host, case)).state == case.state


@law
async def an_inner_subflow_is_discarded_while_its_parent_goes_on(store: Store) -> None:
    host = await store.host()
    parent = await store.waiting(host, "k", "Paid")
    child = parent.child("k", "run")
    begin = child.begin(keeping=DELETED)
    await store.commit(parent.move(inner=[child.inner(begin)]))
    begin.take()
    assert list(await store.provider.read_states([child.instance_id])) == [child.state]
    end = child.end(keeping=DELETED)
    await store.commit(parent.move(inner=[child.inner(end)]))
    (answer,) = await store.provider.read_states([child.instance_id])
    assert isinstance(answer, InstanceNotFound)
    assert (await loaded(store, host, parent)).state == parent.state


@law
async def a_parent_hears_of_the_end_of_a_discarded_child(store: Store) -> None:
    parent, child = await family(store)
    host, there = parent.host_id, await store.host()
    await store.commit(parent.move(parent.wait(SubflowResult.message_type, str(child.instance_id), kind="child")))
    await loaded(store, there, child)
    await store.commit(child.begin(consumed=[stored(child.start)]))
    end = SubflowResult(instance_id=str(child.instance_id), workflow="audit", outcome="completed").posted()
    await store.commit(child.end(keeping=DELETED, deposits=[Deposit(envelope=end)]))
    assert await refused_load(store, child) is InstanceNotFound
    (waking,) = await store.provider.wakeups(host, [parent.instance_id])
    assert [m.envelope.message_id for m in waking.messages] == [end.message_id]


@law
async def commands_for_a_discarded_instance_are_too_late(store: Store) -> None:
    parent, child = await family(store)
    there = await store.host()
    await loaded(store, there, child)
    await store.commit(child.begin(consumed=[stored(child.start)]))
    await store.commit(child.end(keeping=DELETED))
    command = Command(command="cancel", by="parent").envelope("c")
    deposit = Deposit(envelope=command, kind="control", instance_id=child.instance_id)
    await store.commit(parent.move(deposits=[deposit]))
    assert await store.verdict(command) == "rejected: completed"
    stray = await store.command(child.instance_id)
    assert list(await store.provider.runnable(there, [], 10)) == []
    assert await store.verdict(stray) == "rejected: completed"


# Keys that are used again.


async def start(store: Store, host: UUID, key: str) -> object:
    case = Case(uuid4(), host, message("Placed", key))
    (answer,) = await store.provider.register(host, [case.registration])
    return answer


@law
async def a_closed_instance_stands_in_the_way_of_no_start_message_if_keys_are_used_again(store: Store) -> None:
    host = await store.host()
    first = await store.waiting(host, "k", "Paid")
    await store.commit(first.end())
    assert await route(store, message("Placed", "k")) == Route(RouteKind.FINISHED, first.instance_id)
    await reuse_keys(store)
    assert await route(store, message("Placed", "k")) == Route(RouteKind.NONE)
    assert await route(store, message("Paid", "k")) == Route(RouteKind.FINISHED, first.instance_id)
    assert (await route(store, first.start)).kind is RouteKind.DUPLICATE
    second = await store.waiting(host, "k", "Paid")
    assert await route(store, message("Paid", "k")) == Route(RouteKind.BOOKMARK, second.instance_id)
    await store.commit(second.end())
    assert await route(store, message("Paid", "k")) == Route(RouteKind.FINISHED, second.instance_id)
    await store.provider.save_programs([ORDER])
    assert await route(store, message("Placed", "k")) == Route(RouteKind.FINISHED, second.instance_id)


@law
async def what_a_workflow_says_of_its_keys_holds_for_its_older_programs(store: Store) -> None:
    host = await store.host()
    await store.commit((await store.waiting(host, "k", "Paid")).end())
    await store.provider.save_programs([replace(ORDER, program_hash="order-2", reuse_key=True)])
    assert await route(store, message("Placed", "k")) == Route(RouteKind.NONE)


@law
async def of_two_that_start_with_a_key_one_waits_for_the_end_of_the_other(store: Store) -> None:
    host = await store.host()
    other = await store.host()
    await reuse_keys(store)
    await store.commit((await store.waiting(host, "k", "Paid")).end())
    current = await store.waiting(host, "k", "Paid")
    assert isinstance(await start(store, other, "k"), KeyInUse)
    waiting, note = message("Placed", "k"), message("Note", "k")
    await store.buffer(waiting, note)
    assert list(await store.provider.runnable(other, ["Placed"], 10)) == []
    await store.commit(current.end())
    assert await store.verdict(note) == "rejected: completed"
    (found,) = await store.provider.runnable(other, ["Placed"], 10)
    assert found.message is not None
    assert found.message.envelope == waiting


@law
async def a_start_message_that_is_stored_as_the_one_before_it_closes_waits_for_its_start(store: Store) -> None:
    host = await store.host()
    await reuse_keys(store)
    await store.commit((await store.waiting(host, "k", "Paid")).end())
    waiting, note = message("Placed", "k"), message("Note", "k")
    found = await store.provider.take_in([Intake(envelope=it, verdict="buffered") for it in (waiting, note)])
    assert [each.kind for each in found] == [RouteKind.NONE, RouteKind.FINISHED]
    assert await store.verdict(waiting) == "buffered"
    assert await store.verdict(note) == "rejected: completed"
