"""Children, inner subflows and deposits: what every persistence provider promises of them."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from holdfast.events.types import MessageReceived
from holdfast.processor.engine.provider import (
    Committed,
    Deposit,
    Intake,
    Loaded,
    RouteKind,
    StoredMessage,
    Suspension,
)
from holdfast.schemas.errors import (
    InstanceCompleted,
    InstanceLockLost,
    InstanceNotFound,
    KeyInUse,
    WrongExpectedVersion,
)
from tests.support.stores import AUDIT, HERE, ORDER, Case, Store, fresh, message, stored


async def runnable(store: Store, host: UUID, *start_types: str) -> list[UUID | None]:
    """Return the instances that a look for work finds; None stands for a start message."""
    return [found.instance_id for found in await store.provider.runnable(host, start_types, 10)]


async def loaded(store: Store, host: UUID, case: Case) -> Loaded:
    """Load an instance, which must succeed."""
    (answer,) = await store.provider.load(host, [case.instance_id])
    assert isinstance(answer, Loaded), answer
    case.host_id, case.token = host, answer.lock_token
    return answer


async def refused(store: Store, case: Case) -> type:
    """Load an instance, which must fail, and return how."""
    (answer,) = await store.provider.load(await store.host(), [case.instance_id])
    return type(answer)


async def family(store: Store, key: str = "k") -> tuple[Case, Case]:
    """Bring a parent to where it has just born a child of another workflow with a key."""
    parent = await store.waiting(await store.host(), f"{key}-parent", "Paid")
    child = parent.child(key)
    await store.commit(parent.move(children=[child.newborn]))
    return parent, child


# Children.


async def test_a_child_is_there_with_its_parent_s_commit_for_any_host_to_take_up(store: Store) -> None:
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


async def test_nothing_of_a_batch_that_is_refused_is_born(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    child = parent.child("c")
    refusal = parent.move(children=[child.newborn], deposits=[Deposit(envelope=message("Note", "x"))])
    parent.token += 1
    (answer,) = await store.provider.commit([replace(refusal.batch, lock_token=parent.token)])
    assert isinstance(answer, InstanceLockLost)
    assert await refused(store, child) is InstanceNotFound
    assert await store.verdict(child.start) is None


async def test_a_child_whose_key_lives_spoils_its_parent_s_batch_alone(store: Store) -> None:
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
    assert await refused(store, child) is InstanceNotFound
    assert await store.verdict(child.start) is None
    assert await runnable(store, host) == [free.instance_id]
    await store.commit(parent.move())


async def test_of_two_in_a_group_that_want_one_child_one_gets_it(store: Store) -> None:
    host = await store.host()
    cases = [await store.waiting(host, key, "Paid") for key in ("a", "b", "c")]
    moves = [case.move(children=[case.child("same").newborn]) for case in cases]
    answers = await store.provider.commit([move.batch for move in moves])
    assert sorted(type(answer).__name__ for answer in answers) == ["Committed", "KeyInUse", "KeyInUse"]


async def test_two_children_of_one_key_spoil_their_batch(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    children = [parent.child("same").newborn, parent.child("same").newborn]
    (answer,) = await store.provider.commit([parent.move(children=children).batch])
    assert isinstance(answer, KeyInUse)
    assert await store.behind.versions(parent.instance_id) == [1, 2, 3]


async def test_a_key_is_free_for_a_child_once_its_instance_is_closed(store: Store) -> None:
    parent, child = await family(store)
    await loaded(store, parent.host_id, child)
    await store.commit(child.begin(consumed=[stored(child.start)]))
    await store.commit(child.end())
    again = parent.child("k")
    await store.commit(parent.move(children=[again.newborn]))
    assert await runnable(store, parent.host_id) == [again.instance_id]


async def test_a_child_is_found_at_once_however_much_lies_in_the_inbox(store: Store) -> None:
    parent = await store.waiting(await store.host(), "k", "Paid")
    await store.buffer(*(message("Unheard", f"x-{number}") for number in range(1100)))
    child = parent.child("c")
    await store.commit(parent.move(children=[child.newborn]))
    assert await runnable(store, await store.host()) == [child.instance_id]


async def test_the_start_message_of_a_child_is_its_own(store: Store) -> None:
    host = await store.host()
    thief = await store.waiting(host, "thief", "Paid")
    await store.commit(thief.move(thief.wait("Audited", "k")))
    _, child = await family(store)
    (woken,) = await store.provider.wakeups(host, [thief.instance_id])
    assert woken.messages == []
    assert await runnable(store, host, "Audited") == [child.instance_id]


async def test_a_child_whose_host_died_before_it_was_persisted_is_found_again(store: Store) -> None:
    parent, child = await family(store)
    there = await store.host()
    await loaded(store, there, child)
    assert await runnable(store, parent.host_id) == []
    await store.behind.lapse(there)
    assert await runnable(store, parent.host_id) == [child.instance_id]
    assert (await loaded(store, parent.host_id, child)).is_taken_over
    await store.provider.release(parent.host_id, [child.instance_id])
    assert await runnable(store, parent.host_id) == [child.instance_id]


async def test_a_child_that_is_suspended_or_whose_start_was_given_up_is_left_alone(store: Store) -> None:
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


async def test_who_goes_on_in_the_place_of_another_keeps_its_mailbox(store: Store) -> None:
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


async def test_who_goes_on_is_commanded_and_awaited_as_the_one_that_was_started(store: Store) -> None:
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


async def test_states_are_read_of_those_that_are_persisted_whoever_holds_them(store: Store) -> None:
    parent, child = await family(store)
    inner = parent.child("inner", "run")
    begin = inner.begin()
    await store.commit(parent.move(inner=[inner.inner(begin)]))
    answers = await store.provider.read_states([inner.instance_id, child.instance_id, parent.instance_id])
    assert [answers[0], type(answers[1]), answers[2]] == [begin.batch.state, InstanceNotFound, parent.state]


# Inner subflows.


async def test_an_inner_subflow_is_written_with_its_parent(store: Store) -> None:
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
    assert await refused(store, child) is InstanceCompleted
    (answer,) = await store.provider.commit([parent.move(inner=[child.inner(child.move())]).batch])
    assert isinstance(answer, InstanceLockLost)
    await store.commit(parent.move())


async def test_an_inner_subflow_lives_and_ends_in_one_batch_even_the_first(store: Store) -> None:
    parent = await store.register(await store.host(), "k")
    child = parent.child("k", "run")
    begin = child.begin()
    begin.take()
    end = child.end()
    whole = replace(child.inner(begin), events=[*begin.batch.events, *end.batch.events], state=end.batch.state)
    await store.commit(parent.begin(inner=[whole]))
    assert await store.behind.versions(child.instance_id) == [1, 2, 3, 4]
    assert await refused(store, child) is InstanceCompleted


async def test_an_inner_subflow_at_another_version_spoils_its_parent_s_batch_alone(store: Store) -> None:
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


async def test_an_inner_subflow_is_neither_found_nor_loaded_nor_addressed_by_itself(store: Store) -> None:
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


async def test_the_key_of_an_inner_subflow_is_free_for_others(store: Store) -> None:
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


# Deposits.


async def waiting_for_child(store: Store) -> tuple[Case, Case, Deposit]:
    """Bring a parent to where it waits for its child, and return what the child will answer."""
    parent, child = await family(store)
    key = str(child.instance_id)
    await store.commit(parent.move(parent.wait("holdfast.SubflowResult", key, kind="child")))
    answer = replace(message("holdfast.SubflowResult", key, b'{"result":1}'), message_id=f"{key}:result")
    return parent, child, Deposit(envelope=answer)


async def test_what_a_child_deposits_wakes_its_parent(store: Store) -> None:
    parent, child, answer = await waiting_for_child(store)
    there = await store.host()
    await loaded(store, there, child)
    hints = store.provider.listen()
    await anext(hints)
    await store.commit(child.begin(consumed=[stored(child.start)], deposits=[answer]))
    await anext(hints)
    await hints.aclose()
    await store.commit(child.end())

    assert await runnable(store, there) == []
    assert await runnable(store, parent.host_id) == [parent.instance_id]
    (woken,) = await store.provider.wakeups(parent.host_id, [parent.instance_id])
    assert [m.envelope for m in woken.messages] == [answer.envelope]
    await store.provider.release(parent.host_id, [parent.instance_id])
    assert await runnable(store, there) == [parent.instance_id]

    await loaded(store, there, parent)
    (bookmark,) = [name for name, mark in parent.state.bookmarks.items() if mark.kind == "child"]
    received = MessageReceived(
        where=HERE,
        bookmark=bookmark,
        closes=(bookmark,),
        message_id=answer.envelope.message_id,
        message_type=answer.envelope.type,
        correlation_key=answer.envelope.key,
        body={},
    )
    await store.commit(parent.move(received, consumed=[stored(answer.envelope)]))
    assert await store.verdict(answer.envelope) == "applied"
    assert await runnable(store, there) == []


async def test_what_is_deposited_before_its_bookmark_opens_waits_for_it(store: Store) -> None:
    parent, child = await family(store)
    key = str(child.instance_id)
    answer = Deposit(envelope=message("holdfast.SubflowResult", key))
    await loaded(store, parent.host_id, child)
    await store.commit(child.begin(consumed=[stored(child.start)], deposits=[answer]))
    await store.commit(parent.move(parent.wait("holdfast.SubflowResult", key, kind="child")))
    (woken,) = await store.provider.wakeups(parent.host_id, [parent.instance_id])
    assert [m.envelope for m in woken.messages] == [answer.envelope]


async def test_a_deposit_whose_id_is_known_is_left_alone(store: Store) -> None:
    parent, _, answer = await waiting_for_child(store)
    other = Deposit(envelope=replace(answer.envelope, body=b"other"))
    await store.commit(parent.move(deposits=[answer]))
    await store.commit(parent.move(deposits=[other]))
    (woken,) = await store.provider.wakeups(parent.host_id, [parent.instance_id])
    assert [m.envelope for m in woken.messages] == [answer.envelope]
    await store.commit(parent.move(consumed=[stored(answer.envelope)]))
    await store.commit(parent.move(deposits=[answer]))
    assert await store.verdict(answer.envelope) == "applied"


async def test_a_command_that_is_deposited_reaches_its_instance_and_no_closed_one(store: Store) -> None:
    parent, child = await family(store)
    closed = await store.waiting(parent.host_id, "closed", "Paid")
    await store.commit(closed.end())
    await loaded(store, parent.host_id, child)
    await store.commit(child.begin(child.wait("Note"), consumed=[stored(child.start)], release=True))
    cancel, late = message("cancel", "c"), message("cancel", "d")
    await store.commit(
        parent.move(
            deposits=[
                Deposit(envelope=cancel, kind="control", instance_id=child.instance_id),
                Deposit(envelope=late, kind="control", instance_id=closed.instance_id),
            ]
        )
    )
    assert [await store.verdict(m) for m in (cancel, late)] == ["buffered", "rejected: completed"]
    assert not (await store.behind.inbox())[late.message_id].has_body
    assert await runnable(store, parent.host_id) == [child.instance_id]
    await loaded(store, parent.host_id, child)
    (woken,) = await store.provider.wakeups(parent.host_id, [child.instance_id])
    assert [(m.kind, m.envelope.message_id) for m in woken.messages] == [("control", cancel.message_id)]


# What is waited for, and where answers go.


async def test_a_child_s_end_and_an_activity_s_result_are_waited_for_like_messages(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(
        case.move(
            case.wait("holdfast.SubflowResult", "c", kind="child"),
            case.wait("holdfast.ActivityResult", "a", kind="activity"),
        )
    )
    for answer in (message("holdfast.SubflowResult", "c"), message("holdfast.ActivityResult", "a")):
        (route,) = await store.provider.route([answer])
        assert (route.kind, route.instance_id) == (RouteKind.BOOKMARK, case.instance_id)
        (route,) = await store.provider.take_in([Intake(envelope=answer, verdict="buffered")])
        assert (route.kind, route.instance_id) == (RouteKind.BOOKMARK, case.instance_id)
    await store.behind.age_messages(100)
    assert await store.provider.expire(50, 10) == 0
    other = await store.waiting(host, "l", "Paid")
    (refusal,) = await store.provider.commit(
        [other.move(other.wait("holdfast.SubflowResult", "c", kind="child")).batch]
    )
    assert isinstance(refusal, KeyInUse)


async def test_where_an_answer_goes_is_kept_with_a_message(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    paid, placed = replace(message("Paid", "k"), reply_to="a"), replace(message("Placed", "new"), reply_to="b")
    await store.buffer(paid, placed)
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert [m.envelope.reply_to for m in woken.messages] == ["a"]
    found = [each.message for each in await store.provider.runnable(host, ["Placed"], 10)]
    starts = [m for m in found if isinstance(m, StoredMessage)]
    assert [m.envelope for m in starts] == [placed]
    assert starts[0].received_at <= datetime.now(UTC)

    registered = await store.register(host, "other")
    start = replace(registered.start, reply_to="c")
    await store.provider.suspend(
        [
            Suspension(
                instance_id=registered.instance_id,
                host_id=host,
                lock_token=registered.token,
                reason="unhandled_exception",
                exception_name=None,
                message=fresh(start),
            )
        ]
    )
    again = await loaded(store, host, registered)
    assert again.start_message is not None
    assert again.start_message.envelope == start
