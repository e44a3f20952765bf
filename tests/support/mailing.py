"""An app whose activities are on queues, in a simulated world; the test plays their workers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, receive
from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.processor.language.scopes import transaction
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.activity_messages import ActivityRequest, ActivityResult
from holdfast.schemas.errors import ActivityLost, Cancelled, ScopeError, UnreadableValue
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


class Weighed(Message, correlation="key"):
    key: str


class Unwritable(Message, correlation="key"):
    key: str


class Nudged(Message, correlation="key"):
    key: str


class Nudge(Message, correlation="key"):
    key: str


class Bounced(Exception):
    """The mail came back."""


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


@app.workflow(start=Nudged)
async def nudged(start: Nudged) -> str:
    await receive(Nudge, start.key)
    return await insist(start.key)


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


@dataclass
class Weight:
    grams: Decimal
    on: date


@app.activity(queue="mail")
async def weigh(what: str) -> Weight:
    raise AssertionError("no worker of workflows runs it")


@app.workflow(start=Weighed)
async def weighed(start: Weighed) -> str:
    try:
        return str(await weigh(start.key))
    except (ValueError, UnreadableValue) as error:
        return str(error)


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
    """Return a message of the outbox as its receivers see it."""
    return Envelope(message_id=message.message_id, type=message.type, key=message.key, body=message.body)


async def answer(host: SimulatedHost, request: ActivityRequest, value: Any, message_id: str) -> Delivered:
    """Answer a request as a worker does that has done it."""
    result = ActivityResult(request=request.request, outcome="completed", result=value)
    return await host.deliver(result, message_id)


def failure(request: ActivityRequest, said: str) -> ActivityResult:
    """Return the result of a request whose activity raised ``Bounced``."""
    error = {"$exception": f"{__name__}:Bounced", "args": [said]}
    return ActivityResult(request=request.request, outcome="failed", error=error)


async def bounce(host: SimulatedHost, request: ActivityRequest, message_id: str) -> Delivered:
    """Answer a request as a worker does whose activity raised ``Bounced``; it says the message's id."""
    return await host.deliver(failure(request, message_id), message_id)


async def of_type(world: World, kind: type[Any]) -> list[Any]:
    """Return the events of one type of the only instance."""
    return [each.event for each in await world.events() if isinstance(each.event, kind)]


async def fall(world: World, host: SimulatedHost) -> None:
    """Let a host die, and its lease with it."""
    await host.die()
    world.store.tables.hosts.pop(host.runtime.host_id)


async def begin(kind: Callable[..., Message]) -> tuple[World, SimulatedHost]:
    """Start the workflow of a message type in a fresh world, and give its host too."""
    calls.clear()
    world = World(app)
    host = await world.host()
    await host.deliver(kind(key="k"), "m0")
    return world, host
