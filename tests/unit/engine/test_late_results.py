"""Results of activities that come twice, too late or never."""

from dataclasses import replace
from datetime import timedelta

from holdfast.events.types import ActivityFailed, ActivityRequested
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.testing.host import Delivered
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest
from holdfast.schemas.errors import InvalidMessage
from tests.support.mailing import (
    Given,
    Hasty,
    Nudge,
    Retried,
    Timed,
    Watched,
    answer,
    begin,
    bounce,
    calls,
    envelope_of,
    fall,
    of_type,
    requests,
)


# Protocol: I17.
async def test_a_result_that_comes_twice_changes_nothing_the_second_time() -> None:
    world, host = await begin(Given)
    (request,) = requests(world)
    await answer(host, request, "first", "r1")
    again = await answer(host, request, "first", "r1")
    other = await answer(host, request, "second", "r2")
    assert again.acked
    assert other.acked
    assert world.state.result == "first"
    assert (world.verdict("r1"), world.verdict("r2")) == (("applied", None), ("rejected", "late"))


# Protocol: I17.
async def test_the_result_of_an_earlier_attempt_is_late() -> None:
    world, host = await begin(Retried)
    await bounce(host, requests(world)[0], "r1")
    await answer(host, requests(world)[0], "while it waits", "r2")
    await world.advance(10)
    await host.detect()
    assert len(requests(world)) == 2
    await answer(host, requests(world)[0], "while another runs", "r3")
    assert [world.verdict(name) for name in ("r2", "r3")] == [("rejected", "late")] * 2
    assert not world.row.is_completed
    await answer(host, requests(world)[1], "in time", "r4")
    assert world.state.result == "in time"


async def test_the_timeout_counts_from_the_request_and_what_comes_after_it_is_late() -> None:
    world, host = await begin(Timed)
    (request,) = requests(world)
    assert request.deadline == world.time + timedelta(seconds=30)
    assert request.args == [{"$tuple": [1, 2]}]
    await world.advance(31)
    await host.detect()
    assert "no result within 0:00:30" in world.state.result
    await answer(host, request, "printed", "r1")
    assert world.verdict("r1") == ("rejected", "late")


async def test_a_result_before_the_timeout_wins_though_both_are_seen_at_once() -> None:
    world, host = await begin(Timed)
    await fall(world, host)
    await world.advance(29)
    second = await world.host()
    await answer(second, requests(world)[0], "printed", "r1")
    await world.advance(60)
    await second.detect()
    assert world.state.result == "printed"


async def test_a_call_that_is_cancelled_is_recorded_and_its_result_is_late() -> None:
    world, host = await begin(Hasty)
    await host.deliver(Nudge(key="k"), "n")
    assert calls == ["cancelled"]
    cancelled = [e for e in await of_type(world, ActivityFailed) if e.activity == "mail"]
    assert len(cancelled) == 1
    assert world.state.calls == {}
    assert {b.kind for b in world.state.bookmarks.values()} == {"timer"}
    await answer(host, requests(world)[0], "sent", "r1")
    assert world.verdict("r1") == ("rejected", "late")


async def test_the_result_for_an_instance_that_was_terminated_is_late() -> None:
    world, host = await begin(Given)
    await host.command(world.instance_id, "terminate")
    await answer(host, requests(world)[0], "sent", "r1")
    assert world.verdict("r1") == ("rejected", "late")


async def test_a_suspended_instance_keeps_its_result() -> None:
    world, host = await begin(Given)
    await host.command(world.instance_id, "suspend")
    await answer(host, requests(world)[0], "sent", "r1")
    assert world.verdict("r1") == ("buffered", None)
    await host.command(world.instance_id, "resume")
    assert world.state.result == "sent"


async def test_a_result_that_was_stored_for_a_call_which_ended_meanwhile_is_late() -> None:
    world, host = await begin(Timed)
    await host.command(world.instance_id, "suspend")
    await answer(host, requests(world)[0], "printed", "r1")
    assert world.verdict("r1") == ("buffered", None)
    await host.command(world.instance_id, "terminate")
    await host.detect()
    assert world.verdict("r1") == ("rejected", "late")


async def test_a_request_that_the_broker_gave_up_is_a_dead_letter_and_a_failure_at_the_await() -> None:
    world, host = await begin(Given)
    (published,) = [m for m in world.published if m.type == ActivityRequest.message_type]
    delivered = Delivered()
    problem = InvalidMessage("delivery_limit", "the broker gave the message up")
    host.engine.deliver(
        Arrival(envelope=envelope_of(published), received_at=world.now(), settle=delivered.settle, problem=problem)
    )
    await world.rest()
    assert delivered.acked
    assert world.state.result == "lost: the request became a dead letter: delivery_limit"
    assert world.verdict(published.message_id) == ("dead_lettered", "delivery_limit")


# Protocol: D18.
async def test_a_worker_that_falls_silent_is_given_up_and_one_that_beats_is_not() -> None:
    world, host = await begin(Watched)
    (request,) = requests(world)
    assert request.heartbeat == 10
    await world.advance(3600)
    await host.detect()
    for number in range(3):
        delivered = await host.deliver(ActivityHeartbeat(request=request.request, seconds=10), f"h{number}")
        assert delivered.acked
        assert world.verdict(f"h{number}") is None
        await world.advance(9)
        await host.detect()
        assert not world.row.is_completed
    await world.advance(2)
    await host.detect()
    assert world.state.result == "lost: its worker fell silent"
    assert len(await of_type(world, ActivityRequested)) == 1
    await host.deliver(ActivityHeartbeat(request=request.request, seconds=10), "h9")
    assert world.store.tables.heartbeats == {}
    await answer(host, request, "copied", "r1")
    assert world.verdict("r1") == ("rejected", "late")


async def test_a_heartbeat_that_breaks_the_contract_is_a_dead_letter() -> None:
    world, host = await begin(Watched)
    envelope = ActivityHeartbeat(request="r", seconds=1).envelope("h")
    host.put(replace(envelope, body=b'{"request": "r", "seconds": 0}'))
    await world.rest()
    assert world.verdict("h") == ("dead_lettered", "invalid_body")
