"""How hosts see each other, and how they leave to each other what concerns their partitions."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from holdfast.processor.engine.peers import Host, Peer
from holdfast.processor.engine.provider import Intake
from holdfast.processor.testing.conformance.harness import APP, Case, Store, message
from holdfast.processor.testing.conformance.laws import law
from holdfast.processor.testing.conformance.wakeups import runnable


async def share(store: Store, host: UUID, *partitions: int) -> dict[UUID, Peer]:
    """Have a host say which partitions it consumes, since now, and return who lives."""
    now = await store.provider.now()
    return {peer.host_id: peer for peer in await store.provider.share(host, dict.fromkeys(partitions, now))}


async def let_go(store: Store, case: Case) -> None:
    """Have nobody hold an instance."""
    await store.provider.release(case.host_id, [case.instance_id])


@law("locking")
async def hosts_see_who_lives_and_what_each_consumes(store: Store) -> None:
    before = await store.provider.now()
    here, there = await store.host(lease_seconds=60), await store.host(lease_seconds=5)
    peers = await share(store, here, 2, 0)
    assert peers.keys() == {here, there}
    assert (sorted(peers[here].partitions), sorted(peers[there].partitions)) == ([0, 2], [])
    assert peers[there].shared_at is None
    shared_at = peers[here].shared_at
    assert shared_at is not None
    assert shared_at >= before
    assert 5 < peers[here].lease_left <= 60
    assert 0 < peers[there].lease_left <= 5
    assert (await share(store, here, 2))[here].partitions == {2}
    await store.behind.lapse(there)
    assert (await share(store, here, 2)).keys() == {here}


@law("locking")
async def who_brings_no_programs_along_has_no_part_in_the_sharing(store: Store) -> None:
    here, client = await store.host(), uuid4()
    await store.provider.open_host(Host(host_id=client, app=APP, machine="here", process_id=2, lease_seconds=60))
    assert (await share(store, here, 0)).keys() == {here}


@law("locking")
async def hosts_that_come_and_go_and_what_they_take_are_hints(store: Store) -> None:
    here = await store.host()
    hints = store.provider.listen()
    assert await anext(hints) == "hosts"
    there = await store.host()
    assert await anext(hints) == "hosts"
    await share(store, here, 0)
    assert await anext(hints) == "hosts"
    await share(store, here, 0)
    await store.provider.close_host(there)
    assert await anext(hints) == "hosts"
    case = await store.waiting(here, "k", "Paid")
    await store.command(case.instance_id)
    assert await anext(hints) == "work"
    await hints.aclose()


@law("locking")
async def what_nobody_holds_is_left_to_whoever_consumes_its_partition(store: Store) -> None:
    here, there = await store.host(), await store.host()
    past = await store.provider.now() - timedelta(seconds=1)
    timed = await store.waiting(here, "k", due=past)
    mailed = await store.waiting(here, "l", "Paid")
    commanded = await store.waiting(here, "m", "Paid")
    for case in (timed, mailed, commanded):
        await let_go(store, case)
    await store.buffer(message("Paid", "l"))
    await store.command(commanded.instance_id)
    work = [("control", commanded.instance_id), ("timer", timed.instance_id), ("message", mailed.instance_id)]
    assert await runnable(store, there) == work
    await share(store, here, 0)
    assert await runnable(store, there) == []
    assert await store.provider.next_timer(there) is None
    assert await runnable(store, here) == work
    assert await store.provider.next_timer(here) == 0


@law("locking")
async def who_consumes_a_partition_too_finds_its_work(store: Store) -> None:
    here, there = await store.host(), await store.host()
    past = await store.provider.now() - timedelta(seconds=1)
    case = await store.waiting(here, "k", due=past)
    await let_go(store, case)
    await share(store, here, 0)
    await share(store, there, 0, 1)
    assert await runnable(store, there) == [("timer", case.instance_id)]


@law("locking")
async def the_work_of_a_partition_whose_consumers_lapsed_is_anybodys(store: Store) -> None:
    late, heir = await store.host(), await store.host()
    case = await store.register(late, "k")
    await store.commit(case.begin(reason="activity_completed"))
    await share(store, late, 0)
    await share(store, heir, 1)
    await store.behind.lapse(late)
    assert await runnable(store, heir) == [("lapsed", case.instance_id)]


@law("locking")
async def who_holds_an_instance_finds_its_work_whatever_it_consumes(store: Store) -> None:
    here, there = await store.host(), await store.host()
    past = await store.provider.now() - timedelta(seconds=1)
    timed = await store.waiting(here, "k", due=past)
    mailed = await store.waiting(here, "l", "Paid")
    await store.buffer(message("Paid", "l"))
    await share(store, there, 0)
    assert await runnable(store, here) == [("timer", timed.instance_id), ("message", mailed.instance_id)]
    assert await store.provider.next_timer(here) == 0
    assert await runnable(store, there) == []


@law("locking")
async def what_the_consumer_of_its_partition_leaves_lying_is_anybodys(store: Store) -> None:
    here, there = await store.host(), await store.host()
    past = await store.provider.now() - timedelta(seconds=40)
    timed = await store.waiting(here, "k", due=past)
    mailed = await store.waiting(here, "l", "Paid")
    commanded = await store.waiting(here, "m", "Paid")
    for case in (timed, mailed, commanded):
        await let_go(store, case)
    await store.buffer(message("Paid", "l"))
    await store.command(commanded.instance_id)
    await share(store, here, 0)
    assert await runnable(store, there) == [("timer", timed.instance_id)]
    await store.behind.age_messages(40)
    assert await runnable(store, there) == [
        ("control", commanded.instance_id),
        ("timer", timed.instance_id),
        ("message", mailed.instance_id),
    ]


@law("locking")
async def timers_that_are_held_back_are_found_by_nobody(store: Store) -> None:
    here, there = await store.host(), await store.host()
    now = await store.provider.now()
    left = await store.waiting(here, "k", due=now - timedelta(seconds=40))
    await let_go(store, left)
    held = await store.waiting(here, "l", due=now - timedelta(seconds=1))
    assert await store.provider.runnable(here, (), 10, [1, 0]) == []
    assert await store.provider.next_timer(here, [0]) is None
    assert await store.provider.next_timer(here, [1]) == 0
    await store.provider.share(here, {0: now}, [0])
    assert await runnable(store, there) == []
    assert await runnable(store, here) == [("timer", left.instance_id), ("timer", held.instance_id)]
    await store.provider.share(here, {0: now}, [])
    assert await runnable(store, there) == [("timer", left.instance_id)]


@law
async def a_stored_message_counts_from_its_arrival_and_keeps_its_partition(store: Store) -> None:
    host = await store.host()
    arrival = await store.provider.now() - timedelta(days=3)
    case = await store.waiting(host, "k", "Paid")
    start, paid = message("Placed", "l"), message("Paid", "k")
    await store.provider.take_in(
        [Intake(envelope=each, verdict="buffered", partition=3, arrived_at=arrival) for each in (start, paid)]
    )
    (woken,) = await store.provider.wakeups(host, [case.instance_id])
    assert [each.received_at for each in woken.messages] == [arrival]
    (found,) = [each for each in await store.provider.runnable(host, ["Placed"], 10) if each.message is not None]
    assert found.message is not None
    assert (found.message.envelope, found.message.received_at, found.message.partition) == (start, arrival, 3)
    assert await store.provider.expire(86400, 10) == 0


@law("locking")
async def a_stored_start_is_left_to_whoever_consumes_its_partition(store: Store) -> None:
    here, there = await store.host(), await store.host()
    start = message("Placed", "k")
    await store.provider.take_in([Intake(envelope=start, verdict="buffered", partition=3)])
    await share(store, here, 3)
    assert await runnable(store, there, "Placed") == []
    assert await runnable(store, here, "Placed") == [("start", start.message_id)]
    await store.behind.age_messages(40)
    assert await runnable(store, there, "Placed") == [("start", start.message_id)]
