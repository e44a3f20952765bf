"""Control commands, as who holds an instance carries them out.

Each ends in an event that says who gave it and why, committed together with the command's verdict. One that
makes no sense where the instance stands is rejected, and the verdict says so. Most wait until the burst that runs has
ended; some cut it short, and a persistence point is taken in the middle of it (``engine/demands.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.events.types import InstanceSuspended
from holdfast.processor.core import timers
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.demands import Demands
from holdfast.processor.engine.doubt import Unfit
from holdfast.processor.engine.failures import Failures
from holdfast.schemas.control import DEMANDS, NOT_LOADED, Command

if TYPE_CHECKING:
    from holdfast.processor.engine.holding import Holding


CUTTING = frozenset(("terminate", "abandon"))
"""The commands that do not wait for the burst that runs: whoever gives them wants its end."""


class Commands:
    """Carries out what is commanded of one instance; each method says whether its holding goes on."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def attend(self) -> None:
        """Hear, in the middle of a burst, what does not wait for its end."""
        instance, engine = self._holding.instance, self._holding.engine
        wakeups = await self._holding.runtime.look.put(instance.instance_id)
        for arrival in map(Arrival.of, wakeups.messages):
            demands, command = instance.demands, arrival.command
            if command is None or demands is None:
                continue
            if command.command in CUTTING:
                instance.cut_short()
            elif command.command in DEMANDS and demands.add(arrival, command):
                engine.spawn(self._give_up_if_overdue(demands, arrival))

    async def _give_up_if_overdue(self, demands: Demands, arrival: Arrival) -> None:
        detail = await demands.overdue(arrival)
        if detail is not None:
            await self._holding.engine.lanes.keep(arrival, "rejected", reason="in_scope", detail=detail)

    async def obey_next(self) -> bool | None:
        """Follow the oldest command; None if there is none."""
        taken = self._holding.mailbox.take_command()
        if taken is None:
            return None
        self._holding.mailbox.is_stale = True
        return await self._obey(*taken)

    async def _obey(self, arrival: Arrival, command: Command) -> bool:
        instance, is_suspended = self._holding.instance, self._holding.is_suspended
        match command.command:
            case "terminate":
                return await self._end(arrival, command)
            case "cancel" if instance.state.version == 0:
                return await self._end(arrival, command)
            case "cancel" | "fire_timer" if instance.unresolvable is not None:
                return await self._refuse(arrival, f"it can only be terminated: {instance.unresolvable}")
            case "cancel":
                return await self._cancel(arrival, command)
            case "persist" | "unload" | "abandon" if is_suspended:
                return await self._nothing_to_do(arrival)
            case "persist" | "unload":
                return await self._persist(arrival, command)
            case "abandon":
                return await self._abandon(arrival, command)
            case "reschedule_timer" | "cancel_timer":
                return await self._change_timer(arrival, command)
            case "fire_timer":
                return await self._fire_timer(arrival, command)
            case "suspend" if not is_suspended:
                return await self._suspend(arrival, command)
            case "resume" if instance.state.suspension_reason == "in_doubt":
                return await self._refuse(arrival, "an activity is in doubt: resolve says what became of it")
            case "resume" if is_suspended:
                return await self._resume(arrival, command)
            case "resolve" if is_suspended and instance.unresolvable is None:
                return await self._resolve(arrival, command)
        state = "suspended" if is_suspended else "not suspended"
        return await self._refuse(arrival, f"{command.command!r} makes no sense for an instance that is {state}")

    async def _resume(self, arrival: Arrival, command: Command) -> bool:
        holding = self._holding
        instance, runtime = holding.instance, holding.runtime
        if instance.state.version == 0:
            await runtime.provider.resume(runtime.host_id, instance.instance_id, arrival.envelope.message_id)
            return await holding.load_again()
        instance.resume(arrival, command)
        if instance.unresolvable is not None:
            raise instance.unresolvable
        instance.restore()
        instance.check_doubt()
        if instance.must_run:
            await holding.run()
        else:
            await instance.persist_requested()
        holding.mailbox.is_stale = True
        return True

    async def _resolve(self, arrival: Arrival, command: Command) -> bool:
        instance = self._holding.instance
        instance.restore()
        try:
            can_go_on = await instance.resolve(arrival, command)
        except Unfit as error:
            return await self._refuse(arrival, str(error))
        if can_go_on:
            await self._holding.run()
        return True

    async def _suspend(self, arrival: Arrival, command: Command) -> bool:
        holding = self._holding
        if holding.instance.state.version == 0:
            await Failures(holding).suspend("requested", None, command.why or "")
            await holding.engine.lanes.keep(arrival, "applied")
            return False
        suspended = InstanceSuspended(reason="requested", detail=command.why, by=command.by)
        await holding.instance.suspend(suspended, (arrival,))
        return True

    async def _cancel(self, arrival: Arrival, command: Command) -> bool:
        instance = self._holding.instance
        instance.restore()
        if await instance.cancel(arrival, command):
            await self._holding.run()
        return True

    async def _end(self, arrival: Arrival, command: Command) -> bool:
        """End the instance without running it: it is to be terminated, or was never persisted."""
        holding = self._holding
        if holding.instance.state.version == 0 and not await holding.begin():
            await self._refuse(arrival, "its start message is gone; holdfast nonpersisted lists it")
            return await holding.let_go(release=True)
        await holding.instance.end(arrival, command)
        return True

    async def _persist(self, arrival: Arrival, command: Command) -> bool:
        instance = self._holding.instance
        if not instance.is_in_memory:
            return await self._nothing_to_do(arrival)
        await instance.persist_requested((arrival, command))
        return True

    async def _abandon(self, arrival: Arrival, command: Command) -> bool:
        """Let go of the instance; what had woken it goes into the inbox, to wake it again wherever it is found."""
        holding = self._holding
        await Failures(holding).go_back()
        while holding.mailbox.arrived:
            await holding.keep(holding.mailbox.arrived[0])
        if holding.instance.state.version == 0:
            await holding.engine.lanes.keep(arrival, "applied")
            return await holding.let_go(release=True)
        await holding.instance.abandon(arrival, command)
        return True

    async def _change_timer(self, arrival: Arrival, command: Command) -> bool:
        instance, due = self._holding.instance, timers.moment(command.due)
        against = self._against(command)
        if against is None and command.command == "reschedule_timer" and due is None:
            against = f"cannot have a timer due at {command.due!r}"
        if against is not None:
            return await self._refuse(arrival, f"it {against}")
        if instance.unresolvable is None and not self._holding.is_suspended:
            instance.restore()
        await instance.change_timer(arrival, command, due)
        return True

    async def _fire_timer(self, arrival: Arrival, command: Command) -> bool:
        holding, timer = self._holding, command.timer or ""
        against = self._against(command)
        if against is None and holding.is_suspended:
            against = "is suspended: what is due fires once it is resumed"
        chosen = None if against is not None else holding.mailbox.next_message(holding.instance)
        if chosen is not None and timers.is_same_wait(chosen[1], timer):
            against = f"has the message already that {timer} would have come before"
        if against is not None:
            return await self._refuse(arrival, f"it {against}")
        holding.instance.restore()
        await holding.instance.fire(timer, (arrival, command))
        await holding.run()
        return True

    def _against(self, command: Command) -> str | None:
        bookmarks = self._holding.instance.state.bookmarks
        kinds = {name: bookmark.kind for name, bookmark in bookmarks.items()}
        return timers.objection(command.timer or "", command.command, kinds)

    async def _nothing_to_do(self, arrival: Arrival) -> bool:
        await self._holding.engine.lanes.keep(arrival, "applied", reason=NOT_LOADED)
        return True

    async def _refuse(self, arrival: Arrival, detail: str) -> bool:
        await self._holding.engine.lanes.keep(arrival, "rejected", reason="not_applicable", detail=detail)
        return True
