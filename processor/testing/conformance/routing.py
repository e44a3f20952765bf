"""Where a message belongs, and what becomes of one that is taken in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from holdfast.processor.engine.provider import Intake, Route, RouteKind, Suspension
from holdfast.processor.testing.conformance.harness import AUDIT, Store, message
from holdfast.processor.testing.conformance.laws import law
from holdfast.schemas.message import Envelope

DAY = 86400.0


async def route(store: Store, envelope: Envelope) -> Route:
    (found,) = await store.provider.route([envelope])
    return found


@law
async def the_first_match_of_the_routing_table_decides(store: Store) -> None:
    host = await store.host()
    registered = await store.register(host, "new")
    waiting = await store.waiting(host, "k", "Paid")
    closed = await store.waiting(host, "old", "Paid")
    await store.commit(closed.end())
    buffered = message("Note", "nobody")
    await store.buffer(buffered)
    table = [
        (registered.start, RouteKind.NON_PERSISTED, registered.instance_id),
        (replace(registered.start, body=b"[]"), RouteKind.NON_PERSISTED, registered.instance_id),
        (waiting.start, RouteKind.DUPLICATE, None),
        (buffered, RouteKind.DUPLICATE, None),
        (replace(buffered, body=b"[]"), RouteKind.REUSED, None),
        (replace(buffered, key="k"), RouteKind.REUSED, None),
        (replace(waiting.start, type="Paid"), RouteKind.REUSED, None),
        (message("Paid", "k"), RouteKind.BOOKMARK, waiting.instance_id),
        (message("Note", "k"), RouteKind.LIVING, waiting.instance_id),
        (message("Paid", "new"), RouteKind.LIVING, registered.instance_id),
        (message("Placed", "k"), RouteKind.NONE, None),
        (message("Paid", "old"), RouteKind.FINISHED, closed.instance_id),
        (message("Placed", "old"), RouteKind.FINISHED, closed.instance_id),
        (message("Unheard", "k"), RouteKind.NONE, None),
        (message("Placed", "another"), RouteKind.NONE, None),
        (message("Note", "nobody"), RouteKind.NONE, None),
    ]
    found = await store.provider.route([envelope for envelope, _, _ in table])
    assert list(found) == [Route(kind, instance_id) for _, kind, instance_id in table]


@law
async def a_start_message_that_was_settled_does_not_lead_to_its_non_persisted_instance(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    other = replace(case.start, body=b"[]")
    await store.provider.take_in([Intake(envelope=case.start, verdict="dead_lettered", reason="failed")])
    assert await route(store, case.start) == Route(RouteKind.NON_PERSISTED, case.instance_id)
    assert (await route(store, other)).kind is RouteKind.REUSED
    dropped = await store.register(host, "l")
    await store.provider.take_in([Intake(envelope=dropped.start, verdict="rejected", reason="dropped")])
    assert (await route(store, dropped.start)).kind is RouteKind.DUPLICATE


@law
async def a_living_instance_comes_before_a_finished_one(store: Store) -> None:
    host = await store.host()
    closed = await store.waiting(host, "k", "Paid")
    await store.commit(closed.end())
    audit = await store.register(host, "k", AUDIT)
    assert await route(store, message("Note", "k")) == Route(RouteKind.LIVING, audit.instance_id)
    assert await route(store, message("Paid", "k")) == Route(RouteKind.FINISHED, closed.instance_id)


# Protocol: D10.
@law
async def a_message_is_taken_in_once(store: Store) -> None:
    note = message("Note", "k")
    other = replace(note, body=b"[]")
    intakes = [Intake(envelope=e, verdict="buffered") for e in (note, note, other)]
    kinds = [found.kind for found in await store.provider.take_in(intakes)]
    assert kinds == [RouteKind.NONE, RouteKind.DUPLICATE, RouteKind.REUSED]
    kinds = [found.kind for found in await store.provider.take_in(intakes)]
    assert kinds == [RouteKind.DUPLICATE, RouteKind.DUPLICATE, RouteKind.REUSED]
    assert await store.verdict(note) == "buffered"


@law
async def whoever_buffers_a_message_hears_who_waits_for_it(store: Store) -> None:
    host = await store.host()
    waiting = await store.waiting(host, "k", "Paid")
    (found,) = await store.provider.take_in([Intake(envelope=message("Paid", "k"), verdict="buffered")])
    assert found == Route(RouteKind.BOOKMARK, waiting.instance_id)


@law
async def a_message_for_an_instance_that_closed_meanwhile_is_rejected(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    late = message("Paid", "k")
    (found,) = await store.provider.take_in([Intake(envelope=late, verdict="buffered")])
    assert found == Route(RouteKind.FINISHED, case.instance_id)
    assert await store.verdict(late) == "rejected: completed"


@law
async def a_buffered_message_can_be_given_up_and_a_settled_one_cannot(store: Store) -> None:
    note = message("Note", "k")
    await store.buffer(note)
    (found,) = await store.provider.take_in([Intake(envelope=note, verdict="dead_lettered", reason="failed")])
    assert found.kind is RouteKind.NONE
    assert await store.verdict(note) == "dead_lettered: failed"
    assert (await store.behind.inbox())[note.message_id].has_body
    (found,) = await store.provider.take_in([Intake(envelope=note, verdict="rejected", reason="other")])
    assert found.kind is RouteKind.DUPLICATE
    assert await store.verdict(note) == "dead_lettered: failed"


@law
async def a_dead_letter_whose_id_was_used_before_is_kept_all_the_same(store: Store) -> None:
    note = message("Note", "k")
    await store.buffer(note)
    bad = Intake(envelope=replace(note, body=b"[]"), verdict="dead_lettered", reason="message_id_reused")
    for _ in range(2):
        (found,) = await store.provider.take_in([bad])
        assert found.kind is RouteKind.REUSED
    inbox = await store.behind.inbox()
    kept = {name: entry for name, entry in inbox.items() if name.startswith(note.message_id)}
    assert sorted(entry.verdict for entry in kept.values()) == ["buffered", "dead_lettered"]
    assert all(entry.has_body for entry in kept.values())


@law
async def only_what_is_open_keeps_its_body(store: Store) -> None:
    for verdict in ("buffered", "rejected", "expired", "dead_lettered"):
        note = message("Note", verdict)
        await store.provider.take_in([Intake(envelope=note, verdict=verdict)])
        assert (await store.behind.inbox())[note.message_id].has_body == (verdict in ("buffered", "dead_lettered"))


@law
async def what_nobody_claims_expires(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    claimed, unclaimed = message("Note", "k"), message("Note", "nobody")
    await store.buffer(claimed, unclaimed)
    command = await store.command(case.instance_id)
    assert await store.provider.expire(7 * DAY, 100) == 0
    await store.behind.age_messages(8 * DAY)
    recent = message("Note", "nobody")
    await store.buffer(recent)
    assert await store.provider.expire(7 * DAY, 100) == 1
    assert await store.verdict(unclaimed) == "expired"
    assert not (await store.behind.inbox())[unclaimed.message_id].has_body
    for left in (claimed, command, recent):
        assert await store.verdict(left) == "buffered"


@law
async def what_expires_is_found_page_by_page(store: Store) -> None:
    await store.buffer(*(message("Note", "nobody") for _ in range(10)))
    await store.behind.age_messages(8 * DAY)
    assert sum([await store.provider.expire(7 * DAY, 3) for _ in range(5)]) == 10


@law
async def a_message_revives_a_non_persisted_instance_whose_start_message_is_there(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")

    async def hear() -> Route:
        (found,) = await store.provider.take_in([Intake(envelope=message("Note", "k"), verdict="buffered")])
        return found

    assert await hear() == Route(RouteKind.NONE)
    await store.provider.take_in([Intake(envelope=case.start, verdict="dead_lettered", reason="why")])
    assert await hear() == Route(RouteKind.NON_PERSISTED, case.instance_id)
    await store.provider.suspend(
        [
            Suspension(
                instance_id=case.instance_id, host_id=host, lock_token=case.token, reason="why", exception_name=None
            )
        ]
    )
    assert await hear() == Route(RouteKind.NONE)


@law
async def a_dead_letter_is_kept_whatever_characters_its_detail_has(store: Store) -> None:
    given_up, innocent = message("Note", "k"), message("Note", "k")
    detail = "no \x00 and no \ud800"
    await store.provider.take_in(
        [
            Intake(envelope=given_up, verdict="dead_lettered", reason="why", detail=detail),
            Intake(envelope=innocent, verdict="buffered"),
        ]
    )
    assert await store.verdict(given_up) == "dead_lettered: why"
    assert await store.verdict(innocent) == "buffered"


@law
async def messages_taken_in_together_keep_their_order(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    paid = [message("Paid", "k") for _ in range(3)]
    await store.buffer(*reversed(paid))
    for expected in reversed(paid):
        (woken,) = await store.provider.wakeups(host, [case.instance_id])
        assert [m.envelope for m in woken.messages] == [expected]
        await store.provider.take_in([Intake(envelope=expected, verdict="rejected")])


@law
async def a_message_counts_from_when_it_came(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    came = await store.provider.now() - timedelta(hours=1)
    await store.provider.take_in([Intake(envelope=message("Paid", "k"), verdict="buffered", received_at=came)])
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert [m.received_at for m in woken.messages] == [came]


@law
async def what_finds_no_room_under_its_key_is_a_dead_letter(store: Store) -> None:
    await store.host()
    first, second, third, fourth = (message("Unheard", "k") for _ in range(4))
    boundless = Intake(envelope=message("Unheard", "k"), verdict="buffered")
    (route,) = await store.provider.take_in([Intake(envelope=first, verdict="buffered", room=2)])
    assert route.kind is RouteKind.NONE
    routes = await store.provider.take_in(
        [
            Intake(envelope=second, verdict="buffered", room=2),
            Intake(envelope=third, verdict="buffered", room=2),
            Intake(envelope=message("Unheard", "l"), verdict="buffered", room=2),
        ]
    )
    assert [route.kind for route in routes] == [RouteKind.NONE, RouteKind.FULL, RouteKind.NONE]
    assert await store.verdict(third) == "dead_lettered: mailbox_full"
    routes = await store.provider.take_in([Intake(envelope=first, verdict="buffered", room=2), boundless])
    assert [route.kind for route in routes] == [RouteKind.DUPLICATE, RouteKind.NONE]
    assert await store.verdict(first) == "buffered"
    await store.provider.take_in([Intake(envelope=m, verdict="rejected") for m in (first, second)])
    (route,) = await store.provider.take_in([Intake(envelope=fourth, verdict="buffered", room=2)])
    assert route.kind is RouteKind.NONE
