"""A subscription's way along the log: what it handles and where it stands commit together.

One build of one subscription is run by one process at a time, by a lock that ends with the transaction. So any
process may try, a dead one holds up nobody, and the database may sit behind PgBouncer. The caller owns the
transaction; while nothing is written in it, it holds nobody's safe horizon back, as a lock of a row would. Whoever may
log in may take such a lock, though: see `docs/deploy.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from holdfast.events.log import Page
from holdfast.events.postgres import read_page
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.projections.definition import Subscription
from holdfast.schemas.errors import BrokerError, HoldfastError, StorageError
from holdfast.schemas.identifiers import storable
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_ERROR = 2000
"""Characters of an error that are kept."""

Connection = AsyncConnection[tuple[Any, ...]]
Stage = Literal["live", "next"]
"""What readers see; what is being built beside it, to take its place."""

_TRANSIENT = ("08", "25006", "40", "53", "55P03", "57P", "58")
"""How SQLSTATEs begin that are a server's doing: connections, standbys, conflicts, resources, locks, shutdowns."""

Read = Callable[[Connection, Subscription, Cursor | None, int], Awaitable[Page]]
"""Returns the events for a subscription among the next ones behind a cursor, of which no more than so many are read."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a subscription: its tables and its checkpoint."""

    subscription: Subscription
    stage: Stage

    @property
    def key(self) -> dict[str, Any]:
        """What names its row."""
        return {"app": self.subscription.app, "name": self.subscription.name, "build": self.stage}

    @property
    def schema(self) -> str:
        """Where its tables stand; empty if it has none."""
        schema = self.subscription.schema or ""
        return f"{schema}__next" if schema and self.stage == "next" else schema


def is_transient(error: Exception) -> bool:
    """Tell whether an error is a server's, and says nothing about the events: the same may pass when tried again."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, (StorageError, BrokerError))
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)  # The connection is lost.
    return error.sqlstate.startswith(_TRANSIENT)


class HandlerFailed(HoldfastError):
    """A handler raised, or what it wrote was refused; ``page`` are the events that it was given."""

    def __init__(self, page: Page, error: BaseException) -> None:
        super().__init__(describe(error))
        self.page = page


class Elsewhere(HoldfastError):
    """Another process is running the build at this moment."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where one build of a subscription stands: ``cursor``, None at the beginning of the log."""

    version: int
    is_running: bool
    cursor: Cursor | None
    begun_at: datetime


async def lock(connection: Connection, build: Build) -> None:
    """Wait until nobody else runs a build, and keep them from it until the end of the transaction."""
    await connection.execute(_SQL["lock_projection"], build.key)


async def checkpoint(connection: Connection, build: Build) -> Checkpoint | None:
    """Return where a build stands; None if there is none."""
    cursor = await connection.execute(_SQL["checkpoint"], build.key)
    row = await cursor.fetchone()
    if row is None:
        return None
    version, status, epoch, xid, position, begun_at = row
    return Checkpoint(version, status == "running", Cursor(epoch, xid, position) if epoch else None, begun_at)


async def is_due(connection: Connection, build: Build) -> bool:
    """Tell whether there are events for a build that runs; takes no lock."""
    cursor = await connection.execute(_SQL["is_due"], build.key)
    row = await cursor.fetchone()
    return row is not None and row[0] == build.subscription.version


async def read(connection: Connection, subscription: Subscription, start: Cursor | None, limit: int) -> Page:
    """Read the next events for a subscription; see ``Read``."""
    return await read_page(connection, start, limit, app=subscription.app, types=subscription.types)


async def advance(
    connection: Connection,
    build: Build,
    tx: Any,
    limit: int | None = None,
    *,
    read: Read = read,
    patience: float = 0.0,
) -> Page | None:
    """Handle the next events, ``limit`` at most, and move the checkpoint behind them.

    Returns the events; None if the build is not to be run. ``tx`` is what handlers get, and ``patience`` for how many
    seconds a statement waits for a lock, 0 for ever. Raises ``Elsewhere``, and ``HandlerFailed``, and then the
    transaction is to be rolled back.
    """
    cursor = await connection.execute(
        _SQL["try_lock_projection"], build.key | {"lock_timeout": f"{round(patience * 1000)}ms"}
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise Elsewhere(f"another process runs projection {build.subscription.name}")
    start = await checkpoint(connection, build)
    if start is None or not start.is_running or start.version != build.subscription.version:
        return None
    return await go_on(connection, build, start.cursor, tx, limit, read=read)


async def go_on(
    connection: Connection,
    build: Build,
    start: Cursor | None,
    tx: Any,
    limit: int | None = None,
    *,
    read: Read = read,
) -> Page:
    """Do as ``advance`` for a build that is locked already and stands at ``start``."""
    it = build.subscription
    page = await read(connection, it, start, limit or it.page)
    if not page.seen:
        return page
    if page.events:
        await handle(connection, it, build.schema, page, tx)
    await _move(connection, build, start, page, len(page.events))
    return page


async def skip(connection: Connection, build: Build, failed: HandlerFailed) -> RecordedEvent | None:
    """Pass over the one event of a page that failed, and keep what it was; None if somebody else was faster."""
    (recorded,) = failed.page.events
    await lock(connection, build)
    start = await checkpoint(connection, build)
    if start is None or (start.cursor is not None and start.cursor >= recorded.cursor):
        return None
    await connection.execute(_SQL["keep_skipped"], build.key | _failure(recorded, failed))
    await _move(connection, build, start.cursor, failed.page, 0)
    return recorded


async def stop(connection: Connection, build: Build, failed: HandlerFailed) -> RecordedEvent | None:
    """Have a build stand still before the one event of a page that failed; None if somebody else was faster."""
    (recorded,) = failed.page.events
    await lock(connection, build)
    start = await checkpoint(connection, build)
    if start is None or (start.cursor is not None and start.cursor >= recorded.cursor):
        return None
    await connection.execute(_SQL["stop_projection"], build.key | _failure(recorded, failed))
    return recorded


async def note(connection: Connection, build: Build, error: BaseException) -> None:
    """Keep why a build does not get on, for those who look."""
    await connection.execute(_SQL["note_error"], build.key | {"error": describe(error)})


def describe(error: BaseException) -> str:
    """Return an error as it is shown."""
    return storable(f"{type(error).__name__}: {error}"[:_ERROR])


async def enter(connection: Connection, schema: str) -> None:
    """Have names without a schema mean the tables in this one, if any, until the end of the transaction."""
    if schema:
        await connection.execute(_SQL["enter_schema"], {"schema": schema})


async def handle(connection: Connection, subscription: Subscription, schema: str, page: Page, tx: Any) -> None:
    """Let the handlers have a page, with their tables in a schema; raises ``HandlerFailed`` if one raises."""
    await enter(connection, schema)
    try:
        await subscription.handle(tx, page.events)
    except Exception as error:
        if is_transient(error):
            raise
        raise HandlerFailed(page, error) from error
    if connection.info.transaction_status is not TransactionStatus.INTRANS:
        over = StorageError("the transaction is over: a handler must not commit or roll back")
        raise HandlerFailed(page, over)


async def _move(connection: Connection, build: Build, start: Cursor | None, page: Page, handled: int) -> None:
    end = page.cursor
    if end is None:
        raise ValueError("an empty page leads nowhere")
    cursor = await connection.execute(
        _SQL["move_checkpoint"],
        build.key
        | {
            "from_position": start.position if start else 0,
            "epoch": end.epoch,
            "xid": str(end.xid),
            "position": end.position,
            "recorded_at": page.recorded_at,
            "handled": handled,
        },
    )
    if cursor.rowcount != 1:
        raise StorageError(f"projection {build.subscription.name} was moved by somebody else")


def _failure(recorded: RecordedEvent, failed: HandlerFailed) -> dict[str, Any]:
    return {
        "instance_id": recorded.instance_id,
        "event_version": recorded.version,
        "type": type(recorded.event).__name__,
        "error": str(failed),
    }
