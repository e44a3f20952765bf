"""An app in a simulation: messages are delivered, time passes when told, hosts die and others take over.

The engine, the detection and the stored forms are the real ones; the store is in memory, the broker a list of
messages. Between two calls of a test everything has come to rest: whatever could happen without time has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from holdfast.events.recorded import RecordedEvent
from holdfast.processor.engine.ack_deadline import look_after_unacked
from holdfast.processor.engine.provider import Intake, Outgoing, PersistenceProvider
from holdfast.processor.language.app import App
from holdfast.processor.store.memory import MemoryProvider, UserSql
from holdfast.processor.store.memory_tables import Tables
from holdfast.processor.testing.activity_worker import SimulatedActivityWorker
from holdfast.processor.testing.broker import Delivery, SimulatedBroker
from holdfast.processor.testing.door import Door, Statement, Watch
from holdfast.processor.testing.doubt import resolutions
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.instance import SimulatedInstance
from holdfast.processor.testing.stand_ins import ActivityRun, StandIns, staged
from holdfast.processor.testing.world import World
from holdfast.schemas.control import Command
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Message

M = TypeVar("M", bound=Message)

QUIET = 50
"""Rounds of the event loop without a call to the store or an activity that begins, after which all is at rest."""

PATIENCE = 10.0
"""Real seconds that an activity may take."""

LOOKS = 20
"""How often in a row hosts look for what can run, as long as each look leads to something."""

FOREVER = 1e9
"""Seconds that a host's lease lasts: it is a crash that ends it, no test of a clock."""


class Simulation:
    """An app with hosts, a store, a broker and a clock of its own; use it as ``async with Simulation(app) as world``.

    ``stand_ins`` are functions called in place of activities. ``sql`` answers the statements of record activities:
    it takes query and parameters and returns what ``Transaction.execute`` is to return; without it there are no
    rows. ``store`` may wrap the store that hosts see. ``settings`` are those of ``Settings``. ``hosts`` are those that
    live; the first of them is given the messages.
    """

    def __init__(
        self,
        app: App,
        *,
        stand_ins: StandIns | None = None,
        sql: UserSql | None = None,
        store: Callable[[MemoryProvider], PersistenceProvider] | None = None,
        watch: Watch | None = None,
        **settings: Any,
    ) -> None:
        self._world = World(app, **{"lease": FOREVER, **settings})
        if sql is not None:
            self._world.answer = sql
        self._watch = watch or Watch()
        self._wrap = store
        self._broker = SimulatedBroker(self._world.now)
        self._delivered = 0
        self._commands = 0
        self.hosts: list[SimulatedHost] = []
        self.app = app
        self.activity_runs: list[ActivityRun] = []
        self.survived: list[str] = []
        self.resolved: list[str] = []
        self._world.app = staged(app, stand_ins or {}, self._world.work, self.activity_runs)
        self._worker = SimulatedActivityWorker(self._world.app, self._world, self._broker)
        self._broker.request = self._worker.take

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._worker.stop()
        for host in list(self.hosts):
            await self._bury(host)

    # What a test does.

    async def deliver(
        self, message: Message, *, message_id: str | None = None, reply_to: str | None = None, rest: bool = True
    ) -> Delivery:
        """Publish a message to the app, and let everything happen that follows.

        ``message_id`` is ``message-1``, ``message-2`` and so on unless it is given; one that was there before makes a
        duplicate. ``reply_to`` is the queue in which its sender waits for an answer. With ``rest=False`` return at
        once. Without a living host the message waits for one.
        """
        self._delivered += 1
        envelope = message.envelope(message_id or f"message-{self._delivered}")
        delivery = self._broker.take(replace(envelope, reply_to=reply_to))
        self._hand_out()
        if rest:
            await self.rest()
        return delivery

    async def advance(self, time: timedelta | float) -> None:
        """Let time pass, so many seconds if it is a number: whoever waits for a moment on the way goes on at it."""
        end = self.now + (time if isinstance(time, timedelta) else timedelta(seconds=time))
        await self.rest()
        while (moment := self._next_moment()) is not None and moment <= end:
            self._world.move_to(moment)
            await self._housekeeping()
        self._world.move_to(end)
        await self._housekeeping()

    async def crash(self, host: SimulatedHost | None = None) -> None:
        """Have a host die, or all of them: what was not persisted is gone, and what was not acked comes again.

        Nothing goes on until ``start`` unless other hosts live.
        """
        for dying in [host] if host is not None else list(self.hosts):
            await self._bury(dying)
            self._lapse(dying)
        self._hand_out()
        await self.rest()

    async def start(self) -> SimulatedHost:
        """Start a host; it takes up what others left."""
        store = self._world.store if self._wrap is None else self._wrap(self._world.store)
        host = await self._world.host(Door(store, self._watch))
        self.hosts.append(host)
        self._hand_out()
        await self.rest()
        return host

    async def command(self, instance: SimulatedInstance, command: str, **about: Any) -> None:
        """Give an instance a control command, such as ``resume``; ``about`` are further fields of ``Command``."""
        await self._command(instance, Command(command=command, **{"by": "test", **about}))
        await self.rest()

    async def rest(self) -> None:
        """Let everything happen that needs no time; ``AppError`` if an activity takes more than ten real seconds."""
        for _ in range(LOOKS):
            await self._come_to_rest()
            before = len(self._watch.calls)
            for host in list(self.hosts):
                await self._as_host(host.detection.look())
                await self._come_to_rest()
                await self._as_host(self._broker.relay(host))
            await self._come_to_rest()
            if not self._hand_out() and len(self._watch.calls) == before and not await self._resolve():
                return

    # What a test sees.

    @property
    def now(self) -> datetime:
        """The time in the simulation, in UTC."""
        return self._world.time

    @property
    def instances(self) -> list[SimulatedInstance]:
        """All instances, in the order in which they were registered; those that were deleted as they closed too."""
        rows = self.tables.ever().items()
        return [SimulatedInstance.of(instance_id, row, self.app.types) for instance_id, row in rows]

    def instance(self, key: str | None = None, *, workflow: str | None = None) -> SimulatedInstance:
        """Return the only instance, of that correlation key and workflow if they are given; else ``AppError``."""
        found = [
            each for each in self.instances if key in (None, each.correlation_key) and workflow in (None, each.workflow)
        ]
        if len(found) != 1:
            names = ", ".join(f"{each.workflow}/{each.correlation_key}" for each in self.instances) or "none"
            raise AppError(f"{len(found)} instances fit key {key!r} and workflow {workflow!r}; there are: {names}")
        return found[0]

    async def history(self, instance: SimulatedInstance) -> list[RecordedEvent]:
        """Return the events of an instance, oldest first."""
        return await self._world.events(instance.instance_id)

    @property
    def outbox(self) -> list[Outgoing]:
        """The messages that workflows sent, each id once, oldest first."""
        requests = f"holdfast.{self.app.name}.activities"
        return [each for each in self.published if each.exchange != requests]

    @property
    def published(self) -> list[Outgoing]:
        """Everything that left the outbox: the messages that workflows sent, and requests to activity workers."""
        return list(self._broker.published.values())

    def sent(self, kind: type[M]) -> list[M]:
        """Return the messages of one type that workflows sent, oldest first."""
        return [kind.parse_body(each.body) for each in self.outbox if each.type == kind.message_type]

    @property
    def sql(self) -> list[Statement]:
        """The statements of record activities that were committed, in order."""
        return list(self._watch.committed)

    def verdict(self, delivery: Delivery) -> str | None:
        """Return what became of a message, such as ``applied`` or ``rejected: completed``; None while it is open."""
        found = self._world.verdict(delivery.envelope.message_id)
        return None if found is None else ": ".join(part for part in found if part is not None)

    @property
    def deliveries(self) -> list[Delivery]:
        """All messages that were published to the app, oldest first."""
        return self._broker.deliveries

    @property
    def activity_calls(self) -> list[ActivityRun]:
        """The last attempt of each activity call, in the order in which the calls began."""
        return list({run.idempotency_key: run for run in self.activity_runs}.values())

    @property
    def tables(self) -> Tables:
        """The rows of the store, as they are."""
        return self._world.store.tables

    # Commands.

    async def _command(self, instance: SimulatedInstance, command: Command) -> None:
        """Store a command; it is a client that does so, and no host can die of it."""
        self._commands += 1
        envelope = command.envelope(f"command-{self._commands}")
        intake = Intake(envelope=envelope, verdict="buffered", kind="control", instance_id=instance.instance_id)
        await self._world.store.take_in([intake])

    async def _resolve(self) -> bool:
        """Resolve what a planned death has left in doubt; False if that is nothing."""
        if self._watch.death is None:
            return False
        found = list(resolutions(self.instances, self.activity_runs))
        for instance, command in found:
            self.resolved.append(f"{command.call} ({command.decision})")
            await self._command(instance, command)
        return bool(found)

    # Hosts.

    def _hand_out(self) -> bool:
        """Give messages to the host that lives longest, if there is one; False if there are none for it."""
        return bool(self.hosts) and self._broker.hand_out(self.hosts[0])

    async def _bury(self, host: SimulatedHost) -> None:
        """End all that a dead host had under way; what it had not acked is nobody's."""
        self.hosts.remove(host)
        await host.die()
        self._broker.take_back(host)

    def _lapse(self, host: SimulatedHost) -> None:
        row = self.tables.hosts.get(host.runtime.host_id)
        if row is not None:
            row.expiration = self.now

    # Time and rest.

    async def _come_to_rest(self) -> None:
        """Return once nothing goes on, with a successor in the place of each host that died of a call."""
        while True:
            await self._quiet()
            dead = [host for host in self.hosts if host.is_dead]
            if not dead:
                return
            for host in dead:
                await self._succeed(host)

    async def _succeed(self, host: SimulatedHost) -> None:
        late = self._watch.death is not None and self._watch.death.late
        await self._bury(host)
        self.survived += [
            f"{each.workflow}/{each.correlation_key} at version {each.version} ({each.status})"
            for each in self.instances
        ]
        if not late:
            self._lapse(host)
        await self.start()
        self._lapse(host)

    async def _quiet(self) -> None:
        quiet, work = 0, self._world.work
        while quiet < QUIET or work:
            if quiet >= QUIET:
                await work.wait(PATIENCE)
                quiet = 0
            before = (self._watch.steps, work.begun)
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == (self._watch.steps, work.begun) else 0

    async def _as_host(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that ends if the host dies of it."""
        task = asyncio.create_task(work)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def _next_moment(self) -> datetime | None:
        """Return the next moment at which something wakes or is due."""
        moments = [
            datetime.fromisoformat(bookmark.due)
            for row in self.tables.instances.values()
            if not row.is_suspended
            for bookmark in row.bookmarks.values()
            if bookmark.due is not None
        ]
        sleeper = self._world.next_waking()
        if sleeper is not None:
            moments.append(sleeper)
        return min((moment for moment in moments if moment > self.now), default=None)

    async def _housekeeping(self) -> None:
        """Do what hosts do when time has passed: come to rest, and unload what has been idle for long."""
        await self.rest()
        for host in list(self.hosts):
            await self._as_host(host.engine.unload_idle())
            host.engine.look_after_unpersisted()
            look_after_unacked(host.engine)
        await self._come_to_rest()
