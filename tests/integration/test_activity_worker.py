"""Activity workers on a real broker: what they answer, and what becomes of requests when they cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from holdfast.processor.broker.dead import read_death
from holdfast.processor.broker.frames import REPLAYED
from holdfast.processor.broker.publisher import Fate
from holdfast.processor.broker.topology import declare_activities
from holdfast.processor.engine.activities import activity_context
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.language.app import App
from holdfast.processor.services.activity_worker import ActivityWorker, serve
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Envelope
from holdfast.schemas.settings import Settings
from holdfast.schemas.values import decode
from tests.support.broker import PATIENCE, Broker, Inbox, connect, dice, eventually, running_broker

INSTANCE = UUID("0199c1a2-0000-7000-8000-000000000000")


class Bounced(Exception):
    """The mail came back."""


@dataclass
class Office:
    """An app whose activities do as a test says."""

    app: App
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    runs: list[str] = field(default_factory=list)


@pytest.fixture
def office(app_name: str) -> Office:
    app = App(app_name, types=(Bounced,))
    office = Office(app)

    @app.activity(queue="mail")
    async def mail(to: str, *, amount: Decimal = Decimal(0)) -> Decimal:
        office.runs.append(activity_context().idempotency_key)
        return amount + 1

    @app.activity(queue="mail")
    def stamp(count: int) -> tuple[int, str]:
        return count, "stamps"

    @app.activity(queue="mail")
    async def bounce(to: str) -> None:
        raise Bounced(to)

    @app.activity(queue="mail")
    async def queue_up(name: str) -> str:
        office.runs.append(name)
        office.begun.set()
        await office.may_end.wait()
        return name

    @app.activity(queue="mail")
    async def flood(size: int) -> str:
        return "x" * size

    @app.activity(queue="mail")
    async def hand_out() -> object:
        return object()

    @app.activity(queue="print")
    async def print_out() -> str:
        return "printed"

    @app.activity
    async def here() -> None:
        raise AssertionError("it is on no queue")

    return office


def request(activity: str, *args: Any, number: int = 1, **about: Any) -> ActivityRequest:
    return ActivityRequest(
        request=f"{INSTANCE}:{number}:0",
        activity=activity,
        args=list(args),
        call=f"{INSTANCE}/0/1/1/{activity}",
        attempt=1,
        instance_id=INSTANCE,
        workflow="posting",
        **{"reply_to": "", **about},
    )


class Desk:
    """Where a test asks for activities and hears of them."""

    def __init__(self, office: Office, broker: Broker, answers: Inbox, settings: Settings) -> None:
        self.office = office
        self.broker = broker
        self.answers = answers
        self.settings = settings
        self.queue = broker.topology.activity_queue("mail")

    async def ask(self, wanted: ActivityRequest, queue: str = "mail") -> None:
        filled = wanted.model_copy(update={"reply_to": self.broker.topology.exchange})
        await self.publish(filled.envelope(filled.request), queue)

    async def publish(self, envelope: Envelope, queue: str = "mail") -> None:
        receipt = await self.broker.publisher.publish(self.broker.topology.activity_exchange, queue, envelope)
        assert receipt.fate is Fate.CONFIRMED

    async def results(self, count: int) -> list[ActivityResult]:
        """Wait for that many results in all; heartbeats are passed over."""
        number = count
        while True:
            deliveries = await self.answers.until(number)
            envelopes = [delivery.envelope for delivery in deliveries if delivery.envelope is not None]
            found = [ActivityResult.parse(e) for e in envelopes if e.type == ActivityResult.message_type]
            if len(found) >= count:
                return found
            number = len(deliveries) + 1

    @asynccontextmanager
    async def worker(self, *queues: str, **settings: Any) -> AsyncIterator[asyncio.Event]:
        """Run an activity worker; it is told to stop at the end, or by the event."""
        stop = asyncio.Event()
        own = self.settings.model_copy(update=settings)
        task = asyncio.create_task(serve(self.office.app, queues, own, stop=stop))
        try:
            yield stop
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await task

    async def value(self, wanted: ActivityRequest) -> Any:
        """Have an activity done; return its value, or raise its error as the workflow would see it."""
        await self.ask(wanted)
        result = (await self.results(1))[-1]
        assert result.request == wanted.request
        tree = result.result if result.outcome == "completed" else result.error
        value = decode({"value": tree}, self.office.app.types)["value"]
        if result.outcome == "failed":
            assert isinstance(value, BaseException)
            raise value
        return value


@pytest.fixture
async def desk(office: Office, amqp_url: str, app_name: str) -> AsyncIterator[Desk]:
    answers = Inbox()
    queues = office.app.activity_queues
    async with running_broker(amqp_url, app_name, activities=queues) as broker, broker.consume(answers):
        yield Desk(office, broker, answers, Settings(amqp_url=amqp_url))


async def test_arguments_and_results_keep_their_types(desk: Desk) -> None:
    async with desk.worker("mail"):
        wanted = request("mail", "ann", kwargs={"amount": {"$decimal": "7.99"}})
        assert await desk.value(wanted) == Decimal("8.99")
        assert desk.office.runs == [wanted.call]


async def test_a_plain_function_runs_too(desk: Desk) -> None:
    async with desk.worker("mail"):
        assert await desk.value(request("stamp", 3)) == (3, "stamps")


async def test_an_exception_comes_back_as_it_was(desk: Desk) -> None:
    async with desk.worker("mail"):
        with pytest.raises(Bounced, match="ann"):
            await desk.value(request("bounce", "ann"))


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        (request("nothing"), Exception, "has no activity 'nothing' on a queue"),
        (request("here"), Exception, "has no activity 'here' on a queue"),
        (request("mail", {"$decimal": "no number"}), Exception, "cannot be read"),
        (request("mail", "ann", 2, 3), TypeError, "positional argument"),
        (request("flood", 2000), Exception, "at most 1000 are allowed"),
        (request("hand_out"), Exception, "cannot be persisted"),
        (request("mail", "a", deadline=datetime.now(UTC) - timedelta(1)), TimeoutError, "did not end by"),
        (request("queue_up", "a", deadline=datetime.now(UTC) + timedelta(seconds=1)), TimeoutError, "did not end by"),
    ],
    ids=["unknown", "not on a queue", "damaged", "wrong arguments", "too large", "no stored form", "late", "too slow"],
)
async def test_what_cannot_be_done_is_a_failure_that_says_why(
    desk: Desk, wanted: ActivityRequest, error: type[Exception], said: str
) -> None:
    if wanted.deadline is not None and wanted.deadline > datetime.now(UTC) - timedelta(hours=1):
        wanted = wanted.model_copy(update={"deadline": datetime.now(UTC) + timedelta(milliseconds=300)})
    async with desk.worker("mail", max_body_bytes=1000):
        with pytest.raises(error, match=said):
            await desk.value(wanted)
    assert await desk.broker.waiting(desk.queue) == 0


async def test_what_is_no_request_ends_in_the_dead_letters(desk: Desk) -> None:
    dead = Inbox()
    strange = Envelope(message_id="m", type="Paid", key="k", body=b"{}")
    damaged = Envelope(message_id="n", type=ActivityRequest.message_type, key="n", body=b'{"request": "n"}')
    async with desk.worker("mail"), desk.broker.consume_queue(dead, desk.broker.topology.dead):
        for envelope in (strange, damaged):
            await desk.publish(envelope)
        deliveries = await dead.until(2)
        assert {(d.properties.message_id, read_death(d.properties).reason) for d in deliveries} == {
            ("m", "rejected"),
            ("n", "rejected"),
        }
        assert await desk.value(request("stamp", 1)) == (1, "stamps")


# Protocol: I23.
async def test_a_request_that_is_published_again_as_history_is_done_by_nobody(desk: Desk) -> None:
    dead = Inbox()
    wanted = request("mail", "ann").model_copy(update={"reply_to": desk.broker.topology.exchange})
    async with desk.worker("mail"), desk.broker.consume_queue(dead, desk.broker.topology.dead):
        sent = await desk.broker.publisher.send(
            desk.broker.topology.activity_exchange, "mail", wanted.envelope(wanted.request), headers={REPLAYED: "july"}
        )
        assert (await sent).fate is Fate.CONFIRMED
        (given_up,) = await dead.until(1)
        assert given_up.properties.is_replayed
        # What came behind it is done, and nothing was before.
        assert await desk.value(request("stamp", 1, number=2)) == (1, "stamps")
    assert desk.office.runs == []
    assert len(desk.answers.deliveries) == 1


# Protocol: D17.
async def test_a_request_is_served_again_by_another_when_its_worker_is_lost(desk: Desk) -> None:
    async with desk.worker("mail", shutdown_grace=0):
        await desk.ask(request("queue_up", "a"))
        await desk.office.begun.wait()
    desk.office.may_end.set()
    async with desk.worker("mail"):
        (result,) = await desk.results(1)
    assert result.result == "a"
    assert desk.office.runs == ["a", "a"]
    assert await desk.broker.waiting(desk.queue) == 0


async def test_a_worker_that_is_told_to_stop_ends_what_it_began_and_begins_nothing(desk: Desk) -> None:
    async with desk.worker("mail", activity_prefetch=1) as stop:
        await desk.ask(request("queue_up", "first"))
        await desk.office.begun.wait()
        await desk.ask(request("queue_up", "second", number=2))
        stop.set()
        desk.office.may_end.set()
    (result,) = await desk.results(1)
    assert result.result == "first"
    assert desk.office.runs == ["first"]
    assert await desk.broker.waiting(desk.queue) == 1


async def test_prefetch_bounds_how_many_are_done_at_a_time(desk: Desk) -> None:
    async with desk.worker("mail", activity_prefetch=2):
        for number in range(3):
            await desk.ask(request("queue_up", f"{number}", number=number))
        while len(desk.office.runs) < 2:
            desk.office.begun.clear()
            await desk.office.begun.wait()
        assert await desk.broker.waiting(desk.queue) == 1
        desk.office.may_end.set()
        await desk.results(3)
    assert sorted(desk.office.runs) == ["0", "1", "2"]


async def test_a_lost_connection_neither_stops_nor_doubles_what_runs(desk: Desk, amqp_url: str) -> None:
    async with connect(amqp_url) as connection:
        worker = ActivityWorker(
            desk.office.app,
            "mail",
            connection,
            desk.broker.publisher,
            environment=RealEnvironment(),
            settings=desk.settings,
            random=dice(),
        )
        async with worker:
            await desk.ask(request("queue_up", "a"))
            await desk.office.begun.wait()
            (job,) = worker._jobs.values()
            first = job.delivery
            assert connection._writer is not None
            connection._writer.transport.abort()
            await eventually(lambda: job.delivery is not first)
            desk.office.may_end.set()
            (result,) = await desk.results(1)
            await worker.drain()
    assert job.delivery.redelivered
    assert result.result == "a"
    assert desk.office.runs == ["a"]
    assert await desk.broker.waiting(desk.queue) == 0


async def test_a_worker_that_is_busy_says_so_again_and_again(desk: Desk) -> None:
    async with desk.worker("mail"):
        await desk.ask(request("queue_up", "a", heartbeat=0.03))
        deliveries = await desk.answers.until(3)
        beats = [json.loads(delivery.body) for delivery in deliveries]
        assert beats == [{"request": f"{INSTANCE}:1:0", "seconds": 0.03}] * 3
        assert {d.properties.type for d in deliveries} == {ActivityHeartbeat.message_type}
        desk.office.may_end.set()
        await desk.results(1)
        heard = len(desk.answers.deliveries)
        await desk.ask(request("stamp", 1, number=2))
        await desk.results(2)
        assert len(desk.answers.deliveries) == heard + 1


async def test_one_worker_serves_all_queues_of_the_app_unless_it_is_told_which(desk: Desk) -> None:
    async with desk.worker():
        await desk.ask(request("print_out"), "print")
        await desk.ask(request("stamp", 1, number=2))
        assert {str(result.result) for result in await desk.results(2)} == {"printed", "{'$tuple': [1, 'stamps']}"}


async def test_a_queue_that_no_activity_is_on_is_refused(desk: Desk) -> None:
    with pytest.raises(AppError, match="no activity on queue 'male'; it has mail, print"):
        await serve(desk.office.app, ["male"], desk.settings, stop=asyncio.Event())


async def test_declaring_the_queues_again_changes_nothing(desk: Desk) -> None:
    await desk.ask(request("stamp", 1))
    await declare_activities(desk.broker.connection, desk.broker.topology)
    assert await desk.broker.waiting(desk.queue) == 1
