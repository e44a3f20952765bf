"""A host's hold on one instance: its mailbox in memory, and the task that runs its bursts.

The task takes up one input after the other — the start message, a control command, a message, a due
timer — until nothing is left to do. When a burst fails, the policy of the workflow decides; when a commit
fails, the copy is dropped and loaded again, and the messages that it had taken are tried once more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import structlog

from holdfast.events.types import InstanceSuspended, SuspensionReason, Where
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.live_instance import LiveInstance, by_whom, command_of
from holdfast.processor.engine.provider import AlreadyConsumed, Suspension
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.schemas.errors import (
    InstanceError,
    InstanceLockLost,
    InvalidMessage,
    NotPersistable,
    ProgramUnknown,
    ProgramUnresolvable,
    StorageError,
    WrongExpectedVersion,
)
from holdfast.schemas.message import Message

if TYPE_CHECKING:
    from holdfast.processor.engine.engine import Engine

log = structlog.get_logger("holdfast.engine")

STORAGE_PAUSE = 0.5
"""Seconds before something is tried again after the store could not be reached."""

LOST = (InstanceError, WrongExpectedVersion, AlreadyConsumed, StorageError)
"""After these a host's copy of an instance is worth nothing: drop it, and look again."""

FIRST_RETRY = 0.1
LAST_RETRY = 5.0
"""Seconds before an abandoned message is tried again: doubled each time between these two."""


class Holding:
    """One instance in the hands of this host."""

    def __init__(self, engine: Engine, instance: LiveInstance) -> None:
        self.engine = engine
        self.runtime = engine.runtime
        self.instance = instance
        self.task: asyncio.Task[None] | None = None
        self.idle_since = self.runtime.environment.monotonic()
        self.is_taken_over = instance.loaded.is_taken_over
        self._tries = 0
        self._mailbox: deque[Arrival] = deque()
        self._stored: deque[Arrival] = deque()
        self._due: list[str] = []
        self._look = instance.loaded.is_initialized

    @property
    def busy(self) -> bool:
        """Whether the instance has something to do."""
        return self.task is not None

    def takes(self, arrival: Arrival) -> bool:
        """Whether the message can be left here: it is waited for, or may be once the burst ends."""
        envelope = arrival.envelope
        if self.busy:
            return envelope.type in self.instance.workflow.receives
        return self.instance.waiting_for(envelope.type, envelope.key) is not None

    def offer(self, arrival: Arrival) -> None:
        """Leave a message here."""
        self._mailbox.append(arrival)
        self._go()

    def poke(self) -> None:
        """Have the instance look at what the store holds for it."""
        self._look = True
        self._go()

    def give_up(self, tries: int) -> None:
        """Have the instance suspended, as so often the host fell that ran it alone."""
        self._tries = tries
        self._go()

    async def rest(self, seconds: float) -> None:
        """Return once the instance has nothing to do, or after that long."""
        if self.task is not None:
            await asyncio.wait([self.task], timeout=seconds)

    def _go(self) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        going = True
        try:
            while going and not self.engine.stopping:
                try:
                    going = await self._step()
                except UnhandledError as error:
                    going = await self._attempted(self._unhandled(error))
                except NotPersistable as error:
                    going = await self._attempted(self._suspend("not_persistable", type(error).__name__, str(error)))
                except ProgramUnresolvable as error:
                    going = await self._attempted(
                        self._suspend("program_unresolvable", type(error).__name__, str(error))
                    )
                except LOST as error:
                    going = await self._reload(error)
        except Exception:
            log.exception("burst failed", instance_id=str(self.instance.instance_id))
            await self._start_over()
        finally:
            self.idle_since = self.runtime.environment.monotonic()
            self.task = None

    async def _step(self) -> bool:
        """Take up one input; False once there is none and nothing is left in memory."""
        instance = self.instance
        if instance.closed:
            return await self._let_go(release=False)
        if self._look:
            await self._look_at_store()
        if self.is_suspended:
            return await self._resume()
        command = next((a for a in self._stored if _is_command(a)), None)
        if command is not None and instance.state.version > 0:
            self._stored.remove(command)
            return await self._obey(command)
        if self._tries:
            detail = f"{self._tries} times the host fell that ran it alone"
            return await self._suspend("attempts_exhausted", None, detail)
        if instance.unresolvable is not None:
            raise instance.unresolvable
        if instance.state.version == 0:
            return await self._begin()
        instance.restore()
        if instance.must_run:
            await self._run()
            return True
        chosen = self._next_message()
        timer = self._next_timer()
        if chosen is not None:
            queue, arrival, bookmark = chosen
            due = instance.due(timer) if timer is not None else None
            if due is None or arrival.received_at <= due:
                queue.remove(arrival)
                message = await self._parse(arrival)
                if message is not None:
                    await instance.receive(bookmark, arrival, message)
                    await self._run()
                return True
        if timer is not None:
            self._due.remove(timer)
            instance.fire(timer)
            await self._run()
            return True
        if self._mailbox:
            await self._keep(self._mailbox[0])
            return True
        return self._look

    async def _run(self) -> None:
        await self.instance.run()
        self._look = bool(self.instance.state.bookmarks)
        for arrival in self.instance.given_back():
            await self._offer_again(arrival)

    async def _offer_again(self, arrival: Arrival) -> None:
        """Put back a message that a failed transaction did not consume, or give it up after so many of them."""
        attempts = (await self.runtime.provider.attempt([arrival.envelope.message_id]))[0]
        if arrival.stored is None:
            self._mailbox.appendleft(arrival)
        if attempts >= self.runtime.settings.max_attempts:
            detail = f"{attempts} transactions that received it failed"
            await self._keep(arrival, "attempts_exhausted", detail)

    async def _begin(self) -> bool:
        """Run a non-persisted instance from its start message, if that is at hand."""
        instance = self.instance
        start_id = instance.loaded.start_message_id
        arrival = next((a for a in self._mailbox if a.envelope.message_id == start_id), None)
        if arrival is not None:
            self._mailbox.remove(arrival)
        elif instance.loaded.start_message is not None:
            arrival = Arrival.of(instance.loaded.start_message)
        message = None if arrival is None else await self._parse(arrival)
        if arrival is None or message is None:
            return await self._let_go(release=True)
        instance.begin(arrival, message)
        await self._run()
        return True

    async def _resume(self) -> bool:
        """Follow a command, if there is one that concerns a suspended instance; else let go of it."""
        instance = self.instance
        for arrival in self._stored:
            command = command_of(arrival) if _is_command(arrival) else ""
            if command not in ("resume", "cancel", "terminate"):
                continue
            self._stored.remove(arrival)
            if command != "resume":
                return await self._obey(arrival)
            if instance.state.version == 0:
                await self.runtime.provider.resume(
                    self.runtime.host_id, instance.instance_id, arrival.envelope.message_id
                )
                return await self._load_again()
            instance.resume(arrival)
            if instance.unresolvable is not None:
                raise instance.unresolvable
            instance.restore()
            if instance.must_run:
                await self._run()
            else:
                await instance.persist_requested()
                self._look = True
            return True
        return await self._let_go(release=True)

    async def _obey(self, command: Arrival) -> bool:
        """Cancel, terminate or suspend the instance as commanded; refuse any other command."""
        instance, name = self.instance, command_of(command)
        if name == "suspend" and not instance.state.is_suspended:
            by, why = by_whom(command)
            await instance.suspend(InstanceSuspended(reason="requested", detail=why, by=by), (command,))
        elif name == "cancel" and instance.state.version > 0:
            instance.restore()
            instance.cancel(command)
            await self._run()
        elif name in ("cancel", "terminate"):
            if instance.state.version == 0 and not await self._prepare_start():
                return await self._let_go(release=True)
            await instance.end(command)
        else:
            await self.engine.keep(command, "rejected", reason="not_applicable", detail=f"{name} is not possible now")
        self._look = True
        return True

    async def _prepare_start(self) -> bool:
        """Record that a non-persisted instance starts, without running it; False if its start message is gone."""
        stored = self.instance.loaded.start_message
        arrival = None if stored is None else Arrival.of(stored)
        message = None if arrival is None else await self._parse(arrival)
        if arrival is None or message is None:
            return False
        self.instance.begin(arrival, message)
        return True

    @property
    def is_suspended(self) -> bool:
        """Whether the instance stands still until it is resumed."""
        instance = self.instance
        return instance.state.is_suspended or (instance.state.version == 0 and instance.loaded.is_suspended)

    # Inputs.

    async def _look_at_store(self) -> None:
        self._look = False
        wakeups = await self.runtime.look.put(self.instance.instance_id)
        self._stored = deque(Arrival.of(message) for message in wakeups.messages)
        self._due = list(wakeups.due)

    def _next_message(self) -> tuple[deque[Arrival], Arrival, str] | None:
        """Return the oldest message that an open bookmark waits for, and the queue that it is in."""
        for queue in (self._stored, self._mailbox):
            for arrival in queue:
                bookmark = self.instance.waiting_for(arrival.envelope.type, arrival.envelope.key)
                if bookmark is not None:
                    return queue, arrival, bookmark
        return None

    def _next_timer(self) -> str | None:
        """Return the open timer that was due first."""
        due = [(moment, name) for name in self._due if (moment := self.instance.due(name)) is not None]
        return min(due)[1] if due else None

    async def _parse(self, arrival: Arrival) -> Message | None:
        """Return a validated message; None if it had to become a dead letter."""
        if arrival.message is None:
            kind = self.runtime.app.messages.get(arrival.envelope.type)
            if kind is None:
                await self._keep(arrival, "unknown_type", f"message type {arrival.envelope.type!r} is not known here")
                return None
            try:
                arrival.message = kind.parse(arrival.envelope)
            except InvalidMessage as error:
                await self._keep(arrival, error.reason, error.detail)
        return arrival.message

    async def _keep(self, arrival: Arrival, reason: str | None = None, detail: str | None = None) -> None:
        """Store a message, as a dead letter if there is a reason, and have it in memory no longer."""
        await self.engine.keep(arrival, "buffered" if reason is None else "dead_lettered", reason=reason, detail=detail)
        self._leave(arrival)

    def _leave(self, arrival: Arrival) -> None:
        if arrival in self._mailbox:
            self._mailbox.remove(arrival)

    # When something goes wrong.

    async def _attempted(self, handling: Awaitable[bool]) -> bool:
        """Await a failure's handling; if the store gives way under it, start over from there."""
        try:
            return await handling
        except LOST as error:
            return await self._reload(error)

    async def _unhandled(self, error: UnhandledError) -> bool:
        instance = self.instance
        log.warning(
            "unhandled exception",
            instance_id=str(instance.instance_id),
            workflow=instance.workflow.name,
            line=error.where.line,
            exception=error.detail,
        )
        if instance.workflow.on_unhandled == "abandon":
            return await self._abandon(error)
        return await self._suspend("unhandled_exception", error.name, error.detail, error.where)

    async def _suspend(
        self, reason: SuspensionReason, exception_name: str | None, detail: str, where: Where | None = None
    ) -> bool:
        """Go back to the last persistence point and suspend there; what was taken goes into the inbox."""
        instance = self.instance
        log.warning(
            "suspending",
            instance_id=str(instance.instance_id),
            workflow=instance.workflow.name,
            reason=reason,
            detail=detail,
        )
        taken = await self._go_back()
        if instance.state.version == 0:
            suspension = Suspension(
                instance_id=instance.instance_id,
                host_id=self.runtime.host_id,
                lock_token=instance.loaded.lock_token,
                reason=reason,
                exception_name=exception_name,
                message=next((a.consumed() for a in taken), None),
            )
            await self.runtime.provider.suspend([suspension])
            for arrival in taken:
                self._leave(arrival)
                arrival.settle()
        else:
            for arrival in taken:
                if arrival.stored is None:
                    await self._keep(arrival)
            commands = tuple(a for a in taken if _is_command(a))
            suspended = InstanceSuspended(reason=reason, exception_name=exception_name, detail=detail, where=where)
            await instance.suspend(suspended, commands)
        return await self._let_go(release=False)

    async def _abandon(self, error: UnhandledError) -> bool:
        """Go back to the last persistence point, unload, and try the messages again, or give them up."""
        instance, runtime = self.instance, self.runtime
        taken = await self._go_back()
        names = [a.envelope.message_id for a in taken] or [f"burst:{instance.instance_id}:{instance.state.version}"]
        attempts = max(await runtime.provider.attempt(names))
        if attempts >= runtime.settings.max_attempts:
            if not taken:
                return await self._suspend("unhandled_exception", error.name, error.detail, error.where)
            for arrival in taken:
                await self._keep(arrival, "unhandled_exception", error.detail)
            return await self._let_go(release=True)
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** (attempts - 1))
        if not self._mailbox:
            self.engine.wake_later(instance.instance_id, pause)
        return await self._let_go(release=True, pause=pause)

    async def _reload(self, error: Exception) -> bool:
        """Drop the copy and load the instance again; False if it is no longer ours to hold."""
        log.warning("copy dropped", instance_id=str(self.instance.instance_id), error=str(error))
        if isinstance(error, InstanceLockLost):
            self.runtime.doubt_lease()
        for arrival in await self._go_back():
            if isinstance(error, AlreadyConsumed) and arrival.envelope.message_id == error.message_id:
                arrival.is_double = True
                if arrival.stored is None:
                    self._leave(arrival)
                    self.engine.retry([arrival], 0)
        return await self._load_again(pause=isinstance(error, StorageError))

    async def _go_back(self) -> list[Arrival]:
        """Drop all since the last persistence point; what it had taken from RabbitMQ is in the mailbox again."""
        taken = await self.instance.drop()
        self._mailbox.extendleft(a for a in reversed(taken) if a.stored is None)
        return taken

    async def _start_over(self) -> None:
        """Let go after a failure that has no name; whatever may have caused it is under suspicion."""
        await self._go_back()
        for arrival in self._mailbox:
            arrival.redelivered, arrival.is_counted = True, False
        # It may stand in the middle of a burst, with nothing else to wake it.
        self.engine.wake_later(self.instance.instance_id, LAST_RETRY)
        await self._let_go(release=True, pause=STORAGE_PAUSE)

    async def _load_again(self, *, pause: bool = False) -> bool:
        while True:
            if pause:
                await self.runtime.environment.sleep(STORAGE_PAUSE)
            try:
                self.instance = await self.engine.load(self.instance.instance_id)
            except StorageError:
                pause = True
            except (InstanceError, ProgramUnknown):
                return await self._let_go(release=False)
            else:
                self._look = True
                return True

    async def _let_go(self, *, release: bool, pause: float = 0) -> bool:
        """Forget the instance and send what is left in memory on its way, after ``pause`` seconds; always False."""
        arrivals = list(self._mailbox)
        self._mailbox.clear()
        self.engine.forget(self)
        self.engine.retry(arrivals, pause)
        if release:
            await self.engine.release([self.instance.instance_id])
        return False


def _is_command(arrival: Arrival) -> bool:
    return arrival.stored is not None and arrival.stored.kind == "control"
