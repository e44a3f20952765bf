"""Control commands, as who holds an instance carries them out.

Each ends in an event that says who gave it and why, committed together with the command's verdict. One that
makes no sense where the instance stands is rejected, and the verdict says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.events.types import InstanceSuspended
from holdfast.processor.engine.arrival import Arrival
from holdfast.schemas.control import Command

if TYPE_CHECKING:
    from holdfast.processor.engine.holding import Holding


class Commands:
    """Carries out what is commanded of one instance; each method says whether the holding goes on."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def wake(self) -> bool:
        """Follow a command, if there is one that concerns a suspended instance; else let go of it."""
        holding = self._holding
        taken = holding.mailbox.take_command(("resume", "cancel", "terminate"))
        if taken is None:
            return await holding.let_go(release=True)
        arrival, command = taken
        if command.command == "resume":
            return await self._resume(arrival, command)
        return await self._obey(arrival, command)

    async def obey_next(self) -> bool:
        """Follow the next command, if there is one; False if there was none."""
        taken = self._holding.mailbox.take_command()
        return taken is not None and await self._obey(*taken)

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
        if instance.must_run:
            await holding.run()
        else:
            await instance.persist_requested()
            holding.mailbox.is_stale = True
        return True

    async def _obey(self, arrival: Arrival, command: Command) -> bool:
        """Cancel, terminate or suspend the instance as commanded; refuse any other command."""
        holding, name = self._holding, command.command
        instance = holding.instance
        if name == "suspend" and not instance.state.is_suspended:
            await instance.suspend(InstanceSuspended(reason="requested", detail=command.why, by=command.by), (arrival,))
        elif name == "cancel" and instance.state.version > 0:
            instance.restore()
            instance.cancel(arrival, command)
            await holding.run()
        elif name in ("cancel", "terminate"):
            if instance.state.version == 0 and not await self._prepare_start():
                return await holding.let_go(release=True)
            await instance.end(arrival, command)
        else:
            detail = f"{name} is not possible now"
            await holding.engine.lanes.keep(arrival, "rejected", reason="not_applicable", detail=detail)
        holding.mailbox.is_stale = True
        return True

    async def _prepare_start(self) -> bool:
        """Record that a non-persisted instance starts, without running it; False if its start message is gone."""
        instance = self._holding.instance
        stored = instance.loaded.start_message
        arrival = None if stored is None else Arrival.of(stored)
        message = None if arrival is None else await self._holding.parse(arrival)
        if arrival is None or message is None:
            return False
        instance.begin(arrival, message)
        return True
