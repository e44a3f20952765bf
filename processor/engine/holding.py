"""A host's hold on one instance: its mailbox in memory, and the task that runs its bursts.

The task takes up one input after the other — the start message, a control command, a message, a due
timer — until nothing is left to do. What goes wrong on the way is met in ``engine/failures.py``.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import structlog

from holdfast.events.types import Reason
from holdfast.processor import tracing
from holdfast.processor.engine.ack_deadline import spill
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.commands import Commands
from holdfast.processor.engine.failures import STORAGE_PAUSE, Failures
from holdfast.processor.engine.live_instance import LiveInstance
from holdfast.processor.engine.mailbox import Mailbox
from holdfast.processor.engine.wakeups import Mail
from holdfast.processor.log_context import at_work
from holdfast.schemas.errors import InstanceError, InvalidMessage, ProgramUnknown, StorageError
from holdfast.schemas.message import Message

if TYPE_CHECKING:
    from holdfast.processor.engine.engine import Engine

log = structlog.get_logger("holdfast.engine")


SHORTEST = 0.001
"""Seconds that an alarm waits at least, as clocks are not exact."""

HELD_BACK = 1.0
"""The same where timers wait for a backlog, and so an alarm for one that is due would ring all the time."""


class Holding:
    """One instance in the hands of this host.

    ``is_prompt`` says that its next idle point is a persistence point, whatever the idle policy: it had to go back.
    """

    def __init__(self, engine: Engine, instance: LiveInstance) -> None:
        self.engine = engine
        self.runtime = engine.runtime
        self.instance = instance
        self.task: asyncio.Task[None] | None = None
        self.policy = self.runtime.idle_policies[instance.workflow.name]
        self.held_since = self.idle_since = self.busy_since = self.runtime.environment.monotonic()
        self.is_taken_over = instance.loaded.is_taken_over
        self.is_leaving = False
        self.mailbox = Mailbox(engine.runtime, engine.backlog, is_stale=instance.loaded.is_initialized)
        self.conflicts = 0
        self.is_prompt = self.is_taken_over
        self._wanted: Reason | None = None
        self._alarm: asyncio.Task[None] | None = None
        self._tries = 0

    @property
    def busy(self) -> bool:
        """Whether the instance has something to do."""
        return self.task is not None

    def ids(self) -> dict[str, str]:
        """Return what log lines say of the instance and of what woke it."""
        instance = self.instance
        ids = {"instance_id": str(instance.instance_id), "workflow": instance.workflow.name}
        if instance.cause is not None:
            ids["message_id"] = instance.cause.message_id
        if instance.traceparent is not None:
            ids["trace_id"] = tracing.trace_id(instance.traceparent)
        return ids

    def takes(self, arrival: Arrival) -> bool:
        """Whether the message can be left here: it is waited for, or may be once the burst ends."""
        envelope = arrival.envelope
        if self.busy:
            return envelope.type in self.instance.workflow.receives
        return self.instance.waiting_for(envelope.type, envelope.key) is not None

    def offer(self, arrival: Arrival) -> None:
        """Leave a message here."""
        self.mailbox.add(arrival, waits=self.busy)
        if self.busy and self.engine.is_crowded(arrival.partition):
            spill(self)
        self._go()

    def poke(self) -> None:
        """Have the instance look at what the store holds for it."""
        self.mailbox.is_stale = True
        self._go()

    async def attend(self) -> None:
        """Hear the commands that do not wait until the burst that runs has ended."""
        await Commands(self).attend()

    def unload(self) -> None:
        """Have the instance persisted, if it is not, and let go of, once it has nothing to do."""
        self._wanted = "unload"
        self._go()

    def shut_down(self) -> None:
        """Have the instance persisted, if it is not, as the host takes nothing up any more."""
        if self.task is None and self.instance.is_unpersisted:
            self.task = asyncio.create_task(self._shut_down())

    def give_up(self, tries: int) -> None:
        """Have the instance suspended, as so often the host fell that ran it alone."""
        self._tries = tries
        self._go()

    async def rest(self, seconds: float) -> None:
        """Return once the instance has nothing to do, or after that long."""
        if self.task is not None:
            await asyncio.wait([self.task], timeout=seconds)

    def _go(self) -> None:
        # Who waited for something before asking may hold one that was let go of: its lock is another copy's.
        if self.task is None and self.engine.held.get(self.instance.instance_id) is self:
            self.busy_since = self.runtime.environment.monotonic()
            self.engine.woke(self)
            self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        going, slots, workflow = True, self.engine.slots, self.instance.workflow.name
        at_work.set(self.ids)
        if self.runtime.tracer is not None:
            # The burst that this task was begun in may have been another instance's.
            tracing.leave()
        await slots.take(workflow)
        try:
            while going and not self.engine.stopping:
                try:
                    going = await self._step()
                except Exception as error:  # noqa: BLE001  What it cannot meet it raises.
                    going = await Failures(self).meet(error)
                if going:
                    await slots.pass_on(workflow)
        except Exception:
            log.exception("burst failed", instance_id=str(self.instance.instance_id))
            await Failures(self).start_over()
        finally:
            slots.give_back(workflow)
            self.task = None
            self.engine.rested(self)

    async def _shut_down(self) -> None:
        try:
            await self.instance.run("shutdown")
        except Exception as error:  # noqa: BLE001  What it had taken was not acked, or lies in the inbox.
            log.warning("dropped unpersisted", instance_id=str(self.instance.instance_id), error=str(error))
            await self.instance.drop()
        finally:
            self.task = None

    async def _step(self) -> bool:
        """Take up one input; False once there is none and nothing is left in memory."""
        instance = self.instance
        if self.mailbox.spilling is not None:
            await self.mailbox.spilled()
        if instance.is_released:
            if not self.is_leaving and (self._wanted == "unload" or not self.policy.time_to_unload):
                self.engine.spawn(self._look_back(instance))
            return await self.let_go(release=False)
        if self.is_leaving and instance.is_unpersisted:
            await self.run("unload")
            return True
        if self.is_leaving:
            return await self.let_go(release=True)
        if self.mailbox.is_stale:
            await self.mailbox.look(instance)
        if instance.is_unpersisted and await self._must_persist():
            return True
        going = await Commands(self).obey_next()
        if going is not None:
            return going
        if self.is_suspended:
            return await self.let_go(release=True)
        if self._tries:
            detail = f"{self._tries} times the host fell that ran it alone"
            return await Failures(self).suspend("attempts_exhausted", None, detail)
        if instance.unresolvable is not None:
            raise instance.unresolvable
        if instance.state.version == 0 and not instance.is_unpersisted:
            if not await self.begin():
                return await self.let_go(release=True)
            await self.run()
            return True
        instance.restore()
        instance.check_doubt()
        if instance.must_run:
            await self.run()
            return True
        if self.mailbox.spilling is not None:
            # It began while the store was asked, and what it takes there comes before what is in memory now.
            return True
        chosen = self.mailbox.next_message(instance)
        is_held_back = self.engine.backlogs.holds_back(instance.loaded.partition)
        timer = None if is_held_back else self.mailbox.next_timer(instance)
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
            await self.keep(self.mailbox.arrived[0])
            return True
        return self.mailbox.is_stale or await self._idle()

    async def run(self, wanted: Reason | None = None) -> None:
        """Run one burst; raises as ``LiveInstance.run``. ``wanted`` is why it is to end at a persistence point."""
        self.silence()
        instance, is_woken = self.instance, wanted is None
        if wanted is None and not self._may_idle_unpersisted():
            wanted = "idle" if self.policy.time_to_unload else "unload"
        self.runtime.counts.bursts += 1
        await instance.run(wanted, is_woken=is_woken)
        self.conflicts = 0
        if not instance.is_unpersisted:
            self.is_prompt = False
        self.idle_since = self.runtime.environment.monotonic()
        self.mailbox.is_stale |= bool(instance.bookmarks)
        given_back = self.instance.given_back()
        self.mailbox.put_back(given_back)
        for arrival in given_back:
            await self._count_failure(arrival)

    # What the idle policy says.

    def _may_idle_unpersisted(self) -> bool:
        """Whether the instance may be idle without a persistence point.

        Not if it could take others along when it has to go back: it did before, or has taken a message that did.
        """
        return (
            self.policy.defers
            and not self.is_prompt
            and not self.engine.stopping
            and not any(arrival.redelivered or arrival.not_before for arrival in self.instance.unwritten.taken)
        )

    async def _must_persist(self) -> bool:
        """Persist an idle instance for what makes sense only then; False if there is no such thing."""
        instance, mailbox = self.instance, self.mailbox
        double = mailbox.double(instance)
        command = mailbox.next_command
        if command is not None and command.command not in ("persist", "unload", "abandon"):
            await self.run("requested")
        elif double is not None:
            await self.run("idle")
            double.is_double = True
            mailbox.leave(double)
            self.engine.lanes.retry([double], 0)
        elif mailbox.is_ahead_of_timer(instance):
            await self.run("idle")
        else:
            return False
        return True

    async def _idle(self) -> bool:
        """Persist or let go of an instance that has nothing to do, if it is time; True if it may go on."""
        unloads = self._wanted == "unload" or not self.policy.time_to_unload
        if self.instance.is_unpersisted:
            if self._wanted is not None:
                await self.run(self._wanted)
                return True
            if self._alarm is None:
                self._alarm = asyncio.create_task(self._ring())
        elif unloads:
            return await self.let_go(release=True)
        else:
            self._wanted = None
        return False

    async def _look_back(self, instance: LiveInstance) -> None:
        """Wake an instance that was unloaded, if by then what it waits for lay in the inbox."""
        waits = () if instance.state.is_suspended else instance.waits
        if waits and await self.runtime.find_mail.put(Mail(instance_id=instance.instance_id, waits=waits)):
            await self.engine.wake(instance.instance_id)

    async def _ring(self) -> None:
        """Look after an unpersisted instance when it is to be persisted, or when a timer of it is due."""
        environment, now = self.runtime.environment, self.runtime.now()
        persist_at = self.idle_since + self.policy.time_to_persist
        due = [moment for name in self.instance.bookmarks if (moment := self.instance.due(name)) is not None]
        seconds = min([persist_at - environment.monotonic(), *((moment - now).total_seconds() for moment in due)])
        is_held_back = self.engine.backlogs.holds_back(self.instance.loaded.partition)
        if seconds < math.inf:
            await environment.sleep(max(seconds, HELD_BACK if is_held_back else SHORTEST))
            self._alarm = None
            if environment.monotonic() >= persist_at:
                self._wanted = self._wanted or "idle"
            self._go()

    def silence(self) -> None:
        """Have no alarm set."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _count_failure(self, arrival: Arrival) -> None:
        """Count a transaction that failed and did not consume its message, which is given up after so many of them."""
        attempts = (await self.runtime.provider.attempt([arrival.envelope.message_id]))[0]
        if attempts >= self.runtime.settings.max_attempts:
            detail = f"{attempts} transactions that received it failed"
            await self.keep(arrival, "attempts_exhausted", detail)

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
            kind = self.runtime.messages.get(arrival.envelope.type)
            if kind is None:
                await self.keep(arrival, "unknown_type", f"message type {arrival.envelope.type!r} is not known here")
                return None
            try:
                arrival.message = kind.parse(arrival.envelope)
            except InvalidMessage as error:
                await self.keep(arrival, error.reason, error.detail)
        return arrival.message

    async def keep(self, arrival: Arrival, reason: str | None = None, detail: str | None = None) -> None:
        """Store a message, as a dead letter if there is a reason, and have it in memory no longer."""
        self.mailbox.leaving = arrival
        try:
            await self.engine.lanes.keep(
                arrival, "buffered" if reason is None else "dead_lettered", reason=reason, detail=detail
            )
        finally:
            self.mailbox.leaving = None
        self.mailbox.leave(arrival)

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
        await self.mailbox.spilled()
        arrivals = self.mailbox.empty()
        self.engine.forget(self)
        self.engine.lanes.retry(arrivals, pause)
        if release:
            await self.engine.release([self.instance.instance_id])
        return False
