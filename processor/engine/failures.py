"""What becomes of an instance whose burst or commit failed.

When a burst fails, the policy of the workflow decides; when a commit fails, the copy is dropped and loaded again, and
the messages that it had taken are tried once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from holdfast.events.types import InstanceSuspended, SuspensionReason, Where
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.burst import CutShort
from holdfast.processor.engine.doubt import InDoubt
from holdfast.processor.engine.provider import AlreadyConsumed, Suspension
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.schemas.errors import (
    InstanceError,
    InstanceLockLost,
    NotPersistable,
    ProgramUnresolvable,
    StorageError,
    TransactionConflict,
    WrongExpectedVersion,
)

if TYPE_CHECKING:
    from holdfast.processor.engine.holding import Holding

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


class Failures:
    """Meets the failures of one holding; methods that give a ``bool`` say whether the holding goes on."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def meet(self, error: Exception) -> bool:
        """Do what is to be done about a failure, and start over from there if the store gives way under it.

        Raises what it knows nothing of.
        """
        try:
            return await self._meet(error)
        except LOST as lost:
            return await self._reload(lost)

    async def _meet(self, error: Exception) -> bool:
        match error:
            case UnhandledError():
                return await self._unhandled(error)
            case NotPersistable():
                return await self.suspend("not_persistable", type(error).__name__, str(error))
            case ProgramUnresolvable():
                return await self.suspend("program_unresolvable", type(error).__name__, str(error))
            case InDoubt():
                return await self.suspend("in_doubt", None, str(error), error.where)
            case TransactionConflict():
                return await self._try_again(error)
            case CutShort():
                await self.go_back()
                return await self._holding.load_again()
        if isinstance(error, LOST):
            return await self._reload(error)
        raise error

    async def _unhandled(self, error: UnhandledError) -> bool:
        instance = self._holding.instance
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
        holding = self._holding
        instance = holding.instance
        log.warning(
            "suspending",
            instance_id=str(instance.instance_id),
            workflow=instance.workflow.name,
            reason=reason,
            detail=detail,
        )
        taken = await self._drop()
        if instance.state.version == 0:
            start = next((a for a in taken if a.envelope.message_id == instance.loaded.start_message_id), None)
            suspension = Suspension(
                instance_id=instance.instance_id,
                host_id=holding.runtime.host_id,
                lock_token=instance.loaded.lock_token,
                reason=reason,
                exception_name=exception_name,
                message=None if start is None else start.consumed(),
            )
            await holding.runtime.provider.suspend([suspension])
            holding.runtime.counts.suspended[reason] += 1
            for arrival in taken:
                if arrival is start:
                    holding.mailbox.leave(arrival)
                    arrival.settle()
                elif arrival.stored is None:
                    await holding.keep(arrival)
        else:
            for arrival in taken:
                if arrival.stored is None:
                    await holding.keep(arrival)
            suspended = InstanceSuspended(reason=reason, exception_name=exception_name, detail=detail, where=where)
            await instance.suspend(suspended, taken)
        return await holding.let_go(release=False)

    async def _abandon(self, error: UnhandledError) -> bool:
        """Go back to the last persistence point, unload, and try the messages again, or give them up."""
        holding = self._holding
        instance, runtime = holding.instance, holding.runtime
        taken = await self._drop()
        await instance.keep_known()
        if taken:
            attempts = max(await runtime.provider.attempt([a.envelope.message_id for a in taken]))
        else:
            attempts = await runtime.provider.attempt_burst(instance.instance_id, "abandoned")
        if attempts >= runtime.settings.max_attempts:
            if not taken:
                return await self.suspend("unhandled_exception", error.name, error.detail, error.where)
            for arrival in taken:
                await holding.keep(arrival, "unhandled_exception", error.detail)
            return await holding.let_go(release=True)
        pause = _pause(attempts)
        if not holding.mailbox.arrived:
            holding.engine.wake_later(instance.instance_id, pause)
        return await holding.let_go(release=True, pause=pause)

    async def _reload(self, error: Exception) -> bool:
        """Drop the copy and load the instance again; False if it is no longer ours to hold."""
        holding = self._holding
        log.warning("copy dropped", instance_id=str(holding.instance.instance_id), error=str(error))
        if isinstance(error, InstanceLockLost):
            holding.runtime.doubt_lease()
        for arrival in await self._drop():
            if isinstance(error, AlreadyConsumed) and arrival.envelope.message_id == error.message_id:
                arrival.is_double = True
                if arrival.stored is None:
                    holding.mailbox.leave(arrival)
                    holding.engine.lanes.retry([arrival], 0)
        return await holding.load_again(STORAGE_PAUSE if isinstance(error, StorageError) else 0)

    async def _try_again(self, error: TransactionConflict) -> bool:
        """Go back and run the burst again: only the end of the whole transaction frees what others wait for.

        What meets a conflict so often that it is no accident is an exception of the user's SQL like any other.
        """
        holding = self._holding
        holding.conflicts += 1
        if holding.conflicts >= CONFLICTS:
            return await self._unhandled(UnhandledError(error.__cause__ or error, holding.instance.place))
        log.warning("conflict", instance_id=str(holding.instance.instance_id), error=str(error))
        await self.go_back()
        return await holding.load_again(_pause(holding.conflicts))

    async def go_back(self) -> None:
        """Drop all since the last persistence point, but for what is known of calls that must not run twice."""
        await self._drop()
        await self._holding.instance.keep_known()

    async def _drop(self) -> list[Arrival]:
        """Drop all since the last persistence point; what it had taken from RabbitMQ is in the mailbox again."""
        holding = self._holding
        taken = await holding.instance.drop()
        holding.mailbox.put_back(taken)
        holding.is_prompt = True
        return taken

    async def start_over(self) -> None:
        """Let go after a failure that has no name; whatever may have caused it is under suspicion."""
        holding = self._holding
        await self._drop()
        for arrival in holding.mailbox.arrived:
            arrival.redelivered, arrival.is_counted = True, False
        # It may stand in the middle of a burst, with nothing else to wake it.
        holding.engine.wake_later(holding.instance.instance_id, LAST_RETRY)
        await holding.let_go(release=True, pause=STORAGE_PAUSE)


def _pause(attempts: int) -> float:
    """Return the seconds to wait after so many attempts."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** (attempts - 1))
