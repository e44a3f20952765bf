"""Control commands, as who holds an instance carries them out.

Each ends in an event that says who gave it and why, committed together with the command's verdict. One that
makes no sense where the instance stands is rejected, and the verdict says so. Most wait until the burst that runs has
ended; some cut it short, and a persistence point is taken in the middle of it (``engine/requests.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.events.types import InstanceSuspended
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.doubt import Unfit
from holdfast.processor.engine.failures import Failures
from holdfast.processor.engine.requests import Requests
from holdfast.schemas.control import Command

if TYPE_CHECKING:
    from holdfast.processor.engine.holding import Holding


CUTTING = frozenset(("terminate", "abandon"))
"""The commands that do not wait for the burst that runs: whoever gives them wants its end."""

REQUESTS = frozenset(("persist", "unload"))
"""The commands that are followed in the middle of a burst."""

NOT_LOADED = "not_loaded"
"""The reason beside ``applied`` for what is done already, as no host has anything of the instance in memory."""


class Commands:
    """Carries out what is commanded of one instance; each method says whether its holding goes on."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def attend(self) -> None:
        """Hear, in the middle of a burst, what does not wait for its end."""
        instance, engine = self._holding.instance, self._holding.engine
        wakeups = await self._holding.runtime.look.put(instance.instance_id)
        for arrival in map(Arrival.of, wakeups.messages):
            requests, command = instance.requests, arrival.command
            if command is None or requests is None:
                continue
            if command.command in CUTTING:
                instance.cut_short()
            elif command.command in REQUESTS and requests.add(arrival, command):
                engine.spawn(self._give_up_if_overdue(requests, arrival))

    async def _give_up_if_overdue(self, requests: Requests, arrival: Arrival) -> None:
        detail = await requests.overdue(arrival)
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
            case "cancel" if instance.unresolvable is None:
                return await self._cancel(arrival, command)
            case "cancel":
                return await self._refuse(arrival, f"it can only be terminated: {instance.unresolvable}")
            case "persist" | "unload" | "abandon" if is_suspended:
                return await self._nothing_to_do(arrival)
            case "persist" | "unload":
                return await self._persist(arrival, command)
            case "abandon":
                return await self._abandon(arrival, command)
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

    async def _nothing_to_do(self, arrival: Arrival) -> bool:
        await self._holding.engine.lanes.keep(arrival, "applied", reason=NOT_LOADED)
        return True

    async def _refuse(self, arrival: Arrival, detail: str) -> bool:
        await self._holding.engine.lanes.keep(arrival, "rejected", reason="not_applicable", detail=detail)
        return True
