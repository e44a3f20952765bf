"""Each command for an instance in each condition, on Postgres: its verdict, the events that it leads to, what runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from holdfast import App, Client, Message, no_persist, receive
from holdfast.processor.engine.provider import Intake
from holdfast.processor.services.detection import Detection
from holdfast.schemas.control import Command
from holdfast.schemas.errors import InstanceError
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("control")
ran: list[str] = []
failing: set[str] = set()
gates: dict[str, asyncio.Event] = {}


class Begun(Message, correlation="key"):
    key: str


class Scoped(Begun): ...


class Came(Begun): ...


class Gone(Begun): ...


@app.activity
async def work(what: str) -> None:
    ran.append(what)
    if what in gates:
        await gates[what].wait()
    if what in failing:
        raise ValueError(what)


@app.workflow(start=Begun, persistence="in_memory")
async def begun(start: Begun) -> None:
    await work("first")
    await receive(Came, start.key)
    await work("second")
    await work("third")
    await receive(Gone, start.key)


@app.workflow(start=Scoped, persistence="in_memory")
async def scoped(start: Scoped) -> None:
    await receive(Came, start.key)
    async with no_persist():
        await work("second")
    await receive(Gone, start.key)


@dataclass
class World:
    """A host, a client, and one instance of the host's."""

    host: Host
    client: Client
    key: str
    instance_id: UUID

    async def verdict(self, command: str | None) -> str:
        """Return what became of a command."""
        ((verdict, reason),) = await self.host.ask(
            "select verdict, reason from holdfast.inbox where message_id = %s", command
        )
        return verdict if reason is None else f"{verdict}: {reason}"

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Have the host look once for what can run, and return as soon as something holds."""
        await Detection(self.host.engine).look()
        while not await holds():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.01)

    async def settle(self, command: str | None) -> str:
        """Have the host look once for what can run, and return the final verdict of a command."""

        async def is_settled() -> bool:
            return await self.verdict(command) != "buffered"

        await self.until(is_settled)
        return await self.verdict(command)

    async def events(self) -> list[str]:
        """Return the types of the events, and in place of persistence points their reasons."""
        rows = await self.host.ask(
            "select coalesce(data ->> 'reason', type) from holdfast.events where instance_id = %s order by version",
            self.instance_id,
        )
        return [what for (what,) in rows]

    async def hear(self, message: Message) -> None:
        """Have a message come, and see to it that it is taken up."""
        envelope = message.envelope(f"{message.message_type}/{self.key}")
        await self.host.runtime.take_in.put(Intake(envelope=envelope, verdict="buffered"))
        await Detection(self.host.engine).look()

    async def find(self) -> bool:
        """Find the instance."""
        rows = await self.host.ask(
            "select instance_id from holdfast.instances where correlation_key = %s order by creation_time", self.key
        )
        if rows:
            self.instance_id = rows[0][0]
        return bool(rows)

    async def begin(self, message: Message) -> None:
        """Start the instance."""
        await self.hear(message)
        while not await self.find():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.01)

    async def open_gates(self) -> None:
        """Let what waits at a gate go on, and return when all is at rest."""
        for gate in gates.values():
            gate.set()
        gates.clear()
        await self.host.rest()


@pytest.fixture
async def world(shared_database_url: str) -> AsyncIterator[World]:
    ran.clear()
    failing.clear()
    gates.clear()
    settings = Settings(persist_patience=0.3)
    async with (
        running_host(app, shared_database_url, settings) as host,
        Client(shared_database_url, app=app.name) as client,
    ):
        yield World(host, client, str(uuid4()), UUID(int=0))


# What the instance is like when it is commanded.


async def idle(world: World) -> None:
    await world.begin(Begun(key=world.key))
    await world.host.rest()


async def unloaded(world: World) -> None:
    await idle(world)
    await world.host.engine.unload_idle(0)


async def suspended(world: World) -> None:
    await idle(world)
    await world.settle(await world.client.suspend(world.instance_id, by="ann"))
    await world.host.rest()


async def closed(world: World) -> None:
    await idle(world)
    await world.settle(await world.client.terminate(world.instance_id, by="ann"))
    await world.host.rest()


async def in_a_burst(world: World) -> None:
    await idle(world)
    await _busy(world)


async def in_no_persist(world: World) -> None:
    await world.begin(Scoped(key=world.key))
    await world.host.rest()
    await _busy(world)


async def _busy(world: World) -> None:
    gates["second"] = asyncio.Event()
    await world.hear(Came(key=world.key))

    async def is_busy() -> bool:
        return "second" in ran

    await world.until(is_busy)


async def in_its_first_burst(world: World) -> None:
    gates["first"] = asyncio.Event()
    await world.begin(Begun(key=world.key))

    async def is_busy() -> bool:
        return "first" in ran

    await world.until(is_busy)


async def suspended_before_its_first(world: World) -> None:
    """Have the instance suspended before its first persistence point."""
    failing.add("first")
    await world.begin(Begun(key=world.key))
    await world.host.rest()
    failing.clear()


FIRST = ["InstanceStarted", "ActivityCompleted", "BookmarkOpened"]
BURST = ["MessageReceived", "ActivityCompleted", "ActivityCompleted", "BookmarkOpened"]
SCOPE = ["MessageReceived", "ActivityCompleted", "BookmarkOpened"]
"""What a burst leads to that is not cut short, without its persistence points."""

CASES: dict[Callable[[World], Awaitable[None]], dict[str, tuple[str, list[str]]]] = {
    idle: {
        "suspend": ("applied", ["requested", "suspended"]),
        "resume": ("NotSuspended", []),
        "cancel": ("applied", ["CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceTerminated", "terminated"]),
        "abandon": ("applied", ["InstanceAbandoned", "requested"]),
        "persist": ("applied", ["PersistRequested", "requested"]),
        "unload": ("applied", ["UnloadRequested", "unload"]),
    },
    unloaded: {
        "suspend": ("applied", ["requested", "suspended"]),
        "resume": ("NotSuspended", []),
        "cancel": ("applied", ["CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceTerminated", "terminated"]),
        "abandon": ("applied: not_loaded", []),
        "persist": ("applied: not_loaded", []),
        "unload": ("applied: not_loaded", []),
    },
    suspended: {
        "suspend": ("CommandRefused", []),
        "resume": ("applied", ["InstanceResumed", "requested"]),
        "cancel": ("applied", ["CancelRequested", "InstanceResumed", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceTerminated", "terminated"]),
        "abandon": ("applied: not_loaded", []),
        "persist": ("applied: not_loaded", []),
        "unload": ("applied: not_loaded", []),
    },
    closed: dict.fromkeys(
        ("suspend", "resume", "cancel", "terminate", "abandon", "persist", "unload"), ("InstanceCompleted", [])
    ),
    in_a_burst: {
        "suspend": ("buffered", [*BURST, "idle", "requested", "suspended"]),
        "resume": ("NotSuspended", [*BURST, "idle"]),
        "cancel": ("buffered", [*BURST, "idle", "CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceTerminated", "terminated"]),
        "abandon": ("applied", ["InstanceAbandoned", "requested"]),
        "persist": ("buffered", [*BURST[:2], "PersistRequested", "requested", *BURST[2:], "idle"]),
        "unload": ("buffered", [*BURST[:2], "UnloadRequested", "unload"]),
    },
    in_no_persist: {
        "suspend": ("buffered", [*SCOPE, "idle", "requested", "suspended"]),
        "resume": ("NotSuspended", [*SCOPE, "idle"]),
        "cancel": ("buffered", [*SCOPE, "idle", "CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceTerminated", "terminated"]),
        "abandon": ("applied", ["InstanceAbandoned", "requested"]),
        "persist": ("rejected: in_scope", [*SCOPE, "idle"]),
        "unload": ("rejected: in_scope", [*SCOPE, "idle"]),
    },
    in_its_first_burst: {
        "suspend": ("buffered", [*FIRST, "idle", "requested", "suspended"]),
        "resume": ("NotSuspended", [*FIRST, "idle"]),
        "cancel": ("buffered", [*FIRST, "idle", "CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceStarted", "InstanceTerminated", "terminated"]),
        "abandon": ("applied", []),
        "persist": ("buffered", [*FIRST[:2], "PersistRequested", "requested", *FIRST[2:], "idle"]),
        "unload": ("buffered", [*FIRST[:2], "UnloadRequested", "unload"]),
    },
    suspended_before_its_first: {
        "suspend": ("CommandRefused", []),
        "resume": ("applied", [*FIRST, "idle"]),
        "cancel": ("applied", ["InstanceStarted", "CancelRequested", "InstanceCancelled", "cancelled"]),
        "terminate": ("applied", ["InstanceStarted", "InstanceTerminated", "terminated"]),
        "abandon": ("applied: not_loaded", []),
        "persist": ("applied: not_loaded", []),
        "unload": ("applied: not_loaded", []),
    },
}
"""For each condition and command: the error, or the verdict before the burst ends; and the events after its end.

What is buffered before is applied then.
"""


@pytest.mark.parametrize(
    ("condition", "name"), [(condition, name) for condition, commands in CASES.items() for name in commands]
)
async def test_a_command_has_one_answer_in_each_condition(
    world: World, condition: Callable[[World], Awaitable[None]], name: str
) -> None:
    await condition(world)
    before = await world.events()
    first, leads_to = CASES[condition][name]
    asked = world.client.command(world.instance_id, Command(command=name, by="ann", why="why"))
    if first[0].isupper():
        with pytest.raises(InstanceError) as refused:
            await asked
        assert type(refused.value).__name__ == first
        await world.open_gates()
    elif first == "buffered":
        command = (await asked).command
        await Detection(world.host.engine).look()
        assert await world.verdict(command) == "buffered"
        await world.open_gates()
        assert await world.verdict(command) == "applied"
    else:
        assert await world.settle((await asked).command) == first
        await world.open_gates()
    assert (await world.events())[len(before) :] == leads_to


@pytest.mark.parametrize("name", ["abandon", "unload"])
@pytest.mark.parametrize("condition", [in_a_burst, in_its_first_burst])
async def test_who_is_let_go_in_a_burst_is_held_by_nobody_and_goes_on_at_the_next_look(
    world: World, condition: Callable[[World], Awaitable[None]], name: str
) -> None:
    await condition(world)
    stopped = ran[-1]
    command = (await world.client.command(world.instance_id, Command(command=name, by="ann"))).command
    await Detection(world.host.engine).look()
    if name == "unload":
        await world.open_gates()
    await world.host.rest()
    gates.clear()
    assert await world.verdict(command) == "applied"
    ((machine,),) = await world.host.ask(
        "select current_machine from holdfast.instances where instance_id = %s", world.instance_id
    )
    assert machine is None
    await Detection(world.host.engine).look()
    await world.host.rest()
    assert ran.count(stopped) == (2 if name == "abandon" else 1)
    assert (await world.events())[-1] == "idle"


async def test_a_command_says_who_gave_it_and_why(world: World) -> None:
    await idle(world)
    for name in ("persist", "unload"):
        await world.settle(
            (await world.client.command(world.instance_id, Command(command=name, by="ann", why=f"to {name}"))).command
        )
    await world.host.rest()
    said = await world.host.ask(
        """
        select type, data ->> 'by', data ->> 'why' from holdfast.events
        where instance_id = %s and type like '%%Requested' order by version
        """,
        world.instance_id,
    )
    assert said == [("PersistRequested", "ann", "to persist"), ("UnloadRequested", "ann", "to unload")]
