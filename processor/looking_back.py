"""What a client asks of the log about instances: what happened to them, and how they were at any time.

All of it is read from events that no longer change, so workers may run meanwhile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from holdfast.processor.store.connections import Connection
from holdfast.projections import compensation, history, transactions, verify
from holdfast.projections.compensation import Compensation
from holdfast.projections.history import Entry
from holdfast.projections.instance import InstanceState
from holdfast.projections.transactions import Commit
from holdfast.projections.verify import Checked

T = TypeVar("T")


class LookingBack(ABC):
    """The part of a client that reads the log of instances.

    Methods raise ``InstanceNotFound`` for one that is not there.
    """

    app: str | None

    @abstractmethod
    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something on a connection."""

    @abstractmethod
    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        """Give a connection of its own to what reads for longer."""

    async def history(
        self, instance_id: UUID, from_version: int = 1, to_version: int | None = None
    ) -> AsyncIterator[Entry]:
        """Yield what happened to an instance, both ends included, or raise ``InstanceNotFound``."""
        async with self._connection() as connection:
            async for entry in history.history(connection, instance_id, from_version, to_version):
                yield entry

    async def transactions(self, instance_id: UUID) -> AsyncIterator[Commit]:
        """Yield the transactions in which an instance committed, oldest first, or raise ``InstanceNotFound``."""
        async with self._connection() as connection:
            async for commit in transactions.transactions(connection, instance_id):
                yield commit

    async def compensation(self, instance_id: UUID) -> Compensation:
        """Return what would be undone if an instance were cancelled now, and what can no longer be.

        It knows what was registered up to the last persistence point. Raises ``InstanceNotFound``.
        """
        return await self._run(lambda connection: compensation.compensation(connection, instance_id))

    async def state(self, instance_id: UUID, at: int | datetime | None = None) -> InstanceState:
        """Return an instance's state at a version or a moment, or as it is now.

        Raises ``InstanceNotFound``, and ``VersionNotFound`` for a version that it has not come to.
        """
        return await self._run(lambda connection: history.state_at(connection, instance_id, at))

    async def verify(self, instance_id: UUID | None = None) -> AsyncIterator[Checked]:
        """Refold every persisted instance, or one, and yield how the instance store compares with the log."""
        async with self._connection() as connection:
            async for checked in verify.verify(connection, app=self.app, instance_id=instance_id):
                yield checked
