"""Where an instance waits: its bookmarks, what begins elsewhere in the meantime, and the commit of both."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.events.types import BookmarkClosed, BookmarkOpened, Reason, Where
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.queued import QueuedCalls
from holdfast.processor.engine.subflows import Subflows
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.processor.engine.writer import Mark, Writer
from holdfast.processor.language.awaitables import SubflowCall
from holdfast.schemas.errors import KeyInUse


class Waiting:
    """Has one instance wait; what it cannot wait for is raised at the ``await``."""

    def __init__(self, asks: Asks, writer: Writer, subflows: Subflows, queued: QueuedCalls) -> None:
        self._asks = asks
        self._writer = writer
        self._subflows = subflows
        self._queued = queued

    async def idle(self, reason: Reason | None) -> bool:
        """Open the bookmarks of all asks, close those of asks withdrawn, and persist; False if one cannot be opened.

        With no ``reason`` there is no persistence point, unless what is waited for cannot do without.
        """
        for name in self._asks.abandoned():
            self._writer.record(BookmarkClosed(where=self._where_opened(name), bookmark=name))
        return await self.begin(list(self._asks), idle=True, reason=reason)

    async def begin(self, asks: Sequence[Ask], *, idle: bool, reason: Reason | None = "idle") -> bool:
        """Open the bookmarks of asks that have none, with the subflows that they start, and persist.

        ``idle`` says that these are all asks, ``reason`` is as there. False if one of them cannot wait, and has an
        exception for an answer.
        """
        unwritten = self._writer.unwritten
        before = unwritten.mark()
        requests = False
        for ask in asks:
            if self._asks.bookmarks_of(ask):
                continue
            try:
                if isinstance(ask.awaited, SubflowCall):
                    self._subflows.start(ask)
                elif isinstance(ask, Call) and self._queued.serves(ask):
                    self._queued.request(ask)
                    requests = True
                else:
                    for opened in bookmarks.opened(ask, self._asks.asked_at(ask)):
                        self._writer.record(opened)
            except Exception as error:  # noqa: BLE001  What it is to wait for makes no sense, and that is the caller's.
                unwritten.back_to(before)
                self._asks.answer(ask, Raised(error))
                return False
        if unwritten.children:
            reason = "subflow"
        elif requests:
            reason = "activity_intent"
        elif reason is None and self._is_heard_here():
            self._writer.go_ahead()
            return True
        try:
            await self._writer.persist(reason or "idle", self._asks.machine, idle=idle)
        except KeyInUse as error:
            ask = self._refused(asks, error)
            self._take_back(before, ask, error)
            self._asks.answer(ask, Raised(error))
            return False
        return True

    async def spawn(self, ask: Ask) -> None:
        """Start a subflow that is not waited for, and commit."""
        before = self._writer.unwritten.mark()
        if self._subflows.spawn(ask):
            try:
                await self._writer.persist("subflow", self._asks.machine)
            except KeyInUse as error:
                self._take_back(before, ask, error)
                self._asks.retract(ask, error)

    def _take_back(self, before: Mark, ask: Ask, error: KeyInUse) -> None:
        """Have a commit not tried that was refused for what an ask wants."""
        if self._writer.sql.is_open:
            # The user SQL is rolled back with the commit, so the burst cannot go on from here.
            raise UnhandledError(error, ask.where) from error
        unwritten = self._writer.unwritten
        unwritten.back_to(before)
        # While it was idle before, it may have opened them in an earlier part of the batch.
        unwritten.keep(
            [
                event
                for event in unwritten.events
                if not isinstance(event, BookmarkOpened) or not bookmarks.belongs(event.bookmark, ask)
            ]
        )

    def _is_heard_here(self) -> bool:
        """Whether whatever comes for the bookmarks that are not persisted comes to this host, by the instance's key."""
        writer = self._writer
        loaded, settings = writer.loaded, writer.runtime.settings
        # Another instance's child is where that one was, wherever the messages with its own key come.
        own = loaded.correlation_key if loaded.parent_id is None or settings.partitions == 1 else None
        return not writer.sql.is_open and all(
            event.correlation_key in (None, own)
            for event in writer.unwritten.events
            if isinstance(event, BookmarkOpened)
        )

    def _refused(self, asks: Sequence[Ask], error: KeyInUse) -> Ask:
        """Return the ask that wants a key which is in use."""
        unwritten = self._writer.unwritten
        for event in unwritten.events:
            if not isinstance(event, BookmarkOpened):
                continue
            wanted = event.message_type, event.correlation_key
            for child in unwritten.children:
                if event.correlation_key == str(child.instance_id):
                    wanted = child.start.type, child.correlation_key
            refused = next((ask for ask in asks if bookmarks.belongs(event.bookmark, ask)), None)
            if refused is not None and wanted == (error.message_type, error.correlation_key):
                return refused
        raise error

    def _where_opened(self, name: str) -> Where:
        """Return where an open bookmark was opened."""
        for event in self._writer.unwritten.events:
            if isinstance(event, BookmarkOpened) and event.bookmark == name:
                return event.where
        return self._writer.place_of(name)
