"""The trace context of messages on its way through an instance, with spans and without."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from holdfast.processor.engine.activities import activity_context
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, first_of, receive, send
from holdfast.processor.language.subflows import start
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message
from tests.support.spans import Spans, links, parent, traceparent

app = App("traced")
given: list[str | None] = []

PLACED = "00-11111111111111111111111111111111-1111111111111111-01"
PAID = "00-22222222222222222222222222222222-2222222222222222-01"


class Placed(Message, correlation="key"):
    key: str
    fate: str = ""


class Paid(Message, correlation="key"):
    key: str


class Billed(Message, correlation="key"):
    key: str


class Sent(Message, correlation="key"):
    key: str


class Ended(Message, correlation="key"):
    key: str


@app.activity(retry=Retry(attempts=2, delay=timedelta(0)))
async def reserve(fate: str) -> None:
    given.append(activity_context().traceparent)
    if fate == "stumble" and activity_context().attempt == 1:
        raise ValueError("not yet")


@app.activity
def pack() -> None:
    given.append(activity_context().traceparent)


@app.activity(queue="mail")
async def mail() -> None:
    raise AssertionError("no worker of workflows runs it")


@app.workflow(start=Billed)
async def bill(billed: Billed) -> None:
    await pack()


@app.workflow(start=Placed)
async def order(placed: Placed) -> None:
    await reserve(placed.fate)
    await send(Sent(key=placed.key))
    if placed.fate == "fail":
        raise ValueError(placed.key)
    if placed.fate == "bill":
        await start(bill, Billed(key=placed.key))
    if placed.fate == "mail":
        await mail()
    await first_of(paid=receive(Paid, placed.key), late=delay(timedelta(days=3)))
    await pack()
    await send(Ended(key=placed.key))


@pytest.fixture(autouse=True)
def _nothing_given() -> None:
    given.clear()


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    with spans.collecting():
        yield spans


def sent(world: World) -> dict[str, str | None]:
    """Return the trace context of each message that was sent, by its type."""
    return {message.type: message.traceparent for message in world.published}


async def started(fate: str = "", carried: str | None = PLACED) -> tuple[World, SimulatedHost]:
    """Start an order whose message carries a trace context."""
    world = World(app)
    host = await world.host()
    host.put(Placed(key="k", fate=fate).envelope("m-1", carried))
    await world.rest()
    return world, host


async def pay(world: World, host: SimulatedHost) -> None:
    host.put(Paid(key="k").envelope("m-2", PAID))
    await world.rest()


async def wait_in_vain(world: World, host: SimulatedHost) -> None:
    await world.advance(4 * 86_400)
    await host.detect()


async def test_without_an_sdk_a_trace_context_goes_on_unchanged() -> None:
    world, host = await started()
    assert host.runtime.tracer is None
    await pay(world, host)
    assert world.state.outcome == "completed"
    assert given == [PLACED, PAID]
    assert sent(world) == {"Sent": PLACED, "Ended": PAID}
    carried = [recorded.metadata["traceparent"] for recorded in await world.events()]
    assert carried == sorted(carried)
    assert {*carried} == {PLACED, PAID}


async def test_without_an_sdk_a_timer_goes_on_with_that_of_the_start() -> None:
    world, host = await started()
    await wait_in_vain(world, host)
    assert given == [PLACED, PLACED]
    assert sent(world) == {"Sent": PLACED, "Ended": PLACED}


async def test_without_an_sdk_a_request_and_a_subflow_carry_it_too() -> None:
    world, _ = await started("mail")
    assert sent(world)["holdfast.ActivityRequest"] == PLACED
    given.clear()
    await started("bill")
    assert given == [PLACED, PLACED]


async def test_where_there_is_no_trace_there_is_none() -> None:
    world, _ = await started(carried=None)
    assert given == [None]
    assert sent(world) == {"Sent": None}


async def test_what_is_no_trace_context_is_in_nobodys_way(spans: Spans) -> None:
    await started(carried="nonsense")
    burst = spans.one("process holdfast.traced")
    assert (parent(burst), links(burst)) == (None, [])


async def test_a_burst_is_part_of_the_trace_of_the_message_that_woke_it(spans: Spans) -> None:
    await started()
    burst = spans.one("process holdfast.traced")
    assert burst.kind is SpanKind.CONSUMER
    assert parent(burst) == PLACED
    # For each message that it is about, a span has a link, whoever its parent is.
    assert links(burst) == [PLACED]
    assert dict(burst.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "holdfast.traced",
        "messaging.message.id": "m-1",
        "messaging.message.conversation_id": "k",
        "holdfast.message_type": "Placed",
        "holdfast.app": "traced",
        "holdfast.workflow": "order",
        "holdfast.instance_id": (burst.attributes or {})["holdfast.instance_id"],
    }


async def test_activities_and_messages_are_part_of_the_burst(spans: Spans) -> None:
    world, _ = await started()
    burst, activity = spans.one("process holdfast.traced"), spans.one("activity reserve")
    created = spans.one("create holdfast.traced.out:Sent")
    assert parent(activity) == parent(created) == traceparent(burst)
    assert created.kind is SpanKind.PRODUCER
    assert given == [traceparent(activity)]
    assert sent(world) == {"Sent": traceparent(created)}


async def test_each_attempt_has_its_span(spans: Spans) -> None:
    await started("stumble")
    first, second = spans.all("activity reserve")
    assert [(span.attributes or {})["holdfast.attempt"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert first.events[0].name == "exception"
    assert parent(first) == parent(second)


async def test_a_later_message_is_of_its_own_trace_and_linked_with_the_start(spans: Spans) -> None:
    world, host = await started()
    await pay(world, host)
    burst = spans.all("process holdfast.traced")[1]
    assert parent(burst) == PAID
    assert links(burst) == [PAID, PLACED]
    assert parent(spans.one("activity pack")) == traceparent(burst)


async def test_a_timer_begins_a_trace_that_is_linked_with_the_start(spans: Spans) -> None:
    world, host = await started()
    await wait_in_vain(world, host)
    burst = spans.one("burst order")
    assert burst.kind is SpanKind.INTERNAL
    assert parent(burst) is None
    assert links(burst) == [PLACED]
    assert sent(world)["Ended"] == traceparent(spans.one("create holdfast.traced.out:Ended"))
    assert parent(spans.one("create holdfast.traced.out:Ended")) == traceparent(burst)


async def test_a_subflow_and_its_end_stay_in_the_trace(spans: Spans) -> None:
    await started("bill")
    bursts = spans.all("process holdfast.traced")
    assert [(span.attributes or {})["holdfast.workflow"] for span in bursts] == ["order", "bill", "order"]
    first, child, second = bursts
    assert (parent(child), parent(second)) == (traceparent(first), traceparent(child))
    assert {span.context.trace_id for span in bursts} == {int("1" * 32, 16)}


async def test_a_request_is_made_in_the_burst(spans: Spans) -> None:
    world, _ = await started("mail")
    created = spans.one("create holdfast.traced.activities:mail")
    assert parent(created) == traceparent(spans.one("process holdfast.traced"))
    assert sent(world)["holdfast.ActivityRequest"] == traceparent(created)


async def test_a_burst_that_fails_says_so(spans: Spans) -> None:
    await started("fail")
    burst = spans.one("process holdfast.traced")
    assert burst.status.status_code is StatusCode.ERROR
