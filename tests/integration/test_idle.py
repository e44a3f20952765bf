"""The idle policy on Postgres: what is persisted when, what is let go of, and what is acked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from holdfast import App, Message, receive
from holdfast.processor.engine.ack_deadline import look_after_unacked
from holdfast.processor.engine.arrival import Arrival
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("idle")


class Prompt(Message, correlation="key"):
    key: str


class Hasty(Prompt): ...


class Patient(Prompt): ...


class Lazy(Prompt): ...


class Part(Message, correlation="key"):
    key: str
    number: int


@app.workflow(start=Prompt)
async def prompt(begun: Prompt) -> int:
    return (await receive(Part, begun.key)).number


@app.workflow(start=Hasty, on_idle="unload")
async def hasty(begun: Hasty) -> int:
    return (await receive(Part, begun.key)).number


@app.workflow(start=Patient, time_to_persist=timedelta(milliseconds=10), time_to_unload=timedelta(days=1))
async def patient(begun: Patient) -> int:
    return (await receive(Part, begun.key)).number


@app.workflow(start=Lazy, on_idle="none", time_to_unload=timedelta(days=1))
async def lazy(begun: Lazy) -> int:
    return (await receive(Part, begun.key)).number


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host


async def put(host: Host, message: Message) -> asyncio.Event:
    """Hand a message over as RabbitMQ would; return what is set once it is acked, when all is at rest."""
    acked = asyncio.Event()
    envelope = message.envelope(f"{message.message_type}/{message.correlation_key}")
    host.engine.deliver(Arrival(envelope=envelope, received_at=host.runtime.now(), settle=acked.set))
    await host.rest()
    return acked


async def reasons(host: Host) -> list[str]:
    """Return the reasons of all persistence points."""
    rows = await host.ask("select data ->> 'reason' from holdfast.events where type = 'Persisted' order by position")
    return [reason for (reason,) in rows]


async def is_held(host: Host) -> bool:
    """Whether a host has the only instance."""
    ((machine,),) = await host.ask("select current_machine from holdfast.instances")
    return machine is not None


async def verdicts(host: Host) -> dict[str, str]:
    """Return the verdict of each message."""
    return dict(await host.ask("select type, verdict from holdfast.inbox"))


@pytest.mark.parametrize(
    ("message", "reason", "stays"), [(Prompt(key="k"), "idle", True), (Hasty(key="k"), "unload", False)]
)
async def test_an_instance_is_persisted_as_it_becomes_idle(
    host: Host, message: Message, reason: str, *, stays: bool
) -> None:
    acked = await put(host, message)
    assert acked.is_set()
    assert await reasons(host) == [reason]
    assert await is_held(host) is stays
    assert bool(host.engine.held) is stays


async def test_an_instance_is_persisted_when_its_time_has_come(host: Host) -> None:
    acked = await put(host, Patient(key="k"))

    async def is_persisted() -> bool:
        return await reasons(host) == ["idle"]

    await host.until(is_persisted)
    await acked.wait()
    assert await is_held(host)
    await put(host, Part(key="k", number=1))
    assert await reasons(host) == ["idle", "completed"]


async def test_one_that_never_needs_to_be_persisted_while_it_waits_is_one_transaction(host: Host) -> None:
    started = await put(host, Lazy(key="k"))
    assert not started.is_set()
    assert await host.ask("select is_initialized from holdfast.instances") == [(False,)]
    came = await put(host, Part(key="k", number=1))
    assert await reasons(host) == ["completed"]
    assert await verdicts(host) == {"Lazy": "applied", "Part": "applied"}
    assert [started.is_set(), came.is_set()] == [True, True]


async def test_what_is_let_go_of_is_persisted_first(host: Host) -> None:
    acked = await put(host, Lazy(key="k"))
    await host.engine.unload_idle(0)
    await host.rest()
    assert acked.is_set()
    assert await reasons(host) == ["unload"]
    assert not await is_held(host)
    await put(host, Part(key="k", number=1))
    assert await reasons(host) == ["unload", "completed"]


async def test_a_message_that_another_host_stored_is_found_at_the_next_look(host: Host, database_url: str) -> None:
    await put(host, Lazy(key="k"))
    async with running_host(app, database_url, Settings()) as other:
        await other.tell(Part(key="k", number=1))
    assert await verdicts(host) == {"Part": "buffered"}
    host.engine.look_after_unpersisted()
    await host.rest()
    assert await reasons(host) == ["completed"]
    assert await verdicts(host) == {"Lazy": "applied", "Part": "applied"}


async def test_what_stays_unacked_for_too_long_lies_in_the_inbox_until_its_persistence_point(
    database_url: str,
) -> None:
    async with running_host(app, database_url, Settings(ack_deadline=0.01, runnable_detection=0.01)) as host:
        acked = await put(host, Lazy(key="k"))
        while not acked.is_set():
            look_after_unacked(host.engine)
            await host.rest()
            await asyncio.sleep(0)
        assert await verdicts(host) == {"Lazy": "buffered"}
        assert await reasons(host) == []
        await put(host, Part(key="k", number=1))
        assert await verdicts(host) == {"Lazy": "applied", "Part": "applied"}
        assert await reasons(host) == ["completed"]
