"""Routing, the inbox, the outbox and what wakes instances: what every persistence provider promises."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

from holdfast.events.types import InstanceSuspended
from holdfast.processor.engine.provider import Intake, Loaded, Route, RouteKind, Runnable, Suspension
from holdfast.schemas.message import Envelope
from tests.support.stores import AUDIT, Case, Store, fresh, message

DAY = 86400.0


async def route(store: Store, envelope: Envelope) -> Route:
    (found,) = await store.provider.route([envelope])
    return found


async def runnable(store: Store, host: UUID, *start_types: str) -> list[tuple[str, UUID | str | None]]:
    """Return what a host finds to do, with the instance or the start message."""
    return [
        (found.why, found.instance_id if found.message is None else found.message.envelope.message_id)
        for found in await store.provider.runnable(host, start_types, 100)
    ]


async def test_the_first_match_of_the_routing_table_decides(store: Store) -> None:
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


async def test_a_living_instance_comes_before_a_finished_one(store: Store) -> None:
    host = await store.host()
    closed = await store.waiting(host, "k", "Paid")
    await store.commit(closed.end())
    audit = await store.register(host, "k", AUDIT)
    assert await route(store, message("Note", "k")) == Route(RouteKind.LIVING, audit.instance_id)
    assert await route(store, message("Paid", "k")) == Route(RouteKind.FINISHED, closed.instance_id)


# Protocol: D10.
async def test_a_message_is_taken_in_once(store: Store) -> None:
    note = message("Note", "k")
    other = replace(note, body=b"[]")
    intakes = [Intake(envelope=e, verdict="buffered") for e in (note, note, other)]
    kinds = [found.kind for found in await store.provider.take_in(intakes)]
    assert kinds == [RouteKind.NONE, RouteKind.DUPLICATE, RouteKind.REUSED]
    kinds = [found.kind for found in await store.provider.take_in(intakes)]
    assert kinds == [RouteKind.DUPLICATE, RouteKind.DUPLICATE, RouteKind.REUSED]
    assert await store.verdict(note) == "buffered"


async def test_whoever_buffers_a_message_hears_who_waits_for_it(store: Store) -> None:
    host = await store.host()
    waiting = await store.waiting(host, "k", "Paid")
    (found,) = await store.provider.take_in([Intake(envelope=message("Paid", "k"), verdict="buffered")])
    assert found == Route(RouteKind.BOOKMARK, waiting.instance_id)


async def test_a_message_for_an_instance_that_closed_meanwhile_is_rejected(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    late = message("Paid", "k")
    (found,) = await store.provider.take_in([Intake(envelope=late, verdict="buffered")])
    assert found == Route(RouteKind.FINISHED, case.instance_id)
    assert await store.verdict(late) == "rejected: completed"


async def test_a_buffered_message_can_be_given_up_and_a_settled_one_cannot(store: Store) -> None:
    note = message("Note", "k")
    await store.buffer(note)
    (found,) = await store.provider.take_in([Intake(envelope=note, verdict="dead_lettered", reason="failed")])
    assert found.kind is RouteKind.NONE
    assert await store.verdict(note) == "dead_lettered: failed"
    assert (await store.behind.inbox())[note.message_id].has_body
    (found,) = await store.provider.take_in([Intake(envelope=note, verdict="rejected", reason="other")])
    assert found.kind is RouteKind.DUPLICATE
    assert await store.verdict(note) == "dead_lettered: failed"


async def test_a_dead_letter_whose_id_was_used_before_is_kept_all_the_same(store: Store) -> None:
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


async def test_only_what_is_open_keeps_its_body(store: Store) -> None:
    for verdict in ("buffered", "rejected", "expired", "dead_lettered"):
        note = message("Note", verdict)
        await store.provider.take_in([Intake(envelope=note, verdict=verdict)])
        assert (await store.behind.inbox())[note.message_id].has_body == (verdict in ("buffered", "dead_lettered"))


async def test_an_instance_is_woken_by_the_oldest_message_of_each_bookmark(store: Store) -> None:
    host = await store.host()
    first, second, third, other = (message(t, "k") for t in ("Paid", "Paid", "Note", "Unheard"))
    await store.buffer(first)
    await store.buffer(third)
    await store.buffer(second, other)
    case = await store.waiting(host, "k", "Note", "Paid")
    idle = await store.waiting(host, "l", "Paid")
    woken, asleep = await store.provider.wakeups(host, [case.instance_id, idle.instance_id])
    assert [m.envelope for m in woken.messages] == [first, third]
    assert [m.kind for m in woken.messages] == ["message", "message"]
    assert (list(asleep.messages), list(asleep.due)) == ([], [])


async def test_only_the_holder_is_told_what_wakes_an_instance(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.buffer(message("Paid", "k"))
    (told,) = await store.provider.wakeups(await store.host(), [case.instance_id])
    assert not told.messages
    (told,) = await store.provider.wakeups(host, [uuid4()])
    assert not told.messages


async def test_due_timers_wake(store: Store) -> None:
    host = await store.host()
    now = await store.provider.now()
    due = await store.waiting(host, "k", "Paid", due=now - timedelta(seconds=1))
    later = await store.waiting(host, "l", "Paid", due=now + timedelta(hours=1))
    woken, asleep = await store.provider.wakeups(host, [due.instance_id, later.instance_id])
    assert len(woken.due) == 1
    assert woken.due[0] in due.state.bookmarks
    assert not asleep.due
    assert woken.now >= now
    assert await runnable(store, host) == [("timer", due.instance_id)]


async def test_a_suspended_instance_hears_only_commands(store: Store) -> None:
    host = await store.host()
    past = await store.provider.now() - timedelta(seconds=1)
    case = await store.waiting(host, "k", "Paid", due=past)
    await store.commit(case.move(InstanceSuspended(reason="requested"), reason="suspended"))
    await store.buffer(message("Paid", "k"))
    assert await runnable(store, host) == []
    command = await store.command(case.instance_id)
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert [(m.kind, m.envelope) for m in woken.messages] == [("control", command)]
    assert not woken.due
    assert await runnable(store, host) == [("control", case.instance_id)]
    assert await runnable(store, await store.host()) == []


async def test_a_command_for_a_closed_instance_is_rejected(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    command = await store.command(case.instance_id)
    assert await runnable(store, host) == []
    left = (await store.behind.inbox())[command.message_id]
    assert (left.verdict, left.reason) == ("rejected", "completed")


async def test_mail_for_an_instance_is_found_by_its_holder_or_if_nobody_holds_it_by_anybody(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.buffer(message("Paid", "k"))
    assert await runnable(store, here) == [("message", case.instance_id)]
    assert await runnable(store, there) == []
    await store.behind.lapse(here)
    assert await runnable(store, there) == [("message", case.instance_id)]


async def test_mail_that_nobody_waits_for_makes_nothing_runnable(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "k", "Paid")
    await store.buffer(message("Note", "k"), message("Paid", "l"), message("Unheard", "k"))
    assert await runnable(store, host, "Placed") == []


async def test_what_stopped_in_the_middle_of_a_burst_goes_on_elsewhere(store: Store) -> None:
    late, released, closing, heir = [await store.host() for _ in range(4)]
    cases = [await store.register(host, str(host)) for host in (late, released, closing)]
    for case in cases:
        await store.commit(case.begin(), case_idle := (await store.register(case.host_id, "idle")).begin())
        await store.commit(case.move(reason="activity_completed"))
        await store.commit(case_idle.case.end())
    assert await runnable(store, heir) == []
    await store.behind.lapse(late)
    await store.provider.release(released, [cases[1].instance_id])
    await store.provider.close_host(closing)
    found = await runnable(store, heir)
    assert sorted(found, key=str) == sorted((("lapsed", case.instance_id) for case in cases), key=str)
    loaded = await store.provider.load(heir, [case.instance_id for case in cases])
    assert all(isinstance(one, Loaded) and one.lock_token == 2 for one in loaded)
    assert await runnable(store, heir) == []


async def test_a_batch_that_lets_go_in_the_middle_of_a_burst_leaves_the_instance_to_be_found(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.commit(case.begin(reason="activity_completed", release=True))
    assert await runnable(store, host) == [("lapsed", case.instance_id)]


async def test_idle_instances_of_lapsed_hosts_are_left_alone(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    await store.waiting(late, "k", "Paid")
    await store.register(late, "l")
    await store.behind.lapse(late)
    assert await runnable(store, heir, "Placed") == []


async def test_buffered_start_messages_are_found_unless_the_key_is_taken(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "taken", "Paid")
    free, taken, foreign = message("Placed", "free"), message("Placed", "taken"), message("Unheard", "free")
    await store.buffer(free, taken, foreign)
    assert await runnable(store, host, "Placed") == [("start", free.message_id)]
    assert await runnable(store, host) == []
    (found,) = await store.provider.runnable(host, ["Placed"], 100)
    assert found.message is not None
    assert found.message.envelope == free


async def test_a_non_persisted_instance_is_found_by_its_buffered_start_message(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    start = message("Placed", "k")
    await store.buffer(start)
    case = Case(uuid4(), late, start)
    await store.provider.register(late, [case.registration])
    assert await runnable(store, heir, "Placed") == []
    await store.behind.lapse(late)
    assert await runnable(store, heir, "Placed") == [("start", case.instance_id)]
    (loaded,) = await store.provider.load(heir, [case.instance_id])
    assert isinstance(loaded, Loaded)
    assert loaded.start_message is not None
    case.host_id, case.token = heir, loaded.lock_token
    await store.provider.suspend(
        [
            Suspension(
                instance_id=case.instance_id,
                host_id=heir,
                lock_token=case.token,
                reason="unhandled_exception",
                exception_name="ValueError",
                message=fresh(start),
            )
        ]
    )
    assert await runnable(store, heir, "Placed") == []


async def test_one_look_gives_no_more_than_was_asked_for_and_the_next_goes_on(store: Store) -> None:
    host = await store.host()
    starts = [message("Placed", f"k{number}") for number in range(5)]
    await store.buffer(*starts)
    found: list[Runnable] = []
    for _ in range(5):
        (one,) = await store.provider.runnable(host, ["Placed"], 1)
        assert one.message is not None
        found.append(one)
        case = Case(uuid4(), host, one.message.envelope)
        await store.provider.register(host, [case.registration])
        await store.commit(case.begin())
    assert {one.message.envelope.message_id for one in found if one.message} == {s.message_id for s in starts}


async def test_the_next_timer_is_the_next_that_this_host_may_fire(store: Store) -> None:
    here, there = await store.host(), await store.host()
    assert await store.provider.next_timer(here) is None
    now = await store.provider.now()
    await store.waiting(here, "k", due=now + timedelta(seconds=900))
    await store.waiting(there, "l", due=now + timedelta(seconds=300))
    suspended = await store.waiting(here, "m", due=now + timedelta(seconds=100))
    await store.commit(suspended.move(InstanceSuspended(reason="requested"), reason="suspended"))
    mine, theirs = await store.provider.next_timer(here), await store.provider.next_timer(there)
    assert mine is not None
    assert theirs is not None
    assert 800 < mine <= 900
    assert 200 < theirs <= 300
    await store.behind.lapse(there)
    mine = await store.provider.next_timer(here)
    assert mine is not None
    assert 200 < mine <= 300


async def test_a_timer_that_is_just_due_is_due_now(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "k", due=await store.provider.now() - timedelta(seconds=1))
    assert await store.provider.next_timer(host) == 0


async def test_what_nobody_claims_expires(store: Store) -> None:
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


async def test_what_expires_is_found_page_by_page(store: Store) -> None:
    await store.buffer(*(message("Note", "nobody") for _ in range(10)))
    await store.behind.age_messages(8 * DAY)
    assert sum([await store.provider.expire(7 * DAY, 3) for _ in range(5)]) == 10


async def test_the_outbox_gives_the_oldest_first_until_they_are_published(store: Store) -> None:
    host = await store.host()
    one, two = await store.register(host, "k"), await store.register(host, "l")
    messages = [one.send(), one.send(), two.send()]
    await store.commit(one.begin(outgoing=messages[:2]))
    await store.commit(two.begin(outgoing=messages[2:]))
    assert list(await store.provider.outbox(host, 10)) == messages
    assert list(await store.provider.outbox(host, 2)) == messages[:2]
    await store.provider.published([messages[0].message_id])
    assert list(await store.provider.outbox(host, 10)) == messages[1:]


async def test_an_unroutable_message_holds_up_nobody(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    messages = [case.send(), case.send()]
    await store.commit(case.begin(outgoing=messages))
    await store.provider.unroutable(messages[0].message_id, "no queue is bound")
    assert list(await store.provider.outbox(host, 10)) == messages[1:]


# Protocol: D6.
async def test_a_host_publishes_what_it_committed_for_as_long_as_it_lives(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.register(here, "k")
    first, second = case.send(), case.send()
    await store.commit(case.begin(outgoing=[first], release=True))
    assert list(await store.provider.outbox(there, 10)) == []
    (loaded,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(loaded, Loaded)
    case.host_id, case.token = there, loaded.lock_token
    await store.commit(case.move(outgoing=[second]))
    assert list(await store.provider.outbox(there, 10)) == [], "an older message of the instance is still on its way"
    assert list(await store.provider.outbox(here, 10)) == [first]
    await store.behind.lapse(here)
    assert list(await store.provider.outbox(there, 10)) == [first, second]


async def test_a_command_is_a_hint_to_listeners(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    hints = store.provider.listen()
    await anext(hints)
    await store.command(case.instance_id)
    await anext(hints)
    await store.buffer(message("Paid", "k"))
    await anext(hints)
    await hints.aclose()


async def test_the_clock_goes_forward(store: Store) -> None:
    before = await store.provider.now()
    assert before.utcoffset() == timedelta(0)
    assert await store.provider.now() >= before


async def test_a_message_revives_a_non_persisted_instance_whose_start_message_is_there(store: Store) -> None:
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


async def test_a_dead_letter_is_kept_whatever_characters_its_detail_has(store: Store) -> None:
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
