"""Persistence points: what every persistence provider promises of a commit."""

from uuid import uuid4

import pytest

from holdfast.events.recorded import Cursor
from holdfast.events.types import InstanceResumed, InstanceSuspended, MessageReceived
from holdfast.processor.engine.provider import AlreadyConsumed, Committed, Intake, Loaded, RouteKind
from holdfast.projections.instance import initial
from holdfast.schemas.errors import InstanceLocked, InstanceLockLost, KeyInUse, WrongExpectedVersion
from tests.support.stores import AUDIT, HERE, Case, Move, Store, fresh, message, stored


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
async def test_all_of_a_batch_is_there_after_the_commit(store: Store) -> None:
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


async def test_cursors_grow(store: Store) -> None:
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
async def test_a_bad_member_harms_no_other(store: Store) -> None:
    host = await store.host()
    good = [await store.register(host, f"good-{number}") for number in range(4)]
    behind, lost, late, in_want = [await store.register(host, f"bad-{number}") for number in range(4)]
    for case in (behind, lost, late, in_want):
        await store.commit(case.begin())
    waiting = await store.waiting(host, "k", "Paid")
    applied = message("Note", "x")
    await store.commit(waiting.move(consumed=[fresh(applied)]))

    behind.state = initial
    lost.token += 1
    found = await answers(
        store,
        good[0].begin(),
        behind.begin(consumed=[]),
        good[1].begin(),
        lost.move(),
        late.move(consumed=[fresh(applied)]),
        good[2].begin(good[2].wait("Paid")),
        in_want.move(in_want.wait("Paid", "k")),
        good[3].begin(),
    )
    assert found == [
        Committed,
        WrongExpectedVersion,
        Committed,
        InstanceLockLost,
        AlreadyConsumed,
        Committed,
        KeyInUse,
        Committed,
    ]
    for case in good:
        assert await store.behind.versions(case.instance_id) == list(range(1, case.state.version + 1))
        assert await store.verdict(case.start) == "applied"
    for case in (behind, lost, late, in_want):
        assert await store.behind.versions(case.instance_id) == [1, 2]


async def test_the_answers_tell_what_was_wrong(store: Store) -> None:
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


async def test_a_group_holds_an_instance_once(store: Store) -> None:
    case = await store.register(await store.host(), "k")
    with pytest.raises(ValueError, match="at most one batch"):
        await store.provider.commit([case.begin().batch, case.begin().batch])


async def test_an_unknown_instance_has_no_lock_to_lose(store: Store) -> None:
    case = Case(uuid4(), await store.host(), message("Placed", "k"))
    assert await answers(store, case.begin()) == [InstanceLockLost]
    assert await store.verdict(case.start) is None


# Protocol: C3, I9.
async def test_of_two_that_want_one_key_in_a_group_one_gets_it(store: Store) -> None:
    host = await store.host()
    cases = [await store.register(host, key) for key in ("a", "b", "c")]
    found = await answers(store, *(case.begin(case.wait("Paid", "same")) for case in cases))
    assert sorted(kind.__name__ for kind in found) == ["Committed", "KeyInUse", "KeyInUse"]


async def test_of_two_that_consume_one_message_in_a_group_the_first_gets_it(store: Store) -> None:
    host = await store.host()
    one, two = await store.waiting(host, "a", "Paid"), await store.waiting(host, "b", "Paid")
    same = message("Note", "x")
    assert await answers(store, one.move(consumed=[fresh(same)]), two.move(consumed=[fresh(same)])) == [
        Committed,
        AlreadyConsumed,
    ]


async def test_an_instance_waits_for_a_key_once(store: Store) -> None:
    case = await store.register(await store.host(), "k")
    assert await answers(store, case.begin(case.wait("Paid"), case.wait("Paid"))) == [KeyInUse]


async def test_a_key_passes_from_one_bookmark_to_another_in_one_batch(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    (open_one,) = case.state.bookmarks
    await store.commit(case.move(received(case, open_one), case.wait("Paid")))
    (open_one,) = case.state.bookmarks
    await store.commit(case.move(received(case, open_one), case.wait("Paid", name=f"{open_one}-again")))
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.kind is RouteKind.BOOKMARK


async def test_a_key_passes_from_one_instance_to_another_in_one_group(store: Store) -> None:
    host = await store.host()
    giver = await store.waiting(host, "k", "Paid")
    taker = await store.register(host, "l")
    (open_one,) = giver.state.bookmarks
    await store.commit(taker.begin(taker.wait("Paid", "k")), giver.move(received(giver, open_one)))
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.instance_id == taker.instance_id


async def test_a_stored_message_is_applied_once_and_its_body_is_gone(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note = message("Note", "k")
    await store.buffer(note)
    await store.commit(case.move(consumed=[stored(note)]))
    entry = (await store.behind.inbox())[note.message_id]
    assert (entry.verdict, entry.instance_id, entry.has_body) == ("applied", case.instance_id, False)
    assert await answers(store, case.move(consumed=[stored(note)])) == [AlreadyConsumed]


async def test_a_message_that_was_buffered_before_its_redelivery_is_applied_once(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    note = message("Note", "k")
    await store.buffer(note)
    await store.commit(case.move(consumed=[fresh(note)]))
    assert await store.verdict(note) == "applied"
    assert await answers(store, case.move(consumed=[stored(note)])) == [AlreadyConsumed]


async def test_attempts_are_counted_and_gone_with_the_verdict(store: Store) -> None:
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


async def test_a_batch_may_give_the_lock_back(store: Store) -> None:
    here, there = await store.host(), await store.host()
    kept, released = await store.waiting(here, "k", "Paid"), await store.waiting(here, "l", "Paid")
    await store.commit(kept.move(), released.move(release=True))
    found = await store.provider.load(there, [kept.instance_id, released.instance_id])
    assert [type(answer) for answer in found] == [InstanceLocked, Loaded]
    assert await answers(store, released.move()) == [InstanceLockLost]


async def test_a_closed_instance_takes_no_more_batches(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    assert await answers(store, case.move()) == [InstanceLockLost]
    (route,) = await store.provider.route([message("Paid", "k")])
    assert route.kind is RouteKind.FINISHED


async def test_suspension_and_resumption_are_seen_by_who_loads(store: Store) -> None:
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


async def test_what_is_left_in_the_mailbox_of_a_closed_instance_is_rejected(store: Store) -> None:
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


async def test_what_another_living_instance_receives_is_left_to_it(store: Store) -> None:
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


async def test_a_unit_of_work_commits_a_batch(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        move = case.begin(case.wait("Paid"))
        committed = await unit.commit(move.batch)
        move.take()
    assert str(Cursor.parse(committed.cursor)) == committed.cursor
    assert await store.behind.versions(case.instance_id) == [1, 2, 3]
    await store.commit(case.move())


async def test_a_unit_of_work_raises_what_a_commit_answers(store: Store) -> None:
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
            with pytest.raises(error):
                await unit.commit(move.batch)
    assert await store.behind.versions(case.instance_id) == [1, 2]
    await store.commit(case.move())


async def test_a_unit_of_work_that_is_left_has_done_nothing(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    async with store.provider.begin(host) as unit:
        await unit.rollback()
    async with store.provider.begin(host):
        pass
    await store.commit(case.begin())
