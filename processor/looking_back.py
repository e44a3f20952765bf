"""What a client asks of the log about instances: what happened to them, and how they were at any time.

All of it is read from events that no longer change, so workers may run meanwhile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from holdfast.processor.store.connections import Connection
from holdfast.schemas.errors import ProgramUnresolvable

if TYPE_CHECKING:
    from holdfast.processor.language.program import Program
    from holdfast.processor.source import Source
    from holdfast.projections.compensation import Compensation
    from holdfast.projections.difference import Comparison
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
        self, instance_id: UUID, first: int | datetime = 1, last: int | datetime | None = None
    ) -> AsyncIterator[Entry]:
        """Yield what happened to an instance, what each event changed, and the source line at which it happened.

        Both ends are included: each is a version, or a moment with an offset from UTC. The text of a line is that of
        the user's file if it is here and unchanged, or else the await there as the stored program has it. Memory is
        bounded, however long the history. Raises ``InstanceNotFound``, and ``InvalidQuery`` if ``last`` comes before
        ``first``.
        """
        from holdfast.projections import history

        async with self._connection() as connection:
            sources: dict[str, Source] = {}
            async for entry in history.history(connection, instance_id, first, last):
                if entry.where is None:
                    yield entry
                    continue
                name = entry.program or ""
                if name not in sources:
                    sources[name] = await _source(connection, entry.recorded.metadata.get("app", ""), name)
                yield replace(entry, source=sources[name].at(entry.where))

    async def transactions(self, instance_id: UUID) -> AsyncIterator[Commit]:
        """Yield the transactions in which an instance committed, oldest first, or raise ``InstanceNotFound``."""
        from holdfast.projections import transactions

        async with self._connection() as connection:
            async for commit in transactions.transactions(connection, instance_id):
                yield commit

    async def compensation(self, instance_id: UUID) -> Compensation:
        """Return what would be undone if an instance were cancelled now, and what can no longer be.

        It knows what was registered up to the last persistence point. Raises ``InstanceNotFound``.
        """
        from holdfast.projections import compensation

        return await self._run(lambda connection: compensation.compensation(connection, instance_id))

    async def state(self, instance_id: UUID, at: int | datetime | None = None) -> InstanceState:
        """Return an instance's state at a version or a moment, or as it is now.

        At a moment, that is after the last event recorded by then. Raises ``InstanceNotFound``, ``VersionNotFound`` for
        a version that it has not come to or a moment before its first event, and ``ValueError`` for a moment without an
        offset from UTC.
        """
        from holdfast.projections import history

        return await self._run(lambda connection: history.state_at(connection, instance_id, at))

    async def diff(
        self,
        instance_id: UUID,
        before: int | datetime | None = None,
        after: int | datetime | None = None,
        *,
        other: UUID | None = None,
    ) -> Comparison:
        """Return what differs between two states: of an instance, each at a version or a moment or as it is now.

        With ``other`` the second state is that of another instance. Raises as ``state``.
        """
        from holdfast.projections.difference import Comparison, difference

        one = await self.state(instance_id, before)
        two = await self.state(other or instance_id, after)
        return Comparison(before=one, after=two, changes=difference(one, two))

    async def program(self, app: str, program_hash: str) -> Program | None:
        """Return a program that instances run on, not linked to any module; None if it is not stored."""
        return await self._run(lambda connection: _program(connection, app, program_hash))

    async def verify(self, instance_id: UUID | None = None) -> AsyncIterator[Checked]:
        """Refold every persisted instance, or one, and yield how the instance store compares with the log."""
        from holdfast.projections import verify

        async with self._connection() as connection:
            async for checked in verify.verify(connection, app=self.app, instance_id=instance_id):
                yield checked


async def _source(connection: Connection, app: str, program_hash: str) -> Source:
    from holdfast.processor.source import Source

    try:
        return Source(await _program(connection, app, program_hash))
    except ProgramUnresolvable:  # What happened is told all the same.
        return Source(None)


async def _program(connection: Connection, app: str, program_hash: str) -> Program | None:
    from holdfast.processor.language.program import Program
    from holdfast.processor.store import stored_programs

    stored = await stored_programs.find(connection, app, program_hash)
    return None if stored is None else Program.from_json(stored.program)
