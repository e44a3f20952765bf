"""What a client asks of instances: of one, or of all that a query finds.

A command lies in the inbox until the worker that holds its instance, or takes it up, has followed it; what became of
it stands there as its verdict.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from holdfast.processor.finding import Finding
from holdfast.processor.store.connections import Connection
from holdfast.projections.criteria import Criteria
from holdfast.schemas.control import Command, Decision
from holdfast.schemas.errors import InstanceError

if TYPE_CHECKING:
    from holdfast.processor.engine.provider import InboxVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What became of asking one instance.

    ``command`` is the id under which the inbox keeps the command, and ``verdict`` what it says of it now: ``buffered``
    until a worker follows it, ``applied`` at once where nothing is to be done. Both are None if there is a ``refusal``.
    """

    instance_id: UUID
    command: str | None = None
    verdict: InboxVerdict | None = None
    refusal: str | None = None


class Control(Finding):
    """The commands of a client.

    ``by`` and ``why`` go into the instance's history. Each method for one instance returns the id under which the inbox
    keeps the command, and raises ``InstanceNotFound``, ``InstanceCompleted``, and ``CommandRefused`` for what makes no
    sense as the instance is now.
    """

    _new_id: Callable[[], UUID]

    async def suspend(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Have an instance stand still once it is idle, until it is resumed."""
        return await self._ask(instance_id, Command(command="suspend", by=by, why=why))

    async def resume(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Let a suspended instance go on; ``NotSuspended`` if it is not."""
        return await self._ask(instance_id, Command(command="resume", by=by, why=why))

    async def cancel(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Have an instance unwind from where it waits: ``finally`` clauses run, then compensations."""
        return await self._ask(instance_id, Command(command="cancel", by=by, why=why))

    async def terminate(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """End an instance at once, without unwinding; what it does at the moment is cut short."""
        return await self._ask(instance_id, Command(command="terminate", by=by, why=why))

    async def abandon(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Have an instance dropped from memory at once, back to its last persistence point.

        What had woken it wakes it again, and what it did since runs again.
        """
        return await self._ask(instance_id, Command(command="abandon", by=by, why=why))

    async def persist(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Have an instance persisted, in the middle of what it does if need be."""
        return await self._ask(instance_id, Command(command="persist", by=by, why=why))

    async def unload(self, instance_id: UUID, *, by: str, why: str | None = None) -> str:
        """Have an instance persisted and let go of by its host, in the middle of what it does if need be."""
        return await self._ask(instance_id, Command(command="unload", by=by, why=why))

    async def resolve(
        self,
        instance_id: UUID,
        decision: Decision,
        *,
        by: str,
        why: str | None = None,
        call: str | None = None,
        result: Any = None,
    ) -> str:
        """Say what became of an activity in doubt: it was ``done``, it is to run again (``retry``), or it failed.

        ``call`` is the call's idempotency key; it may be left out if only one is in doubt, else ``NotInDoubt``.
        ``result`` is what a call that was done returned, as a JSON value.
        """
        return await self._ask(
            instance_id, Command(command="resolve", by=by, why=why, call=call, decision=decision, result=result)
        )

    async def reschedule_timer(
        self, instance_id: UUID, timer: str, due: datetime, *, by: str, why: str | None = None
    ) -> str:
        """Have an open timer be due at another moment, which has an offset from UTC; ``timer`` is its bookmark."""
        return await self._ask(
            instance_id, Command(command="reschedule_timer", by=by, why=why, timer=timer, due=due.isoformat())
        )

    async def fire_timer(self, instance_id: UUID, timer: str, *, by: str, why: str | None = None) -> str:
        """Have an open timer fire as though it were due now."""
        return await self._ask(instance_id, Command(command="fire_timer", by=by, why=why, timer=timer))

    async def cancel_timer(self, instance_id: UUID, timer: str, *, by: str, why: str | None = None) -> str:
        """Close an open timer for good; refused where nothing else would end its wait."""
        return await self._ask(instance_id, Command(command="cancel_timer", by=by, why=why, timer=timer))

    async def command(
        self, instance_id: UUID, command: Command, command_id: str | None = None, *, keeps_refusal: bool = False
    ) -> Given:
        """Give any command; what is given again under one ``command_id`` is given once.

        With ``keeps_refusal`` the inbox keeps a command that is refused too, and nothing is raised for it.
        """
        from holdfast.processor import commanding

        message_id = command_id or str(self._new_id())

        async def work(connection: Connection) -> Given:
            async with connection.transaction():
                verdict = await commanding.give(
                    connection, instance_id, command, message_id, keeps_refusal=keeps_refusal
                )
            return Given(instance_id=instance_id, command=message_id, verdict=verdict)

        return await self._run(work)

    async def command_all(
        self, command: Command, command_id: str | None = None, **criteria: Unpack[Criteria]
    ) -> AsyncIterator[Given]:
        """Give a command to every instance that has not ended and fits all that is given; yield what became of each.

        Criteria are those of ``instances``. Each instance gets a command of its own: a query is no transaction. With
        ``command_id`` their ids are made from it, so that a query that is given again gives no command twice.
        """
        living: Criteria = {**criteria, "is_completed": False}
        async for instance in self.every_instance(**living):
            own_id = None if command_id is None else f"{command_id}:{instance.instance_id}"
            try:
                yield await self.command(instance.instance_id, command, own_id)
            except InstanceError as error:
                yield Given(instance_id=instance.instance_id, refusal=str(error))

    async def _ask(self, instance_id: UUID, command: Command) -> str:
        given = await self.command(instance_id, command)
        return given.command or ""
