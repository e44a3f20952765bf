"""One trace from the publisher over RabbitMQ to the workflow, its activities near and far, and what it sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from holdfast.processor import worker
from holdfast.processor.client import Client
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import send
from holdfast.processor.services import activity_worker
from holdfast.processor.tracing import from_process_environment
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings
from tests.support.broker import PATIENCE, Broker, Inbox, library, running_broker
from tests.support.spans import Spans, links, parent, traceparent

app = App("test-traces")
APP = "holdfast.test-traces"
OUT = "test-traces-out"
GIVEN = "00-11111111111111111111111111111111-1111111111111111-01"


class Placed(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str


@app.activity
async def reserve() -> None:
    """Do nothing."""


@app.activity(queue="mail")
async def mail(key: str) -> str:
    return key


@app.workflow(start=Placed)
async def order(placed: Placed) -> None:
    await reserve()
    await mail(placed.key)
    await send(Shipped(key=placed.key))


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Run a worker and an activity worker of the app."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve(app, settings, stop=stop))
        group.create_task(activity_worker.serve(app, (), settings, stop=stop))
        try:
            yield
        finally:
            stop.set()


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[Broker]:
    async with running_broker(amqp_url, app.name, activities=("mail",)) as broker:
        async with library(broker.connection) as channel:
            await channel.queue_declare(OUT, durable=True)
            await channel.queue_bind(OUT, broker.topology.out, routing_key="#")
        yield broker
        async with library(broker.connection) as channel:
            await channel.queue_delete(OUT)


async def shipped(broker: Broker, publish: Envelope, settings: Settings) -> Envelope:
    """Publish an order, and return the message that it sends in the end."""
    out = Inbox()
    async with (
        serving(settings),
        broker.consume_queue(out, OUT),
        Client(amqp_url=settings.amqp_url, app=app.name) as client,
        asyncio.timeout(PATIENCE),
    ):
        await client.publish_all([publish])
        (delivery,) = await out.until(1)
    assert delivery.envelope is not None
    return delivery.envelope


@pytest.fixture
def settings(database_url: str, amqp_url: str) -> Settings:
    return Settings(database_url=database_url, amqp_url=amqp_url, runnable_detection=0.2)


async def test_there_is_one_trace_from_the_publisher_to_what_is_sent(broker: Broker, settings: Settings) -> None:
    spans = Spans()
    with spans.collecting(), spans.tracer.start_as_current_span("web request"):
        message = await shipped(broker, Placed(key="k").envelope("m-1"), settings)
    request = spans.one("web request")
    # The activity worker's answer goes to the same exchange as what the publisher publishes.
    publish, answer = sorted(spans.all(f"send {APP}"), key=lambda span: span.start_time or 0)
    first, second = spans.all(f"process {APP}")
    asked = spans.one(f"create {APP}.activities:mail")
    served = spans.one(f"process {APP}.activities:mail")
    created = spans.one(f"create {APP}.out:Shipped")
    chain = [request, publish, first, asked, served, answer, second, created]
    assert [parent(span) for span in chain[1:]] == [traceparent(span) for span in chain[:-1]]
    assert {span.context.trace_id for span in chain} == {request.context.trace_id}
    assert parent(spans.one("activity reserve")) == traceparent(first)
    assert parent(spans.one("activity mail")) == traceparent(served)
    assert message.traceparent == traceparent(created)
    relayed = spans.one(f"send {APP}.out:Shipped")
    assert (relayed.kind, parent(relayed)) == (SpanKind.CLIENT, traceparent(created))
    assert links(first) == [traceparent(publish)]
    assert links(second) == [traceparent(answer), traceparent(publish)]


async def test_a_trace_context_of_the_publishers_own_is_kept(broker: Broker, settings: Settings) -> None:
    spans = Spans()
    with spans.collecting():
        await shipped(broker, Placed(key="k").envelope("m-1", GIVEN), settings)
    first = spans.all(f"process {APP}")[0]
    assert parent(first) == GIVEN
    assert f"{first.context.trace_id:032x}" == "1" * 32


async def test_without_an_sdk_there_are_no_spans_and_the_context_goes_all_the_way(
    broker: Broker, settings: Settings
) -> None:
    message = await shipped(broker, Placed(key="k").envelope("m-1", GIVEN), settings)
    assert message.traceparent == GIVEN
    assert not trace.get_current_span().is_recording()


async def test_without_an_sdk_the_client_gives_on_what_is_current(
    broker: Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    with from_process_environment():
        message = await shipped(broker, Placed(key="k").envelope("m-1"), settings)
    assert message.traceparent == GIVEN
