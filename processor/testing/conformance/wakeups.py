"""What wakes an instance, and what a host finds to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from holdfast.events.types import InstanceSuspended, TimerRescheduled
from holdfast.processor.engine.provider import Loaded, Suspension
from holdfast.processor.engine.wakeups import Mail, Runnable
from holdfast.processor.testing.conformance.harness import HERE, Case, Store, fresh, message
from holdfast.processor.testing.conformance.laws import law


async def runnable(store: Store, host: UUID, *start_types: str) -> list[tuple[str, UUID | str | None]]:
    """Return what a host finds to do, with the instance or the start message."""
    return [
        (found.why, found.instance_id if found.message is None else found.message.envelope.message_id)
        for found in await store.provider.runnable(host, start_types, 100)
    ]


@law
async def an_instance_is_woken_by_the_oldest_message_of_each_bookmark(store: Store) -> None:
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


@law
async def mail_is_found_for_bookmarks_that_the_store_does_not_know(store: Store) -> None:
    host = await store.host()
    first, second, third, taken, unheard = (message(t, "k") for t in ("Paid", "Paid", "Note", "Note", "Unheard"))
    await store.buffer(taken)
    await store.buffer(first)
    await store.buffer(third)
    await store.buffer(second, unheard)
    case = await store.register(host, "k")
    other = await store.register(host, "l")
    found, nothing, none = await store.provider.find_mail(
        [
            Mail(instance_id=case.instance_id, waits=[("Note", "k"), ("Paid", "k")], taken=[taken.message_id]),
            Mail(instance_id=other.instance_id, waits=[("Paid", "l")]),
            Mail(instance_id=other.instance_id, waits=[]),
        ]
    )
    assert [m.envelope for m in found] == [first, third]
    assert (list(nothing), list(none)) == ([], [])


@law("locking")
async def only_the_holder_is_told_what_wakes_an_instance(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.buffer(message("Paid", "k"))
    (told,) = await store.provider.wakeups(await store.host(), [case.instance_id])
    assert not told.messages
    (told,) = await store.provider.wakeups(host, [uuid4()])
    assert not told.messages


@law
async def due_timers_wake(store: Store) -> None:
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


@law
async def a_timer_that_is_moved_is_due_at_its_new_time(store: Store) -> None:
    host = await store.host()
    now = await store.provider.now()
    case = await store.waiting(host, "k", "Paid", due=now + timedelta(hours=1))
    (timer,) = (name for name, bookmark in case.state.bookmarks.items() if bookmark.kind == "timer")

    async def move_to(due: datetime) -> None:
        rescheduled = TimerRescheduled(where=HERE, bookmark=timer, due=due.astimezone(UTC).isoformat(), by="ops")
        await store.commit(case.move(rescheduled))

    await move_to(now - timedelta(seconds=1))
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert list(woken.due) == [timer]
    assert await runnable(store, host) == [("timer", case.instance_id)]
    await move_to(now + timedelta(hours=2))
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert not woken.due
    assert await runnable(store, host) == []
    seconds = await store.provider.next_timer(host)
    assert seconds is not None
    assert seconds > timedelta(hours=1).total_seconds()


@law("locking")
async def a_suspended_instance_hears_only_commands(store: Store) -> None:
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


@law("locking")
async def a_command_for_a_closed_instance_is_rejected(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    await store.commit(case.end())
    command = await store.command(case.instance_id)
    assert await runnable(store, host) == []
    left = (await store.behind.inbox())[command.message_id]
    assert (left.verdict, left.reason) == ("rejected", "completed")


@law("locking")
async def mail_for_an_instance_is_found_by_its_holder_or_if_nobody_holds_it_by_anybody(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.waiting(here, "k", "Paid")
    await store.buffer(message("Paid", "k"))
    assert await runnable(store, here) == [("message", case.instance_id)]
    assert await runnable(store, there) == []
    await store.behind.lapse(here)
    assert await runnable(store, there) == [("message", case.instance_id)]


@law
async def mail_that_nobody_waits_for_makes_nothing_runnable(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "k", "Paid")
    await store.buffer(message("Note", "k"), message("Paid", "l"), message("Unheard", "k"))
    assert await runnable(store, host, "Placed") == []


@law("locking")
async def what_stopped_in_the_middle_of_a_burst_goes_on_elsewhere(store: Store) -> None:
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


@law("locking")
async def a_batch_that_lets_go_in_the_middle_of_a_burst_leaves_the_instance_to_be_found(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    await store.commit(case.begin(reason="activity_completed", release=True))
    assert await runnable(store, host) == [("lapsed", case.instance_id)]


@law("locking")
async def idle_instances_of_lapsed_hosts_are_left_alone(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    await store.waiting(late, "k", "Paid")
    await store.register(late, "l")
    await store.behind.lapse(late)
    assert await runnable(store, heir, "Placed") == []


@law
async def buffered_start_messages_are_found_unless_the_key_is_taken(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "taken", "Paid")
    free, taken, foreign = message("Placed", "free"), message("Placed", "taken"), message("Unheard", "free")
    await store.buffer(free, taken, foreign)
    assert await runnable(store, host, "Placed") == [("start", free.message_id)]
    assert await runnable(store, host) == []
    (found,) = await store.provider.runnable(host, ["Placed"], 100)
    assert found.message is not None
    assert found.message.envelope == free


@law("locking")
async def a_non_persisted_instance_is_found_by_its_buffered_start_message(store: Store) -> None:
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


@law
async def one_look_gives_no_more_than_was_asked_for_and_the_next_goes_on(store: Store) -> None:
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


@law("locking")
async def what_cannot_go_on_hides_nothing_that_can(store: Store) -> None:
    late, host = await store.host(), await store.host()
    past = await store.provider.now() - timedelta(seconds=1)
    kinds: dict[str, list[UUID]] = {"timer": [], "control": [], "lapsed": []}
    for number in range(3):
        due = await store.waiting(host, f"due-{number}", "Paid", due=past)
        commanded = await store.waiting(host, f"commanded-{number}", "Paid")
        await store.command(commanded.instance_id)
        running = await store.register(late, f"running-{number}")
        await store.commit(running.begin(reason="activity_completed"))
        kinds["timer"].append(due.instance_id)
        kinds["control"].append(commanded.instance_id)
        kinds["lapsed"].append(running.instance_id)
        start = message("Placed", f"start-{number}")
        await store.buffer(start)
    await store.behind.lapse(late)
    # Nothing is taken up, so all of it is found again and again.
    looks = [found for _ in range(20) for found in await store.provider.runnable(host, ["Placed"], 2)]
    for why, instances in kinds.items():
        assert {found.instance_id for found in looks if found.why == why} >= set(instances), why
    starts = {found.message.envelope.key for found in looks if found.message is not None}
    assert starts == {"start-0", "start-1", "start-2"}


@law("locking")
async def the_next_timer_is_the_next_that_this_host_may_fire(store: Store) -> None:
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


@law
async def a_timer_that_is_just_due_is_due_now(store: Store) -> None:
    host = await store.host()
    await store.waiting(host, "k", due=await store.provider.now() - timedelta(seconds=1))
    assert await store.provider.next_timer(host) == 0


@law
async def a_command_is_a_hint_to_listeners(store: Store) -> None:
    host = await store.host()
    case = await store.waiting(host, "k", "Paid")
    hints = store.provider.listen()
    await anext(hints)
    await store.command(case.instance_id)
    await anext(hints)
    await store.buffer(message("Paid", "k"))
    await anext(hints)
    await hints.aclose()


@law
async def the_clock_goes_forward(store: Store) -> None:
    before = await store.provider.now()
    assert before.utcoffset() == timedelta(0)
    assert await store.provider.now() >= before
