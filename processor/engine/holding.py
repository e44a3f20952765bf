"""A host's hold on one instance: its mailbox in memory, and the task that runs its bursts.

The task takes up one input after the other — the start message, a control command, a message, a due
timer — until nothing is left to do. When a burst fails, the policy of the workflow decides; when a commit
fails, the copy is dropped and loaded again, and the messages that it had taken are tried once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import structlog

from holdfast.events.types import InstanceSuspended, SuspensionReason, Where
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.commands import Commands
from holdfast.processor.engine.doubt import InDoubt
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.mailbox import Mailbox
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
    TransactionConflict,
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
"""Seconds before an abandoned message, or a burst that met a conflict, is tried again: doubled each time."""

CONFLICTS = 20
"""How often in a row a burst may meet other transactions; two dozen that all want the same rows took eight."""


class Holding:
    """One instance in the hands of this host."""

    def __init__(self, engine: Engine, instance: LiveInstance) -> None:
        self.engine = engine
        self.runtime = engine.runtime
        self.instance = instance
        self.task: asyncio.Task[None] | None = None
        self.idle_since = self.runtime.environment.monotonic()
        self.is_taken_over = instance.loaded.is_taken_over
        self.mailbox = Mailbox(engine.runtime, is_stale=instance.loaded.is_initialized)
        self._commands = Commands(self)
        self._tries = 0
        self._conflicts = 0

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
        self.mailbox.arrived.append(arrival)
        self._go()

    def poke(self) -> None:
        """Have the instance look at what the store holds for it."""
        self.mailbox.is_stale = True
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
                    going = await self._attempted(self.suspend("not_persistable", type(error).__name__, str(error)))
                except ProgramUnresolvable as error:
                    going = await self._attempted(
                        self.suspend("program_unresolvable", type(error).__name__, str(error))
                    )
                except InDoubt as error:
                    going = await self._attempted(self.suspend("in_doubt", None, str(error), error.where))
                except TransactionConflict as error:
                    going = await self._attempted(self._try_again(error))
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
            return await self.let_go(release=False)
        if self.mailbox.is_stale:
            await self.mailbox.look(instance)
        going = await self._commands.obey_next()
        if going is not None:
            return going
        if self.is_suspended:
            return await self.let_go(release=True)
        if self._tries:
            detail = f"{self._tries} times the host fell that ran it alone"
            return await self.suspend("attempts_exhausted", None, detail)
        if instance.unresolvable is not None:
            raise instance.unresolvable
        if instance.state.version == 0:
            if not await self.begin():
                return await self.let_go(release=True)
            await self.run()
            return True
        instance.restore()
        instance.check_doubt()
        if instance.must_run:
            await self.run()
            return True
        chosen = self.mailbox.next_message(instance)
        timer = self.mailbox.next_timer(instance)
        if chosen is not None:
            arrival, bookmark = chosen
            due = instance.due(timer) if timer is not None else None
            if due is None or arrival.received_at <= due:
                message = await self.parse(arrival)
                if message is not None:
                    self.mailbox.leave(arrival)
                    await instance.receive(bookmark, arrival, message)
                    await self.run()
                return True
        if timer is not None:
            self.mailbox.take_timer(timer)
            await instance.fire(timer)
            await self.run()
            return True
        if self.mailbox.arrived:
            await self._keep(self.mailbox.arrived[0])
            return True
        return self.mailbox.is_stale

    async def run(self) -> None:
        """Run one burst; raises as ``LiveInstance.run``."""
        await self.instance.run()
        self._conflicts = 0
        self.mailbox.is_stale = bool(self.instance.state.bookmarks)
        given_back = self.instance.given_back()
        self.mailbox.put_back(given_back)
        for arrival in given_back:
            await self._count_failure(arrival)

    async def _count_failure(self, arrival: Arrival) -> None:
        """Count a transaction that failed and did not consume its message, which is given up after so many of them."""
        attempts = (await self.runtime.provider.attempt([arrival.envelope.message_id]))[0]
        if attempts >= self.runtime.settings.max_attempts:
            detail = f"{attempts} transactions that received it failed"
            await self._keep(arrival, "attempts_exhausted", detail)

    async def begin(self) -> bool:
        """Begin a non-persisted instance with its start message, without running it yet; False if that is gone."""
        instance = self.instance
        arrival = self.mailbox.start(instance.loaded.start_message_id)
        if arrival is None and instance.loaded.start_message is not None:
            arrival = Arrival.of(instance.loaded.start_message)
        message = None if arrival is None else await self.parse(arrival)
        if arrival is None or message is None:
            return False
        self.mailbox.leave(arrival)
        instance.begin(arrival, message)
        return True

    @property
    def is_suspended(self) -> bool:
        """Whether the instance stands still until it is resumed."""
        instance = self.instance
        return instance.state.is_suspended or (instance.state.version == 0 and instance.loaded.is_suspended)

    async def parse(self, arrival: Arrival) -> Message | None:
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
        await self.engine.lanes.keep(
            arrival, "buffered" if reason is None else "dead_lettered", reason=reason, detail=detail
        )
        self.mailbox.leave(arrival)

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
        return await self.suspend("unhandled_exception", error.name, error.detail, error.where)

    async def suspend(
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
                self.mailbox.leave(arrival)
                arrival.settle()
        else:
            for arrival in taken:
                if arrival.stored is None:
                    await self._keep(arrival)
            suspended = InstanceSuspended(reason=reason, exception_name=exception_name, detail=detail, where=where)
            await instance.suspend(suspended, taken)
        return await self.let_go(release=False)

    async def _abandon(self, error: UnhandledError) -> bool:
        """Go back to the last persistence point, unload, and try the messages again, or give them up."""
        instance, runtime = self.instance, self.runtime
        taken = await self._go_back()
        await instance.keep_known()
        if taken:
            attempts = max(await runtime.provider.attempt([a.envelope.message_id for a in taken]))
        else:
            attempts = await runtime.provider.attempt_burst(instance.instance_id, "abandoned")
        if attempts >= runtime.settings.max_attempts:
            if not taken:
                return await self.suspend("unhandled_exception", error.name, error.detail, error.where)
            for arrival in taken:
                await self._keep(arrival, "unhandled_exception", error.detail)
            return await self.let_go(release=True)
        pause = _pause(attempts)
        if not self.mailbox.arrived:
            self.engine.wake_later(instance.instance_id, pause)
        return await self.let_go(release=True, pause=pause)

    async def _reload(self, error: Exception) -> bool:
        """Drop the copy and load the instance again; False if it is no longer ours to hold."""
        log.warning("copy dropped", instance_id=str(self.instance.instance_id), error=str(error))
        if isinstance(error, InstanceLockLost):
            self.runtime.doubt_lease()
        for arrival in await self._go_back():
            if isinstance(error, AlreadyConsumed) and arrival.envelope.message_id == error.message_id:
                arrival.is_double = True
                if arrival.stored is None:
                    self.mailbox.leave(arrival)
                    self.engine.lanes.retry([arrival], 0)
        return await self.load_again(STORAGE_PAUSE if isinstance(error, StorageError) else 0)

    async def _try_again(self, error: TransactionConflict) -> bool:
        """Go back and run the burst again: only the end of the whole transaction frees what others wait for.

        What meets a conflict so often that it is no accident is an exception of the user's SQL like any other.
        """
        self._conflicts += 1
        if self._conflicts >= CONFLICTS:
            return await self._unhandled(UnhandledError(error.__cause__ or error, self.instance.place))
        log.warning("conflict", instance_id=str(self.instance.instance_id), error=str(error))
        await self._go_back()
        await self.instance.keep_known()
        return await self.load_again(_pause(self._conflicts))

    async def _go_back(self) -> list[Arrival]:
        """Drop all since the last persistence point; what it had taken from RabbitMQ is in the mailbox again."""
        taken = await self.instance.drop()
        self.mailbox.put_back(taken)
        return taken

    async def _start_over(self) -> None:
        """Let go after a failure that has no name; whatever may have caused it is under suspicion."""
        await self._go_back()
        for arrival in self.mailbox.arrived:
            arrival.redelivered, arrival.is_counted = True, False
        # It may stand in the middle of a burst, with nothing else to wake it.
        self.engine.wake_later(self.instance.instance_id, LAST_RETRY)
        await self.let_go(release=True, pause=STORAGE_PAUSE)

    async def load_again(self, pause: float = 0) -> bool:
        while True:
            if pause:
                await self.runtime.environment.sleep(pause)
            try:
                self.instance = await self.engine.load(self.instance.instance_id)
            except StorageError:
                pause = STORAGE_PAUSE
            except (InstanceError, ProgramUnknown):
                return await self.let_go(release=False)
            else:
                self.mailbox.is_stale = True
                return True

    async def let_go(self, *, release: bool, pause: float = 0) -> bool:
        """Forget the instance and send what is left in memory on its way, after ``pause`` seconds; always False."""
        arrivals = list(self.mailbox.arrived)
        self.mailbox.arrived.clear()
        self.engine.forget(self)
        self.engine.lanes.retry(arrivals, pause)
        if release:
            await self.engine.release([self.instance.instance_id])
        return False


def _pause(attempts: int) -> float:
    """Return the seconds to wait after so many attempts."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** (attempts - 1))
