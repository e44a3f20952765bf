"""Activities on queues in the engine: requests, results and retries."""

import copy
from datetime import date
from decimal import Decimal

import pytest

from holdfast.events.types import ActivityCompleted, ActivityDelayed, ActivityFailed, ActivityRequested, Persisted
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.schemas.activity_messages import ActivityRequest
from holdfast.schemas.errors import AppError
from tests.support.mailing import (
    Beside,
    Both,
    Enclosed,
    InMemory,
    Nudge,
    Retried,
    Unwritable,
    Wanted,
    Weighed,
    Weight,
    answer,
    app,
    begin,
    bounce,
    calls,
    fall,
    of_type,
    requests,
)


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
        f"{Nudge.__module__}:Nudge",
        "A",
        "B",
    ]


async def test_a_call_inside_a_transaction_is_refused() -> None:
    world, _ = await begin(Enclosed)
    assert "mail(), which is on a queue, inside a transaction" in world.state.result
    assert requests(world) == []


async def test_arguments_that_have_no_stored_form_suspend_the_instance() -> None:
    world, _ = await begin(Unwritable)
    assert world.row.suspension_exception_name == "holdfast.schemas.errors.NotPersistable"
    assert requests(world) == []


async def test_plain_json_becomes_what_the_activity_says_it_returns() -> None:
    world, host = await begin(Weighed)
    await answer(host, requests(world)[0], {"grams": "12.50", "on": "2026-03-04"}, "r1")
    assert world.state.result == f"{Weight(Decimal('12.50'), date(2026, 3, 4))}"


async def test_plain_json_that_does_not_fit_is_a_failure_that_says_so() -> None:
    world, host = await begin(Weighed)
    await answer(host, requests(world)[0], {"grams": "heavy"}, "r1")
    assert "the result is not what activity weigh returns" in world.state.result


async def test_a_result_that_names_an_unknown_type_is_a_failure_that_says_so() -> None:
    world, host = await begin(Weighed)
    await answer(host, requests(world)[0], {"$object": "scales:Weight"}, "r1")
    assert "scales:Weight" in world.state.result


async def test_a_call_that_was_requested_waits_though_its_activity_is_on_no_queue_any_more() -> None:
    world, host = await begin(Both)
    await fall(world, host)
    moved = copy.copy(app)
    moved.activities = {**app.activities, "mail": copy.copy(app.activities["mail"])}
    moved.activities["mail"].queue = None
    world.app = moved
    second = await world.host()
    await second.deliver(Nudge(key="k"), "n")
    assert not world.row.is_completed
    for number, request in enumerate(requests(world)):
        await answer(second, request, f"{number}", f"r{number}")
    assert world.state.result[1:] == ["0", "1"]


def test_what_must_not_run_twice_cannot_be_on_a_queue() -> None:
    with pytest.raises(AppError, match="cannot be on a queue: RabbitMQ may deliver a request twice"):
        App("strict").activity(queue="mail", repeatable=False)(noop)


async def noop() -> None:
    """Do nothing."""
