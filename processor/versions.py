"""Versions of an app: what a client asks before a deployment, and how it moves instances to new programs after it.

    async for verdict in client.preflight(app):
        print(verdict.instance_id, verdict.can_run, verdict.can_move, verdict.obstacles)
    await client.migrate(app, instance_id, by="ann", why="the new prices")

Both take the app as its code stands here. The first only reads, page by page; the second holds each instance for the
time of one transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from holdfast.processor.store.connections import Connection
from holdfast.schemas.encodings import StateEncoding

if TYPE_CHECKING:
    from holdfast.processor.hold import HeldInstance, OnLocked
    from holdfast.processor.language.app import App
    from holdfast.processor.migrating import Verdict

T = TypeVar("T")


class Versions(ABC):
    """The part of a client that compares instances with the code of their app, and moves them."""

    @abstractmethod
    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something on a connection."""

    @abstractmethod
    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        """Give a connection of its own to what reads for longer."""

    @abstractmethod
    def hold(
        self, instance_id: UUID, *, on_locked: OnLocked = "basic_retry"
    ) -> AbstractAsyncContextManager[HeldInstance]:
        """Lock and load an instance."""

    async def preflight(self, app: App, *, program_key: str = "") -> AsyncIterator[Verdict]:
        """Yield how each living instance of an app stands to the app as it is given here, the oldest first.

        With ``program_key`` the signatures of older programs are looked at too. The streams are folded from the log,
        one after the other. Nothing is written: the role ``holdfast_observer`` is enough. Workers may run meanwhile.
        """
        from holdfast.processor import migrating

        app.check()
        async with self._connection() as connection:
            async for verdict in migrating.preflight(connection, app, program_key):
                yield verdict

    async def migrate(
        self,
        app: App,
        instance_id: UUID,
        *,
        by: str,
        why: str | None = None,
        on_locked: OnLocked = "no_retry",
        program_key: str = "",
        state_encoding: StateEncoding = "none",
        dry_run: bool = False,
    ) -> Verdict:
        """Move an instance to the programs of the app as it is given here, and return how it stood before.

        It is moved if the answer says that it ``can_move``; otherwise nothing is done. ``by`` and ``why`` go into its
        history. ``program_key`` signs the deployed programs, should no worker have stored them yet; ``state_encoding``
        is how states of this app are stored, where its workflow does not say. Raises as
        ``hold`` does: ``InstanceLocked`` for one that a worker has loaded, after ``on_locked``.
        """
        from holdfast.processor import migrating

        if dry_run:
            return await self._run(lambda connection: migrating.look(connection, app, instance_id))
        async with self.hold(instance_id, on_locked=on_locked) as held:
            return await migrating.migrate(
                self._run, held, app, by=by, why=why, program_key=program_key, state_encoding=state_encoding
            )
