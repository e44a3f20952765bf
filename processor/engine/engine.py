"""The main road of one host: message in → instance loaded and locked → burst → persistence point → ack.

Messages with one correlation key travel in a *lane*, one after the other, until each is in an instance's
hands or in the inbox; lanes run side by side. An instance in the middle of a burst collects messages in
memory, and what it does not wait for when it is idle again goes into the inbox. `docs/protocol.md` names
the states of a message and what recovers each of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

import structlog

from holdfast.processor.core.machine import ROOT, place
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.holding import STORAGE_PAUSE, Holding
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.provider import (
    AlreadyConsumed,
    Intake,
    Loaded,
    Registration,
    RouteKind,
    Runnable,
)
from holdfast.processor.engine.runtime import Runtime
from holdfast.schemas.errors import (
    InstanceError,
    InstanceLockLost,
    InvalidMessage,
    KeyInUse,
    ProgramUnknown,
    ProgramUnresolvable,
    StorageError,
)

log = structlog.get_logger("holdfast.engine")

ALONE = 10.0
"""Seconds that a redelivered message has the host's bursts to itself, so that a long activity holds up nobody."""


class Engine:
    """Takes messages and wake-ups and runs the instances that they concern."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.held: dict[UUID, Holding] = {}
        self._loading: dict[UUID, asyncio.Future[Holding | None]] = {}
        self._by_key: dict[str, list[Holding]] = {}
        self._lanes: dict[str, deque[Arrival]] = {}
        self._alone = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopping = False

    # What comes in.

    def deliver(self, arrival: Arrival) -> None:
        """Take a message; ``arrival.settle`` is called once its fate is durable."""
        lane = self._lanes.get(arrival.envelope.key)
        if lane is not None:
            lane.append(arrival)
            return
        if self._is_plain(arrival) and self._is_valid(arrival) and self._hand_over(arrival):
            return
        self._lanes[arrival.envelope.key] = lane = deque((arrival,))
        self._spawn(self._drain(arrival.envelope.key, lane))

    async def take_up(self, runnable: Runnable) -> None:
        """Follow a finding of the store: an instance to be woken or a message that starts one."""
        if runnable.message is not None:
            self.deliver(Arrival.of(runnable.message))
        elif runnable.instance_id is not None:
            await self.wake(runnable.instance_id)

    async def wake(self, instance_id: UUID) -> None:
        """Load the instance if need be and let it look at what waits for it."""
        holding = self.held.get(instance_id) or await self._hold(instance_id)
        if holding is not None:
            holding.poke()

    async def unload_idle(self, seconds: float) -> None:
        """Let go of the instances that have been idle for that long."""
        horizon = self.runtime.environment.monotonic() - seconds
        idle = [h for h in self.held.values() if not h.busy and h.idle_since <= horizon]
        for holding in idle:
            self.forget(holding)
        if idle:
            await self.runtime.provider.release(self.runtime.host_id, [h.instance.instance_id for h in idle])

    async def drain(self, seconds: float) -> bool:
        """Start nothing new and let what runs come to an end; False if that took longer."""
        self.stopping = True
        tasks = {*self._tasks, *(h.task for h in self.held.values() if h.task is not None)}
        if not tasks:
            return True
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        return not pending

    async def abandon_all(self) -> None:
        """Drop every copy at once: the locks are lost, or the host ends."""
        holdings, self.held, self._by_key = list(self.held.values()), {}, {}
        tasks = [*self._tasks]
        self._lanes.clear()
        for task in tasks:
            task.cancel()
        for holding in holdings:
            if holding.task is not None:
                holding.task.cancel()
                tasks.append(holding.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    # The lane of one key.

    async def _drain(self, key: str, lane: deque[Arrival], pause: float = 0.0) -> None:
        if pause:
            await self.runtime.environment.sleep(pause)
        while lane and not self.stopping:
            arrival = lane[0]
            try:
                await self._handle(arrival)
            except StorageError as error:
                log.warning("store unreachable", error=str(error), message_id=arrival.envelope.message_id)
                await self.runtime.environment.sleep(STORAGE_PAUSE)
                continue
            except InstanceLockLost:
                self.runtime.doubt_lease()
                await self.runtime.environment.sleep(STORAGE_PAUSE)
                continue
            except Exception:
                # Counted like one that takes its host down, so that it ends as a dead letter at last.
                log.exception("message not handled", message_id=arrival.envelope.message_id)
                await self.runtime.environment.sleep(STORAGE_PAUSE)
                arrival.redelivered = True
                continue
            lane.popleft()
        if self._lanes.get(key) is lane:
            del self._lanes[key]

    async def _handle(self, arrival: Arrival) -> None:
        """Bring one message to where it belongs."""
        try:
            if arrival.problem is not None:
                raise arrival.problem
            if not self._validate(arrival):
                await self._unknown(arrival)
                return
        except InvalidMessage as error:
            await self._dead_letter(arrival, error.reason, error.detail)
            return
        if arrival.stored is None:
            if self._is_plain(arrival) and self._hand_over(arrival):
                return
            await self._route(arrival)
        else:
            await self._start(arrival)

    def _validate(self, arrival: Arrival) -> bool:
        """Parse the body, once; False if this host does not know the type."""
        if arrival.message is None:
            kind = self.runtime.app.messages.get(arrival.envelope.type)
            if kind is None:
                return False
            arrival.message = kind.parse(arrival.envelope)
        return True

    def _is_plain(self, arrival: Arrival) -> bool:
        """Whether nothing speaks against giving the message to whoever waits for it."""
        return not (arrival.redelivered or arrival.is_double or arrival.problem or arrival.stored or self.stopping)

    def _is_valid(self, arrival: Arrival) -> bool:
        try:
            return self._validate(arrival)
        except InvalidMessage as error:
            arrival.problem = error
            return False

    def _hand_over(self, arrival: Arrival) -> bool:
        """Give the message to an instance of its key that is loaded here and takes its type."""
        for holding in self._by_key.get(arrival.envelope.key, ()):
            if holding.takes(arrival):
                holding.offer(arrival)
                return True
        return False

    async def _route(self, arrival: Arrival) -> None:
        route = await self.runtime.route.put(arrival.envelope)
        kind, instance_id = route.kind, route.instance_id
        if kind is RouteKind.DUPLICATE:
            arrival.settle()
        elif kind is RouteKind.REUSED:
            await self._dead_letter(
                arrival,
                "message_id_reused",
                f"message id {arrival.envelope.message_id!r} came before with another type, key or body",
            )
        elif kind is RouteKind.FINISHED:
            await self._keep(arrival, "rejected", reason="completed")
        elif kind in (RouteKind.NON_PERSISTED, RouteKind.BOOKMARK) and instance_id is not None:
            await self._bring(arrival, instance_id)
        elif kind is RouteKind.LIVING or arrival.envelope.type not in self.runtime.app.starts:
            if kind is not RouteKind.LIVING or not self._hand_over(arrival):
                await self.buffer(arrival)
        else:
            await self._start(arrival)

    async def _bring(self, arrival: Arrival, instance_id: UUID) -> None:
        """Bring a message to an instance that is to be loaded."""

        async def find() -> Holding | None:
            holding = self.held.get(instance_id) or await self._hold(instance_id)
            if holding is None or holding.is_suspended:
                await self.buffer(arrival)
                return None
            return holding

        await self._give(arrival, find)

    async def _start(self, arrival: Arrival) -> None:
        """Register a new instance and give it its start message."""

        async def find() -> Holding | None:
            try:
                return await self._register(arrival)
            except (KeyInUse, AlreadyConsumed):
                # Somebody was faster; where the message belongs now, the routing table knows.
                if arrival.stored is None:
                    self.retry([arrival], 0)
                return None

        await self._give(arrival, find)

    async def _register(self, arrival: Arrival) -> Holding:
        runtime = self.runtime
        workflow = runtime.app.starts[arrival.envelope.type]
        registration = Registration(
            instance_id=runtime.environment.new_id(),
            workflow=workflow.name,
            program_hash=workflow.program.hash,
            correlation_key=arrival.envelope.key,
            start_message_id=arrival.envelope.message_id,
            partition=arrival.partition,
        )
        loaded = Loaded(
            instance_id=registration.instance_id,
            workflow=workflow.name,
            program_hash=registration.program_hash,
            correlation_key=registration.correlation_key,
            partition=registration.partition,
            start_message_id=registration.start_message_id,
            lock_token=await runtime.register.put(registration),
            is_initialized=False,
            is_suspended=False,
            state=None,
            is_fresh=True,
        )
        return self._add(LiveInstance(runtime, loaded, workflow, workflow.program))

    async def _give(self, arrival: Arrival, find: Callable[[], Awaitable[Holding | None]]) -> None:
        """Leave a message with the instance that ``find`` finds.

        A redelivered message may have taken its host down. It is run alone, and its attempt is counted
        before that, so that it is found out and its innocent neighbours are not.
        """
        if not arrival.redelivered:
            holding = await find()
            if holding is not None:
                holding.offer(arrival)
            return
        async with self._alone:
            attempts = (await self.runtime.provider.attempt([arrival.envelope.message_id]))[0]
            if attempts > self.runtime.settings.max_attempts:
                detail = f"tried {attempts - 1} times without reaching a commit"
                await self._dead_letter(arrival, "attempts_exhausted", detail)
                return
            holding = await find()
            if holding is not None:
                holding.offer(arrival)
                await holding.rest(ALONE)

    # Messages that no instance takes now.

    async def _unknown(self, arrival: Arrival) -> None:
        kind = arrival.envelope.type
        if kind in await self.runtime.provider.known_types():
            await self.buffer(arrival)
        else:
            await self._dead_letter(arrival, "unknown_type", f"no living host knows message type {kind!r}")

    async def buffer(self, arrival: Arrival) -> None:
        """Store a message until somebody waits for it; wakes who already does."""
        await self._keep(arrival, "buffered")

    async def _dead_letter(self, arrival: Arrival, reason: str, detail: str) -> None:
        envelope = arrival.envelope
        log.warning("dead letter", reason=reason, detail=detail, message_id=envelope.message_id)
        await self._keep(arrival, "dead_lettered", reason=reason, detail=detail)

    async def _keep(
        self, arrival: Arrival, verdict: Any, *, reason: str | None = None, detail: str | None = None
    ) -> None:
        kind = "message" if arrival.stored is None else arrival.stored.kind
        route = await self.runtime.take_in.put(
            Intake(envelope=arrival.envelope, verdict=verdict, kind=kind, reason=reason, detail=detail)
        )
        if route.kind is RouteKind.REUSED and verdict != "dead_lettered":
            await self._dead_letter(arrival, "message_id_reused", "the message id came before with another body")
            return
        arrival.settle()
        if route.kind is RouteKind.BOOKMARK and route.instance_id is not None:
            self._spawn(self.wake(route.instance_id))

    # Instances in hand.

    async def _hold(self, instance_id: UUID) -> Holding | None:
        """Lock and load an instance; None if it is closed, gone, or in another host's hands."""
        loading = self._loading.get(instance_id)
        if loading is not None:
            return await asyncio.shield(loading)
        future: asyncio.Future[Holding | None] = asyncio.get_running_loop().create_future()
        self._loading[instance_id] = future
        holding: Holding | None = None
        try:
            holding = await self._load(instance_id)
            return holding
        finally:
            del self._loading[instance_id]
            future.set_result(holding)

    async def _load(self, instance_id: UUID) -> Holding | None:
        try:
            return self._add(await self.load(instance_id))
        except (InstanceError, ProgramUnknown):
            return None

    async def load(self, instance_id: UUID) -> LiveInstance:
        """Lock an instance and load its state; ``InstanceError`` or ``ProgramUnknown`` if that cannot be."""
        runtime = self.runtime
        try:
            loaded = await runtime.load.put(instance_id)
        except InstanceLockLost:
            runtime.doubt_lease()
            raise
        program_hash = loaded.program_hash if loaded.state is None else loaded.state.program_hash
        try:
            workflow, program = await runtime.program(loaded.workflow, program_hash)
            if loaded.state is not None:
                frames = loaded.state.frames
                await runtime.load_routines(frames[path].program for path in sorted(frames, key=place) if path != ROOT)
        except ProgramUnresolvable as error:
            workflow = runtime.app.workflows[loaded.workflow]
            return LiveInstance(runtime, loaded, workflow, workflow.program, unresolvable=error)
        except ProgramUnknown as error:
            # Another host of the app may have the program that this one lacks.
            log.warning("program unknown", instance_id=str(instance_id), error=str(error))
            await runtime.provider.release(runtime.host_id, [instance_id])
            raise
        return LiveInstance(runtime, loaded, workflow, program)

    def _add(self, instance: LiveInstance) -> Holding:
        holding = Holding(self, instance)
        self.held[instance.instance_id] = holding
        self._by_key.setdefault(instance.loaded.correlation_key, []).append(holding)
        return holding

    def forget(self, holding: Holding) -> None:
        """Take an instance out of hand; its lock is somebody else's business."""
        instance = holding.instance
        if self.held.get(instance.instance_id) is holding:
            del self.held[instance.instance_id]
        key = instance.loaded.correlation_key
        mates = self._by_key.get(key, [])
        if holding in mates:
            mates.remove(holding)
            if not mates:
                del self._by_key[key]

    def retry(self, arrivals: list[Arrival], seconds: float) -> None:
        """Handle messages of one key again after ``seconds``, before those that come after them."""
        if not arrivals:
            return
        key = arrivals[0].envelope.key
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = lane = deque(arrivals)
            self._spawn(self._drain(key, lane, seconds))
        else:
            for place, arrival in enumerate(arrivals, start=1):
                lane.insert(place, arrival)

    def wake_later(self, instance_id: UUID, seconds: float) -> None:
        """Look at an instance again after ``seconds``."""
        self._spawn(self._wake_later(instance_id, seconds))

    async def _wake_later(self, instance_id: UUID, seconds: float) -> None:
        await self.runtime.environment.sleep(seconds)
        await self.wake(instance_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task failed", error=repr(task.exception()))
