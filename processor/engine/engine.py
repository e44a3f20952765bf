"""The main road of one host: message in → instance loaded and locked → burst → persistence point → ack.

A message travels in a lane (``engine/lanes.py``) until it is in an instance's hands or in the inbox. The
engine keeps the instances in hand: each is locked and loaded once, and has a holding (``engine/holding.py``)
that runs its bursts. An instance in the middle of a burst collects messages in memory, and what it does not
wait for when it is idle again goes into the inbox.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import structlog

from holdfast.processor.core.machine import ROOT, place
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.backlogs import Backlogs
from holdfast.processor.engine.cut_short import cut_short, ended
from holdfast.processor.engine.failures import STORAGE_PAUSE
from holdfast.processor.engine.holding import Holding
from holdfast.processor.engine.lanes import ALONE, Lanes
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.places import NoPlace, Places
from holdfast.processor.engine.provider import Loaded, Registration
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.slots import Slots
from holdfast.processor.engine.subflows import inner_states
from holdfast.processor.engine.wakeups import Runnable
from holdfast.schemas.errors import (
    InstanceError,
    InstanceLockLost,
    InstanceUnreadable,
    ProgramUnknown,
    ProgramUnresolvable,
    StorageError,
)

log = structlog.get_logger("holdfast.engine")


class Engine:
    """Takes messages and wake-ups and runs the instances that they concern."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.held: dict[UUID, Holding] = {}
        self._loading: dict[UUID, asyncio.Future[None]] = {}
        self._leaving: dict[UUID, asyncio.Future[None]] = {}
        self._to_wake: set[UUID] = set()
        self._by_key: dict[str, list[Holding]] = {}
        self._idle: dict[UUID, Holding] = {}
        self.slots = Slots(runtime.settings.max_bursts, runtime.app.workflows.values())
        self._places = Places(runtime.environment, runtime.settings.max_loaded)
        self.backlog: Counter[int | None] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.alone = asyncio.Lock()
        self.stopping = False
        self.leaving: set[int] = set()
        self.backlogs = Backlogs(runtime.environment, runtime.settings.timer_grace)
        self.lanes = Lanes(self)
        runtime.wake = self._wake_soon

    # What comes in.

    def deliver(self, arrival: Arrival) -> None:
        """Take a message; ``arrival.settle`` is called once its fate is durable."""
        self.lanes.deliver(arrival)

    async def take_up(self, runnable: Runnable) -> None:
        """Follow a finding of the store: an instance to be woken or a message that starts one."""
        if runnable.message is not None:
            self.deliver(Arrival.of(runnable.message))
        elif runnable.instance_id is not None:
            await self.wake(runnable.instance_id, is_commanded=runnable.why == "control")

    async def wake(self, instance_id: UUID, *, is_commanded: bool = False) -> None:
        """Load the instance if need be and let it look at what waits for it.

        One that is busy looks once it has nothing more to do; if there is a command for it (``is_commanded``), at once.
        """
        if self.stopping:
            return
        try:
            holding = await self.hold(instance_id)
            if holding is not None and holding.busy and is_commanded:
                await holding.attend()
                # By now it may have been let go of, and what it did not obey is for its next copy.
                holding = await self.hold(instance_id)
            if holding is not None and (holding.busy or not await self._is_suspect(holding)):
                holding.poke()
        except Exception:
            # Its lock may be taken by now, and then nobody else looks at it.
            self.wake_later(instance_id, STORAGE_PAUSE)
            raise

    async def _is_suspect(self, holding: Holding) -> bool:
        """Whether an instance is left to be run alone: its burst may have brought down the host that held it.

        The first time nothing is made of it. From then on it is counted when its turn has come, so that it is
        found out and its innocent neighbours are not.
        """
        instance = holding.instance
        if not holding.is_taken_over:
            return False
        is_second = await self.runtime.provider.attempt_burst(instance.instance_id, "taken_over") > 1
        holding.is_taken_over = False
        if is_second:
            self.spawn(self._try_alone(holding))
        return is_second

    async def _try_alone(self, holding: Holding) -> None:
        instance_id = holding.instance.instance_id
        async with self.alone:
            try:
                attempts = await self.runtime.provider.attempt_burst(instance_id, "alone")
            except StorageError:
                self.wake_later(instance_id, STORAGE_PAUSE)
                raise
            if attempts > self.runtime.settings.max_attempts:
                holding.give_up(attempts - 1)
            else:
                holding.poke()
            await holding.rest(ALONE)

    async def unload_idle(self, seconds: float | None = None) -> None:
        """Let go of the instances that have been idle for that long, or for as long as their policies allow."""
        now = self.runtime.environment.monotonic()
        await self.unload(
            [
                holding
                for holding in self.held.values()
                if not holding.busy
                and holding.idle_since + (holding.policy.time_to_unload if seconds is None else seconds) <= now
            ]
        )

    async def unload(self, idle: list[Holding]) -> None:
        """Let go of instances that have nothing to do; what is not persisted is persisted first, which takes longer."""
        persisted = [holding for holding in idle if not holding.instance.is_unpersisted]
        for holding in idle:
            if holding.instance.is_unpersisted:
                holding.unload()
            else:
                self.forget(holding)
        if persisted:
            await self.release([h.instance.instance_id for h in persisted])

    def look_again(self, partition: int) -> None:
        """Have the instances of a partition look into the store before they take up anything else."""
        for holding in self.held.values():
            if holding.instance.loaded.partition == partition:
                holding.mailbox.is_stale = True

    def look_after_unpersisted(self) -> None:
        """Have idle instances look whose bookmarks the store does not know, so that nobody tells them of messages."""
        for holding in self.held.values():
            if holding.instance.is_unpersisted and not holding.busy:
                holding.poke()

    async def drain(self, seconds: float) -> bool:
        """Start nothing new and let what runs come to an end; False if that took longer."""
        self.stopping = True
        deadline = self.runtime.environment.monotonic() + seconds
        while True:
            for holding in self.held.values():
                holding.shut_down()
            tasks = {*self._tasks, *(h.task for h in self.held.values() if h.task is not None)}
            if not tasks:
                return True
            _, pending = await asyncio.wait(tasks, timeout=deadline - self.runtime.environment.monotonic())
            if pending:
                return False

    async def abandon_all(self) -> None:
        """Drop every copy at once and take nothing more: the locks are lost, or the host ends."""
        self.stopping = True
        holdings, self.held, self._idle, self._by_key = list(self.held.values()), {}, {}, {}
        tasks = [*self._tasks]
        self.lanes.clear()
        for holding in holdings:
            holding.silence()
            if holding.task is not None:
                tasks.append(holding.task)
        if count := await cut_short(tasks):
            log.warning("cancellation not heeded", tasks=count)
        await ended([asyncio.create_task(holding.instance.drop()) for holding in holdings])

    # Instances in hand.

    def is_crowded(self, partition: int | None) -> bool:
        """Whether more messages of a partition wait behind bursts than half of the prefetch."""
        return self.backlog[partition] > self.runtime.settings.prefetch // 2

    def hand_over(self, arrival: Arrival) -> bool:
        """Give the message to an instance of its key that is loaded here and takes its type."""
        for holding in self._by_key.get(arrival.envelope.key, ()):
            if holding.takes(arrival):
                holding.offer(arrival)
                return True
        return False

    async def hold(self, instance_id: UUID, *, patience: float = 0.0) -> Holding | None:
        """Lock and load an instance; None if it is closed, gone, or in another host's hands.

        So it is if there is no place for it within so many seconds.
        """
        while instance_id not in self.held:
            busy = self._leaving.get(instance_id) or self._loading.get(instance_id)
            if busy is None:
                break
            if patience <= 0 and self._places.wanted and instance_id in self._loading:
                # Whoever loads it may wait long for a place, and looks for all that there is once it has one.
                return None
            await asyncio.shield(busy)
        else:
            return self.held[instance_id]
        self._loading[instance_id] = loaded = asyncio.get_running_loop().create_future()
        try:
            return await self._load(instance_id, patience)
        finally:
            del self._loading[instance_id]
            loaded.set_result(None)

    async def _load(self, instance_id: UUID, patience: float) -> Holding | None:
        try:
            async with self._place(patience):
                return self._add(await self.load(instance_id))
        except (InstanceError, ProgramUnknown, NoPlace):
            return None

    @asynccontextmanager
    async def _place(self, patience: float) -> AsyncIterator[None]:
        """Take a place for an instance, which is given back if the body raises; ``NoPlace`` if there is none."""
        if self._places.are_taken:
            self._make_room()
        await self._places.take(patience)
        try:
            yield
        except BaseException:
            self._free_place()
            raise

    def rested(self, holding: Holding) -> None:
        """Note that an instance has nothing to do, so that it may make room for another one."""
        if self.held.get(holding.instance.instance_id) is holding:
            self._idle[holding.instance.instance_id] = holding
            if self._places.wanted:
                self._make_room()

    def woke(self, holding: Holding) -> None:
        """Note that an instance has something to do."""
        self._idle.pop(holding.instance.instance_id, None)

    def _make_room(self) -> None:
        """Let go of the instance that has been idle for longest, if one is idle."""
        holding = next(iter(self._idle.values()), None)
        if holding is None:
            return
        self.woke(holding)
        if holding.instance.is_unpersisted:
            holding.unload()
        else:
            self.forget(holding)
            self.spawn(self.release([holding.instance.instance_id]))

    def _free_place(self) -> None:
        self._places.give_back()
        if self._places.was_refused:
            self._places.was_refused = False
            self.runtime.hint()

    async def load(self, instance_id: UUID) -> LiveInstance:
        """Lock an instance and load its state; ``InstanceError`` or ``ProgramUnknown`` if that cannot be."""
        runtime = self.runtime
        try:
            loaded = await runtime.load.put(instance_id)
            inner = await inner_states(runtime.provider, loaded.state)
        except InstanceLockLost:
            runtime.doubt_lease()
            raise
        except InstanceUnreadable as error:
            # Another host of the app may know the format that this one does not.
            log.warning("state unreadable", instance_id=str(instance_id), error=str(error))
            await self.release([instance_id])
            raise
        program_hash = loaded.program_hash if loaded.state is None else loaded.state.program_hash
        try:
            workflow, program = await runtime.program(loaded.workflow, program_hash)
            if loaded.state is not None:
                frames = loaded.state.frames
                await runtime.load_routines(frames[path].program for path in sorted(frames, key=place) if path != ROOT)
        except ProgramUnresolvable as error:
            frames = {} if loaded.state is None else loaded.state.frames
            if await runtime.runs_elsewhere([program_hash, *(frame.program for frame in frames.values())]):
                # As during a deployment: it goes on as long as a host of the older version lives.
                log.info("program left to others", instance_id=str(instance_id), error=str(error))
                await self.release([instance_id])
                raise ProgramUnknown(str(error)) from error
            workflow = runtime.app.workflows[loaded.workflow]
            return LiveInstance(runtime, loaded, workflow, workflow.program, unresolvable=error, inner=inner)
        except ProgramUnknown as error:
            # Another host of the app may have the program that this one lacks.
            log.warning("program unknown", instance_id=str(instance_id), error=str(error))
            await self.release([instance_id])
            raise
        return LiveInstance(runtime, loaded, workflow, program, inner=inner)

    async def register(self, arrival: Arrival, *, patience: float) -> Holding:
        """Register a new instance for its start message; raises as ``PersistenceProvider.register`` answers.

        ``NoPlace`` if there is none for it within so many seconds.
        """
        async with self._place(patience):
            return self._add(await self._register(arrival))

    async def _register(self, arrival: Arrival) -> LiveInstance:
        runtime = self.runtime
        workflow = runtime.app.starts[arrival.envelope.type]
        registration = Registration(
            instance_id=runtime.environment.new_id(),
            workflow=workflow.name,
            program_hash=workflow.program.hash,
            correlation_key=arrival.envelope.key,
            start_message_id=arrival.envelope.message_id,
            partition=arrival.partition or 0,
            keeping=runtime.keeping(workflow.name),
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
        runtime.counts.registered[workflow.name] += 1
        return LiveInstance(runtime, loaded, workflow, workflow.program)

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
            self.woke(holding)
            self._free_place()
        holding.silence()
        key = instance.loaded.correlation_key
        mates = self._by_key.get(key, [])
        if holding in mates:
            mates.remove(holding)
            if not mates:
                del self._by_key[key]

    async def release(self, instance_ids: list[UUID]) -> None:
        """Give locks back; who wants such an instance here waits until that is done.

        If the store gives way they stay this host's, whose own detection then finds what wakes them.
        """
        left = asyncio.get_running_loop().create_future()
        self._leaving |= dict.fromkeys(instance_ids, left)
        try:
            await self.runtime.release.put(instance_ids)
        except StorageError as error:
            log.warning("locks kept", error=str(error))
        finally:
            for instance_id in instance_ids:
                # A hand-over may give back what is being given back already.
                if self._leaving.get(instance_id) is left:
                    del self._leaving[instance_id]
            left.set_result(None)

    def wake_later(self, instance_id: UUID, seconds: float) -> None:
        """Look at an instance again after ``seconds``, unless that is to be done anyway."""
        if instance_id not in self._to_wake:
            self._to_wake.add(instance_id)
            self.spawn(self._wake_later(instance_id, seconds))

    def _wake_soon(self, instance_id: UUID) -> None:
        self.spawn(self.wake(instance_id))

    async def _wake_later(self, instance_id: UUID, seconds: float) -> None:
        await self.runtime.environment.sleep(seconds)
        self._to_wake.discard(instance_id)
        await self.wake(instance_id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the instances until it ends or the host does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task failed", error=repr(task.exception()))
