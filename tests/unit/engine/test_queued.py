"""Activities on queues in the engine: requests, results, retries, and answers that come too late."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdfast.events.types import ActivityCompleted, ActivityDelayed, ActivityFailed, ActivityRequested, Persisted
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, receive
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import transaction
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult
from holdfast.schemas.errors import ActivityLost, Cancelled, InvalidMessage, ScopeError
from holdfast.schemas.message import Envelope, Message

app = App("mailing", types=(ActivityLost,))
calls: list[Any] = []


class Wanted(Message, correlation="key"):
    key: str


class Retried(Message, correlation="key"):
    key: str


class Timed(Message, correlation="key"):
    key: str


class Beside(Message, correlation="key"):
    key: str


class Both(Message, correlation="key"):
    key: str


class Given(Message, correlation="key"):
    key: str


class Hasty(Message, correlation="key"):
    key: str


class InMemory(Message, correlation="key"):
    key: str


class Enclosed(Message, correlation="key"):
    key: str


class Watched(Message, correlation="key"):
    key: str


class Unwritable(Message, correlation="key"):
    key: str


class Nudge(Message, correlation="key"):
    key: str


class Bounced(Exception):
    """The mail came back."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@app.activity(queue="mail")
async def mail(to: str, *, copies: int = 1) -> str:
    raise AssertionError("no worker of workflows runs it")


@app.activity(queue="mail", retry=Retry(attempts=3, delay=timedelta(seconds=10), factor=2, max_delay=timedelta(1)))
async def insist(to: str) -> str:
    raise AssertionError("no worker of workflows runs it")


@app.activity(queue="print", timeout=timedelta(seconds=30))
def print_out(pages: tuple[int, ...]) -> str:
    raise AssertionError("no worker of workflows runs it")


@app.activity(queue="mail")
async def pack(what: list[object]) -> None:
    raise AssertionError("no worker of workflows runs it")


@app.activity
async def here(name: str) -> str:
    calls.append(name)
    return name


@app.activity
async def fail() -> None:
    raise ValueError("no")


@app.workflow(start=Wanted)
async def wanted(start: Wanted) -> str:
    before = await here("before")
    sent = await mail(start.key, copies=2)
    return f"{before}, {sent}, {await here('after')}"


@app.workflow(start=InMemory, persistence="in_memory")
async def in_memory(start: InMemory) -> str:
    await here("before")
    sent = await mail(start.key)
    await here("after")
    return sent


@app.workflow(start=Retried)
async def retried(start: Retried) -> str:
    try:
        return await insist(start.key)
    except Bounced as error:
        return f"bounced: {error}"


@app.workflow(start=Timed)
async def timed(start: Timed) -> str:
    try:
        return await print_out((1, 2))
    except TimeoutError as error:
        return str(error)


@app.workflow(start=Beside)
async def beside(start: Beside) -> list[str]:
    return list(await gather(here("one"), mail("two"), here("three")))


@app.workflow(start=Both)
async def both(start: Both) -> list[object]:
    return list(await gather(receive(Nudge, start.key), mail("a"), mail("b")))


@routine
async def patient(to: str) -> str:
    try:
        return await mail(to)
    except Cancelled:
        calls.append("cancelled")
        raise


@app.workflow(start=Hasty)
async def hasty(start: Hasty) -> str:
    try:
        await gather(patient("slow"), receive_and_fail(start.key))
    except ValueError:
        await delay(timedelta(hours=1))
    return "gave up"


@routine
async def receive_and_fail(key: str) -> None:
    await receive(Nudge, key)
    await fail()


@app.workflow(start=Given)
async def given(start: Given) -> str:
    try:
        return await mail(start.key)
    except ActivityLost as error:
        return f"lost: {error}"


@app.workflow(start=Enclosed)
async def enclosed(start: Enclosed) -> str:
    try:
        async with transaction():
            return await patient_in_there(start.key)
    except ScopeError as error:
        return str(error)


@app.activity(queue="copy", heartbeat=timedelta(seconds=10))
async def copy(what: str) -> str:
    raise AssertionError("no worker of workflows runs it")


@app.workflow(start=Watched)
async def watched(start: Watched) -> str:
    try:
        return await copy(start.key)
    except ActivityLost as error:
        return f"lost: {error}"


@app.workflow(start=Unwritable)
async def unwritable(start: Unwritable) -> None:
    await pack([object()])


@routine
async def patient_in_there(to: str) -> str:
    return await mail(to)


def requests(world: World) -> list[ActivityRequest]:
    """Return what activity workers were asked for, in order; each once, however often it was published."""
    rows = {row.message.message_id: row.message for row in world.store.tables.outbox.values()}
    return [ActivityRequest.parse(envelope_of(m)) for m in rows.values() if m.type == ActivityRequest.message_type]


def envelope_of(message: Outgoing) -> Envelope:
    return Envelope(message_id=message.message_id, type=message.type, key=message.key, body=message.body)


async def answer(host: SimulatedHost, request: ActivityRequest, value: Any, message_id: str) -> Delivered:
    result = ActivityResult(request=request.request, outcome="completed", result=value)
    return await host.deliver(result, message_id)


async def bounce(host: SimulatedHost, request: ActivityRequest, message_id: str) -> Delivered:
    error = {"$exception": f"{__name__}:Bounced", "args": [message_id]}
    return await host.deliver(ActivityResult(request=request.request, outcome="failed", error=error), message_id)


async def of_type(world: World, kind: type[Any]) -> list[Any]:
    return [each.event for each in await world.events() if isinstance(each.event, kind)]


async def fall(world: World, host: SimulatedHost) -> None:
    """Let a host die, and its lease with it."""
    await host.die()
    world.store.tables.hosts.pop(host.runtime.host_id)


async def begin(kind: Callable[..., Message]) -> tuple[World, SimulatedHost]:
    world = World(app)
    host = await world.host()
    await host.deliver(kind(key="k"), "m0")
    return world, host


async def test_a_call_is_a_message_to_its_queue_and_its_result_goes_on_at_the_await() -> None:
    world, host = await begin(Wanted)
    (request,) = requests(world)
    (published,) = [m for m in world.published if m.type == ActivityRequest.message_type]
    assert (published.exchange, published.routing_key) == ("holdfast.mailing.activities", "mail")
    assert published.key == published.message_id == request.request
    assert (request.activity, request.args, request.kwargs) == ("mail", ["k"], {"copies": 2})
    assert (request.workflow, request.instance_id, request.attempt) == ("wanted", world.instance_id, 1)
    assert (request.reply_to, request.deadline, request.heartbeat) == ("holdfast.mailing", None, None)
    assert world.row.status == "idle"
    delivered = await answer(host, request, "sent", "r1")
    assert delivered.acked
    assert world.state.result == "before, sent, after"
    (done,) = [e for e in await of_type(world, ActivityCompleted) if e.activity == "mail"]
    assert (done.idempotency_key, done.attempts) == (request.call, 1)
    assert world.verdict("r1") == ("applied", None)


async def test_the_intent_is_a_transaction_of_its_own_and_so_is_what_follows_the_result() -> None:
    world, host = await begin(Wanted)
    await answer(host, requests(world)[0], "sent", "r1")
    assert await world.commits() == ["activity_intent", "activity_completed", "completed"]
    world, host = await begin(InMemory)
    await answer(host, requests(world)[0], "sent", "r1")
    assert await world.commits() == ["activity_intent", "completed"]


async def test_the_call_waits_through_the_death_of_its_host() -> None:
    world, host = await begin(Wanted)
    await fall(world, host)
    assert {call.status for call in world.state.calls.values()} == {"requested"}
    second = await world.host()
    await second.detect()
    assert len(requests(world)) == 1
    await answer(second, requests(world)[0], "sent", "r1")
    assert world.state.result == "before, sent, after"
    assert calls == ["before", "after"]


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


async def test_an_attempt_that_failed_is_requested_again_after_a_wait_that_a_restart_does_not_shorten() -> None:
    world, host = await begin(Retried)
    await bounce(host, requests(world)[0], "r1")
    (delayed,) = await of_type(world, ActivityDelayed)
    assert (delayed.attempts, world.row.status) == (1, "idle")
    await fall(world, host)
    await world.advance(9)
    second = await world.host()
    await second.detect()
    assert len(requests(world)) == 1
    await world.advance(30)
    await second.detect()
    first, again = requests(world)
    assert (first.call, first.attempt + 1) == (again.call, again.attempt)
    assert first.request != again.request
    await answer(second, again, "at last", "r2")
    assert world.state.result == "at last"
    (done,) = await of_type(world, ActivityCompleted)
    assert done.attempts == 2


async def test_the_last_failure_is_raised_as_the_exception_that_it_was() -> None:
    world, host = await begin(Retried)
    for attempt in (1, 2, 3):
        await bounce(host, requests(world)[-1], f"r{attempt}")
        await world.advance(20)
        await host.detect()
    assert world.state.result == "bounced: r3"
    assert [e.attempt for e in await of_type(world, ActivityRequested)] == [1, 2, 3]
    (failed,) = await of_type(world, ActivityFailed)
    assert failed.attempts == 3


async def test_an_error_that_the_policy_does_not_name_is_not_retried() -> None:
    strict = App("strict")

    @strict.activity(queue="mail", retry=Retry(attempts=3, on=(OSError,)))
    async def post(to: str) -> None: ...

    assert post.retry.tries_again(1, OSError())
    assert not post.retry.tries_again(1, ValueError())


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


async def test_what_runs_here_does_not_hold_up_a_request_beside_it() -> None:
    world, host = await begin(Beside)
    assert (await world.commits())[0] == "activity_intent"
    assert calls == ["one", "three"]
    await answer(host, requests(world)[0], "two", "r1")
    assert world.state.result == ["one", "two", "three"]


async def test_requests_and_waits_side_by_side_share_one_commit() -> None:
    world, host = await begin(Both)
    assert await world.commits() == ["activity_intent"]
    last = (await of_type(world, Persisted))[-1]
    assert last.idle
    second, first = reversed(requests(world))
    await answer(host, second, "B", "r2")
    await host.deliver(Nudge(key="k"), "n")
    await answer(host, first, "A", "r1")
    assert world.row.is_completed
    assert [tree if isinstance(tree, str) else tree["$object"] for tree in world.state.result] == [
        f"{__name__}:Nudge",
        "A",
        "B",
    ]


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


async def test_a_call_inside_a_transaction_is_refused() -> None:
    world, _ = await begin(Enclosed)
    assert "mail(), which is on a queue, inside a transaction" in world.state.result
    assert requests(world) == []


async def test_arguments_that_have_no_stored_form_suspend_the_instance() -> None:
    world, _ = await begin(Unwritable)
    assert world.row.suspension_exception_name == "holdfast.schemas.errors.NotPersistable"
    assert requests(world) == []


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
