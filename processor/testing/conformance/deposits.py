"""Messages and commands that a batch puts into mailboxes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from holdfast.events.types import MessageReceived
from holdfast.processor.engine.provider import Deposit, Intake, RouteKind, StoredMessage, Suspension
from holdfast.processor.testing.conformance.children import family, loaded, runnable
from holdfast.processor.testing.conformance.harness import HERE, Case, Store, fresh, message, stored
from holdfast.processor.testing.conformance.laws import law
from holdfast.schemas.errors import (
    KeyInUse,
)


async def waiting_for_child(store: Store) -> tuple[Case, Case, Deposit]:
    """Bring a parent to where it waits for its child, and return what the child will answer."""
    parent, child = await family(store)
    key = str(child.instance_id)
    await store.commit(parent.move(parent.wait("holdfast.SubflowResult", key, kind="child")))
    answer = replace(message("holdfast.SubflowResult", key, b'{"result":1}'), message_id=f"{key}:result")
    return parent, child, Deposit(envelope=answer)


@law
async def what_a_child_deposits_wakes_its_parent(store: Store) -> None:
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


@law
async def what_is_deposited_before_its_bookmark_opens_waits_for_it(store: Store) -> None:
    parent, child = await family(store)
    key = str(child.instance_id)
    answer = Deposit(envelope=message("holdfast.SubflowResult", key))
    await loaded(store, parent.host_id, child)
    await store.commit(child.begin(consumed=[stored(child.start)], deposits=[answer]))
    await store.commit(parent.move(parent.wait("holdfast.SubflowResult", key, kind="child")))
    (woken,) = await store.provider.wakeups(parent.host_id, [parent.instance_id])
    assert [m.envelope for m in woken.messages] == [answer.envelope]


@law
async def a_deposit_whose_id_is_known_is_left_alone(store: Store) -> None:
    parent, _, answer = await waiting_for_child(store)
    other = Deposit(envelope=replace(answer.envelope, body=b"other"))
    await store.commit(parent.move(deposits=[answer]))
    await store.commit(parent.move(deposits=[other]))
    (woken,) = await store.provider.wakeups(parent.host_id, [parent.instance_id])
    assert [m.envelope for m in woken.messages] == [answer.envelope]
    await store.commit(parent.move(consumed=[stored(answer.envelope)]))
    await store.commit(parent.move(deposits=[answer]))
    assert await store.verdict(answer.envelope) == "applied"


@law
async def a_command_that_is_deposited_reaches_its_instance_and_no_closed_one(store: Store) -> None:
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


@law
async def a_child_s_end_and_an_activity_s_result_are_waited_for_like_messages(store: Store) -> None:
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


@law
async def where_an_answer_goes_is_kept_with_a_message(store: Store) -> None:
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
