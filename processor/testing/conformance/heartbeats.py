"""Heartbeats of activity workers, which keep a timer back."""

from __future__ import annotations

from holdfast.processor.engine.provider import Intake, RouteKind
from holdfast.processor.testing.conformance.harness import Case, Store, message
from holdfast.processor.testing.conformance.laws import law
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityResult

AT_ONCE = 1e-6
LATER = 1000.0


def beat(request: str, seconds: float) -> ActivityHeartbeat:
    return ActivityHeartbeat(request=request, seconds=seconds)


async def asking(store: Store, *requests: str) -> Case:
    """Bring an instance to where it waits for the results of requests."""
    case = await store.waiting(await store.host(), "k", "Paid")
    waits = [case.wait(ActivityResult.message_type, request, kind="activity") for request in requests]
    await store.commit(case.move(*waits))
    return case


async def answers(store: Store) -> dict[str, str]:
    """Return the verdicts of the failures that the store has deposited."""
    return {name: entry.verdict for name, entry in (await store.behind.inbox()).items() if name.endswith(":lost")}


@law
async def a_request_is_answered_with_a_failure_when_its_worker_falls_silent_and_only_then(store: Store) -> None:
    case = await asking(store, "slow", "dead", "queued")
    await store.provider.beat([beat("slow", AT_ONCE), beat("dead", LATER)])
    await store.provider.beat([beat("slow", LATER), beat("dead", AT_ONCE), beat("dead", AT_ONCE)])
    assert await store.provider.lapse(10) == 1
    assert await answers(store) == {"dead:lost": "buffered"}
    assert [r.instance_id for r in await store.provider.runnable(case.host_id, [], 10)] == [case.instance_id]
    (woken,) = await store.provider.wakeups(case.host_id, [case.instance_id])
    (stored,) = woken.messages
    result = ActivityResult.parse(stored.envelope)
    assert (result.request, result.outcome) == ("dead", "failed")
    assert await store.provider.lapse(10) == 0


@law
async def a_request_that_nobody_waits_for_is_neither_kept_nor_answered(store: Store) -> None:
    case = await asking(store, "answered")
    await store.provider.beat([beat("answered", AT_ONCE), beat("strange", AT_ONCE)])
    await store.commit(case.end())
    assert await store.provider.lapse(10) == 0
    assert await answers(store) == {}


@law
async def a_worker_that_falls_silent_again_answers_nothing_a_second_time(store: Store) -> None:
    await asking(store, "dead")
    for expected in (1, 1):
        await store.provider.beat([beat("dead", AT_ONCE)])
        assert await store.provider.lapse(10) == expected
    assert len(await answers(store)) == 1


@law
async def so_many_requests_are_given_up_at_a_time(store: Store) -> None:
    await asking(store, "a", "b", "c")
    await store.provider.beat([beat(name, AT_ONCE) for name in "abc"])
    assert [await store.provider.lapse(2), await store.provider.lapse(2), await store.provider.lapse(2)] == [2, 1, 0]


@law
async def a_stored_result_that_nobody_waits_for_any_more_is_too_late(store: Store) -> None:
    case = await asking(store, "asked")
    awaited, strange = (message(ActivityResult.message_type, key) for key in ("asked", "strange"))
    (found, lost) = await store.provider.take_in([Intake(envelope=e, verdict="buffered") for e in (awaited, strange)])
    assert (found.kind, lost.kind) == (RouteKind.BOOKMARK, RouteKind.NONE)
    await store.provider.runnable(case.host_id, [], 10)
    assert [await store.verdict(each) for each in (awaited, strange)] == ["buffered", "rejected: late"]
    await store.commit(case.end())
    await store.provider.runnable(case.host_id, [], 10)
    assert await store.verdict(awaited) == "rejected: late"
