"""Gives a projection a stretch of history once more, a page at a time, while it goes on following the log.

Between two pages the projection handles what is new, here, as the lock would else keep other processes from it. Where a
handler fails, the events of its page are given one by one, so that all before the one to blame are handled; that one is
passed over, or ends the replay, as the projection says itself. It is not listed as skipped by that: it is already if
the projection passed over it before, and else has been handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

import psycopg

from holdfast.events.log import Page
from holdfast.processor.services.follower import Follower
from holdfast.processor.store.connections import Connections, failure
from holdfast.processor.store.unit_of_work import Handle
from holdfast.projections import redelivery
from holdfast.projections.lag import Progress
from holdfast.projections.selection import Selection
from holdfast.projections.subscription import Build, HandlerFailed, is_transient
from holdfast.schemas.errors import BrokerError, ReplayStopped, StorageError, UnreadableEvent


@dataclass(frozen=True, slots=True)
class IntoStep(Progress):
    """How far a replay into a projection has come: events that its handlers took, and those that it passed over."""

    handled: int
    skipped: int
    cursor: str


async def replay_into(
    connections: Connections, build: Build, chosen: Selection, *, timeout: float
) -> AsyncIterator[IntoStep]:
    """Give the live build of a projection what is chosen, and yield how far that is, at first and after every page.

    ``timeout`` is how many seconds a transaction may take. Raises ``ReplayStopped`` at an event that a handler cannot
    take, ``ReplayRefused`` if a rebuild begins, and ``StorageError``; all before it is handled then.
    """
    follower = Follower(connections, build, timeout=timeout)
    handled = skipped = careful = 0
    while True:
        yield IntoStep(chosen.after.position, chosen.end.position, None, handled, skipped, str(chosen.after))
        if chosen.after >= chosen.end:
            return
        try:
            page = await _redeliver(connections, build, chosen, 1 if careful else build.subscription.page, timeout)
        except HandlerFailed as failed:
            if len(failed.page.events) > 1:
                careful = failed.page.seen
                continue
            _pass_over(build, failed)
            page, skipped = failed.page, skipped + 1
        else:
            handled += len(page.events)
        careful = max(0, careful - page.seen)
        if not page.seen:
            # What was there when it began is no longer in the log.
            chosen = replace(chosen, after=chosen.end)
        elif page.cursor is not None:
            chosen = replace(chosen, after=page.cursor)
        # What keeps it from what is new is noted with it, and tried again after the next page.
        with suppress(StorageError, BrokerError, UnreadableEvent):
            await follower.step()


async def _redeliver(connections: Connections, build: Build, chosen: Selection, limit: int, timeout: float) -> Page:
    page: Page | None = None
    try:
        async with asyncio.timeout(timeout), connections.take() as connection, connection.transaction():
            page = await redelivery.redeliver(connection, build, chosen, Handle(connection), limit)
    except TimeoutError:
        raise StorageError(f"a page took longer than {timeout:g} s") from None
    except psycopg.Error as error:
        # What is refused at the commit is the handlers' doing; what fails for the server's sake is nobody's.
        if page is None or is_transient(error):
            raise failure(error) from error
        raise HandlerFailed(page, error) from error
    return page


def _pass_over(build: Build, failed: HandlerFailed) -> None:
    """Do as the projection says about an event that it cannot take."""
    (event,) = failed.page.events
    if build.subscription.on_poison == "stop":
        raise ReplayStopped(event.instance_id, event.version, cursor=str(event.cursor), reason=str(failed)) from failed
