"""Persistence points: what a commit writes, and what it answers."""

from __future__ import annotations

from uuid import uuid4

from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceResumed, InstanceSuspended, MessageReceived
from holdfast.processor.engine.provider import AlreadyConsumed, Committed, Intake, Loaded, RouteKind
from holdfast.processor.testing.conformance.harness import AUDIT, HERE, Case, Move, Store, fresh, message, stored
from holdfast.processor.testing.conformance.laws import law, refused
from holdfast.projections.instance import initial
from holdfast.schemas.errors import InstanceLocked, InstanceLockLost, KeyInUse, WrongExpectedVersion


def received(case: Case, bookmark: str) -> MessageReceived:
    return MessageReceived(
        where=HERE,
        bookmark=bookmark,
        closes=(bookmark,),
        message_id="m",
        message_type="Paid",
        correlation_key=case.key,
        body={},
    )


async def answers(store: Store, *moves: Move) -> list[type]:
    """Commit a group and return the type of each answer."""
    found = await store.provider.commit([move.batch for move in moves])
    for move, answer in zip(moves, found, strict=True):
        if isinstance(answer, Committed):
            move.take()
    return [type(answer) for answer in found]


# Protocol: C1.
@law
async def all_of_a_batch_is_there_after_the_commit(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    sent = case.send()
    await store.commit(case.begin(case.wait("Paid"), outgoing=[sent]))

    (loaded,) = await store.provider.load(host, [case.instance_id])
    assert isinstance(loaded, Loaded)
    assert (loaded.is_initialized, loaded.state) == (True, case.state)
    assert await store.behind.versions(case.instance_id) == [1, 2, 3]
    assert (await store.behind.inbox())[case.start.message_id].instance_id == case.instance_id
    assert await store.verdict(case.start) == "applied"
    assert list(await store.provider.outbox(host, 10)) == [sent]
    (route,) = await store.provider.route([message("Paid", "k")])
    assert (route.kind, route.instance_id) == (RouteKind.BOOKMARK, case.instance_id)


@law
async def cursors_grow(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    cursors = []
    for move in (case.begin, case.move, case.move, case.end):
        (answer,) = await store.provider.commit([(made := move()).batch])
        made.take()
        assert isinstance(answer, Committed)
        cursors.append(Cursor.parse(answer.cursor))
    assert cursors == sorted(set(cursors))


# Protocol: C2.
@law
async def a_bad_member_harms_no_other(store: Store) -> None:
    host = await store.host()
    good = [await store.register(host, f"good-{number}") for number in range(3)]
    behind, late, in_want = [await store.register(host, f"bad-{number}") for number in range(3)]
    for case in (behind, late, in_want):
        await store.commit(case.begin())
    waiting = await store.waiting(host, "k", "Paid")
    applied = message("Note", "x")
    await store.commit(waiting.move(consumed=[fresh(applied)]))

    behind.state = initial
    found = await answers(
        store,
        good[0].begin(),
        behind.begin(consumed=[]),
        good[1].begin(),
        late.move(consumed=[fresh(applied)]),
        good[2].begin(good[2].wait("Paid")),
        in_want.move(in_want.wait("Paid", "k")),
    )
    assert found == [Committed, WrongExpectedVersion, Committed, AlreadyConsumed, Committed, KeyInUse]
    for case in good:
        assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
        assert await store.verdict(case.start) == "applied"
    for case in (behind, late, in_want):
        assert await store.behind.versions(case.instance_id) == [1, 2]


# Protocol: C2.
@law("locking")
async def a_member_whose_lock_is_lost_harms_no_other(store: Store) -> None:
    host = await store.host()
    one, lost, other = [await store.register(host, key) for key in ("a", "b", "c")]
    await store.commit(lost.begin())
    lost.token += 1
    found = await answers(store, one.begin(), lost.move(), other.begin())
    assert found == [Committed, InstanceLockLost, Committed]
    assert [len(await store.behind.versions(case.instance_id)) for case in (one, lost, other)] == [2, 2, 2]


@law
async def the_answers_tell_what_was_wrong(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "k", "Paid")
    case = await store.register(host, "l")
    await store.commit(case.begin())
    applied = message("Note", "l")
    await store.commit(case.move(consumed=[fresh(applied)]))

    (in_use,) = await store.provider.commit([case.move(case.wait("Paid", "k")).batch])
    assert isinstance(in_use, KeyInUse)
    assert (in_use.instance_id, in_use.message_type, in_use.correlation_key) == (case.instance_id, "Paid", "k")
    (again,) = await store.provider.commit([case.move(consumed=[fresh(applied)]).batch])
    assert isinstance(again, AlreadyConsumed)
    assert again.message_id == applied.message_id
    version, case.state = case.state.version, initial
    (wrong,) = await store.provider.commit([case.move().batch])
    assert isinstance(wrong, WrongExpectedVersion)
    assert (wrong.expected, wrong.actual) == (0, version)


@law
async def a_group_holds_an_instance_once(store: Store) -> None:
    case = await store.register(await store.host(), "k")
    with refused(ValueError):
        await store.provider.commit([case.begin().batch, case.begin().batch])


@law
async def an_unknown_instance_has_no_lock_to_lose(store: Store) -> None:
    case = Case(uuid4(), await store.host(), message("Placed", "k"))
    assert await answers(store, case.begin()) == [InstanceLockLost]
    assert await store.verdict(case.start) is None


# Protocol: C3, I9.
@law
async def of_two_that_want_one_key_in_a_group_one_gets_it(store: Store) -> None:
    host = await store.host()
    cases = [await store.register(host, key) for key in ("a", "b", "c")]
    found = await answers(store, *(case.begin(case.wait("Paid", "same")) for case in cases))
    assert sorted(kind.__name__ for kind in found) == ["Committed", "KeyInUse", "KeyInUse"]


@law
async def of_two_that_consume_one_message_in_a_group_the_first_gets_it(store: Store) -> None:
    host = await store.host()
    one, two = await store.waiting(host, "a", "Paid"), await store.waiting(host, "b", "Paid")
    same = message("Note", "x")
    assert await answers(store, one.move(consumed=[fresh(same)]), two.move(consumed=[fresh(same)])) == [
        Committed,
        AlreadyConsumed,
    ]


@law
async def an_instance_waits_for_a_key_once(store: Store) -> None:
    case = await store.register(await store.host(), "k")
    assert await answers(store, case.begin(case.wait("Paid"), case.wait("Paid"))) == [KeyInUse]


@law
async def a_key_passes_from_one_bookmark_to_another_in_one_batch(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    (open_one,) = case.state.bookmarks
    await store.commit(case.move(received(case, open_one), case.wait("Paid")))
    (open_one,) = case.state.bookmarks
    await store.commit(case.move(received(case, open_one), case.wait("Paid", name=f"{open_one}-again")))
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.kind is RouteKind.BOOKMARK


@law
async def a_key_passes_from_one_instance_to_another_in_one_group(store: Store) -> None:
    host = await store.host()
    giver = await store.waiting(host, "k", "Paid")
    taker = await store.register(host, "l")
    (open_one,) = giver.state.bookmarks
    await store.commit(taker.begin(taker.wait("Paid", "k")), giver.move(received(giver, open_one)))
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.instance_id == taker.instance_id


@law
async def a_stored_message_is_applied_once_and_its_body_is_gone(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note = message("Note", "k")
    await store.buffer(note)
    await store.commit(case.move(consumed=[stored(note)]))
    entry = (await store.behind.inbox())[note.message_id]
    assert (entry.verdict, entry.instance_id, entry.has_body) == ("applied", case.instance_id, False)
    assert await answers(store, case.move(consumed=[stored(note)])) == [AlreadyConsumed]


@law
async def a_message_that_was_buffered_before_its_redelivery_is_applied_once(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note = message("Note", "k")
    await store.buffer(note)
    await store.commit(case.move(consumed=[fresh(note)]))
    assert await store.verdict(note) == "applied"
    assert await answers(store, case.move(consumed=[stored(note)])) == [AlreadyConsumed]


@law
async def attempts_are_counted_and_gone_with_the_verdict(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note, other = message("Note", "k"), message("Note", "l")
    assert list(await store.provider.attempt([note.message_id, other.message_id])) == [1, 1]
    assert list(await store.provider.attempt([other.message_id, note.message_id])) == [2, 2]
    await store.commit(case.move(consumed=[fresh(note)]))
    assert list(await store.provider.attempt([note.message_id, other.message_id])) == [1, 3]
    await store.buffer(other)
    assert list(await store.provider.attempt([other.message_id])) == [4]
    await store.provider.take_in([Intake(envelope=other, verdict="dead_lettered", reason="failed")])
    assert list(await store.provider.attempt([other.message_id])) == [1]


@law
async def attempts_of_a_burst_are_counted_and_gone_with_the_next_commit(store: Store) -> None:
    host = await store.host()
    case, other = await store.waiting(host, "k", "Paid"), await store.waiting(host, "l", "Paid")
    attempt = store.provider.attempt_burst
    assert [await attempt(case.instance_id, how) for how in ("alone", "alone", "abandoned")] == [1, 2, 1]
    assert await attempt(other.instance_id, "alone") == 1
    await store.commit(case.move())
    assert [await attempt(case.instance_id, how) for how in ("alone", "abandoned")] == [1, 1]
    assert await attempt(other.instance_id, "alone") == 2
    await store.commit(case.end(), other.move())
    assert await attempt(other.instance_id, "alone") == 1


@law("locking")
async def a_batch_may_give_the_lock_back(store: Store) -> None:
    here, there = await store.host(), await store.host()
    kept, released = await store.waiting(here, "k", "Paid"), await store.waiting(here, "l", "Paid")
    await store.commit(kept.move(), released.move(release=True))
    found = await store.provider.load(there, [kept.instance_id, released.instance_id])
    assert [type(answer) for answer in found] == [InstanceLocked, Loaded]
    assert await answers(store, released.move()) == [InstanceLockLost]


@law
async def a_closed_instance_takes_no_more_batches(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    assert await answers(store, case.move()) == [InstanceLockLost]
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.kind is RouteKind.FINISHED


@law
async def suspension_and_resumption_are_seen_by_who_loads(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.move(InstanceSuspended(reason="requested"), reason="suspended"))
    (loaded,) = await store.provider.load(host, [case.instance_id])
    assert isinstance(loaded, Loaded)
    assert loaded.is_suspended
    await store.commit(case.move(InstanceResumed(by="ops")))
    (loaded,) = await store.provider.load(host, [case.instance_id])
    assert isinstance(loaded, Loaded)
    assert not loaded.is_suspended


@law
async def what_is_left_in_the_mailbox_of_a_closed_instance_is_rejected(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    consumed, left, start_again = message("Note", "k"), message("Note", "k"), message("Placed", "k")
    elsewhere, unknown = message("Note", "other"), message("Unheard", "k")
    await store.buffer(consumed, left, start_again, elsewhere, unknown)
    command = await store.command(case.instance_id)
    await store.commit(case.end(consumed=[stored(consumed)]))
    verdicts = [await store.verdict(m) for m in (consumed, left, start_again, command, elsewhere, unknown)]
    assert verdicts == [
        "applied",
        "rejected: completed",
        "rejected: completed",
        "rejected: completed",
        "buffered",
        "buffered",
    ]
    entry = (await store.behind.inbox())[left.message_id]
    assert (entry.instance_id, entry.has_body) == (case.instance_id, False)


@law
async def what_another_living_instance_receives_is_left_to_it(store: Store) -> None:
    host = await store.host()
    order = await store.waiting(host, "k", "Paid")
    audit = await store.register(host, "k", AUDIT)
    await store.commit(audit.begin())
    note, paid = message("Note", "k"), message("Paid", "k", b"[]")
    await store.buffer(note)
    await store.commit(order.end())
    assert await store.verdict(note) == "buffered"
    await store.buffer(paid)
    await store.commit(audit.end())
    assert await store.verdict(note) == "rejected: completed"
