"""Follows the log for one subscription: a page of events after the other, each in a transaction of its own.

What fails for the server's sake is tried again, for as long as it takes. Where a handler fails, or takes too long, the
events of its page are taken one by one, so that all before the one to blame are handled; that one stops the
subscription, or is recorded and passed over, as it says itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg
import structlog

from holdfast.events.log import Page
from holdfast.events.recorded import Cursor
from holdfast.processor.store.connections import Connection, Connections, failure
from holdfast.processor.store.unit_of_work import Handle
from holdfast.projections import builds, lag, subscription
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Build, Elsewhere, HandlerFailed, Read, is_transient
from holdfast.schemas.errors import BrokerError, StorageError, UnreadableEvent

log = structlog.get_logger("holdfast.projections")

TRIES = 3
"""How often a single event may take too long before it is to blame, and not the machine."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction came to: how many events of the log it went through, up to where, and if more are there.

    ``is_elsewhere`` tells that there are some, and that another process has them in hand.
    """

    seen: int = 0
    cursor: Cursor | None = None
    is_more: bool = False
    is_elsewhere: bool = False


@dataclass(slots=True)
class _Older:
    """The transactions that were open when a build was whole, and are still; and when that build was begun."""

    begun_at: datetime
    open: set[str]
    is_told: bool = False

    def tell(self, name: str, found: Mapping[str, int]) -> None:
        """Say once which server processes have them, if any are left."""
        if self.open and not self.is_told:
            self.is_told = True
            pids = sorted(found[it] for it in self.open)
            log.info("built, and waits for older transactions", projection=name, pids=pids)


class Follower:
    """One process's part in running one build of a subscription; others may have theirs at the same time.

    ``timeout`` is how many seconds a transaction may take, and ``read`` what its events come from.
    """

    def __init__(
        self, connections: Connections, build: Build, *, timeout: float, read: Read = subscription.read
    ) -> None:
        self.build = build
        self.subscription = build.subscription
        self._connections = connections
        self._timeout = timeout
        self._read = read
        self._older: _Older | None = None
        self._careful = 0
        self._in_hand: Page | None = None
        self._tries = 0

    async def step(self) -> Step:
        """Handle a page of events if there are some and nobody else does.

        Raises ``StorageError``, ``BrokerError`` or ``UnreadableEvent`` if it is to be tried again.
        """
        try:
            return await self._step()
        except (psycopg.Error, StorageError, BrokerError, UnreadableEvent) as error:
            await self._note(error)
            if isinstance(error, psycopg.Error):
                raise failure(error) from error
            raise

    @property
    def is_waiting(self) -> bool:
        """Whether this build is whole, and waits for older transactions to end."""
        return self._older is not None and self._older.is_told and bool(self._older.open)

    async def stopped_by(self) -> str | None:
        """Return why the build stands still, if it does."""
        progress = await self._connections.run(lambda connection: lag.progress(connection, self.build))
        return None if progress is None else progress.stopped_by

    async def begin(self, *, restart: bool) -> bool:
        """Begin the build, or go on with it; see ``builds.begin``."""
        try:
            async with self._connections.take() as connection, connection.transaction():
                return await builds.begin(connection, self.subscription, restart=restart)
        except psycopg.Error as error:
            raise failure(error) from error

    async def promote(self) -> bool:
        """Let this build, which has come to the end of the log, be what readers see; see ``builds.promote``.

        False where it cannot be, as yet: what is too much for it, or a handler does not take, is for ``step``, and who
        began before it was whole, and would not see all of it, has to end first: see ``is_waiting``.
        """
        try:
            async with asyncio.timeout(self._timeout), self._connections.take() as connection:
                if await self._must_wait(connection):
                    return False
                async with connection.transaction():
                    done = await builds.promote(connection, self.subscription, Handle(connection))
        except (HandlerFailed, TimeoutError):
            return False
        except psycopg.Error as error:
            raise failure(error) from error
        if done:
            log.info("built", projection=self.subscription.name, version=self.subscription.version)
            await self.drop_old()
        return done

    async def drop_old(self, patience: float = 5.0) -> None:
        """Drop the tables that a newer build has taken the place of, unless somebody still reads them."""
        if self.subscription.schema is None:
            return
        try:
            async with self._connections.take() as connection, connection.transaction():
                await builds.drop_old(connection, self.subscription, patience)
        except psycopg.Error as error:
            log.warning("the tables of the build before are still read", error=str(error))

    async def _must_wait(self, connection: Connection) -> bool:
        """Tell whether the swap has to wait: for the build to be whole, or for who began before it was."""
        if self._older is not None and self._older.open:
            found = await builds.open_transactions(connection)
            self._older.open &= found.keys()
            self._older.tell(self.subscription.name, found)
            if self._older.open:
                return True
        async with connection.transaction():
            whole = await builds.come_up(connection, self.subscription, Handle(connection))
        if whole is None:
            return True
        if self._older is None or self._older.begun_at != whole.begun_at:
            self._older = _Older(whole.begun_at, set(await builds.open_transactions(connection)))
        return bool(self._older.open)

    async def _step(self) -> Step:
        try:
            page = await self._advance(1 if self._careful else None)
        except Elsewhere:
            return Step(is_elsewhere=True)
        except HandlerFailed as failed:
            return await self._look_closer(failed)
        except TimeoutError as error:
            return await self._try_again(error)
        self._tries = 0
        if page is None:
            return Step()
        full = page.seen == (1 if self._careful else self.subscription.page)
        self._careful = max(0, self._careful - page.seen) if page.seen else 0
        return Step(page.seen, page.cursor, is_more=full)

    async def _look_closer(self, failed: HandlerFailed) -> Step:
        """Take the events of a page that failed one by one, or find the single one to blame."""
        if len(failed.page.events) > 1:
            self._careful = failed.page.seen
            return Step(is_more=True)
        return await self._give_up(failed)

    async def _try_again(self, error: TimeoutError) -> Step:
        page = self._in_hand
        late = StorageError(f"it took longer than {self._timeout:g} s")
        if page is None or not page.events:
            raise late from error
        if len(page.events) == 1:
            self._tries += 1
            if self._tries < TRIES:
                await self._note(late)
                return Step(is_more=True)
            self._tries = 0
        return await self._look_closer(HandlerFailed(page, TimeoutError(str(late))))

    async def _take_up(
        self, connection: Connection, subscription: Subscription, start: Cursor | None, limit: int
    ) -> Page:
        self._in_hand = await self._read(connection, subscription, start, limit)
        return self._in_hand

    async def _advance(self, limit: int | None) -> Page | None:
        page = self._in_hand = None
        async with asyncio.timeout(self._timeout), self._connections.take() as connection:
            if not await subscription.is_due(connection, self.build):
                return None
            try:
                async with connection.transaction():
                    # Half of the time is left for what a handler has to do, if it waits for a lock as well.
                    page = await subscription.advance(
                        connection,
                        self.build,
                        Handle(connection),
                        limit,
                        read=self._take_up,
                        patience=self._timeout / 2,
                    )
            except psycopg.Error as error:
                if page is None or is_transient(error):
                    raise
                raise HandlerFailed(page, error) from error
        return page

    async def _give_up(self, failed: HandlerFailed) -> Step:
        """Do as the subscription says about an event that it cannot take."""
        self._careful = 0
        skips = self.subscription.on_poison == "skip"
        settle = subscription.skip if skips else subscription.stop
        async with self._connections.take() as connection, connection.transaction():
            recorded = await settle(connection, self.build, failed)
        if recorded is not None:
            log.error(
                "event skipped" if skips else "projection stopped",
                projection=self.subscription.name,
                instance_id=str(recorded.instance_id),
                version=recorded.version,
                error=str(failed),
            )
        return Step(seen=failed.page.seen, cursor=failed.page.cursor, is_more=True) if skips else Step()

    async def _note(self, error: BaseException) -> None:
        with suppress(StorageError):
            await self._connections.run(lambda c: subscription.note(c, self.build, error))
