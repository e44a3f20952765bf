"""Connections to Postgres: a bounded number, opened when needed, replaced when broken.

They are in autocommit mode and keep no session state, so that the database may sit behind PgBouncer in
transaction mode. There is no background task: a server that went away is noticed by whoever asks next,
and one that came back serves whoever asks next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.pq import TransactionStatus

from holdfast.schemas.errors import StorageError

Connection = AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")

CONNECT_TIMEOUT = 10
"""Seconds that the server may take to let a connection in."""

PATIENCE = 30.0
"""Seconds to wait for one of a bounded number of connections to be given back."""

TRIES = 5
"""How often work is done again when transactions got in each other's way."""

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "application_name": "holdfast",
    # A peer that is gone without a word is noticed within half a minute, far below a lease's length.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class Connections:
    """At most ``limit`` connections to one database.

    ``prepare_threshold`` is psycopg's: None never prepares a statement, which a PgBouncer before 1.21
    needs.
    """

    def __init__(self, database_url: str, *, limit: int, prepare_threshold: int | None = None) -> None:
        self._given: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(database_url)
        self._prepare_threshold = prepare_threshold
        self._free = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Connection]:
        """Lend a connection; one that comes back inside a transaction, or broken, is closed.

        Raises ``StorageError`` if the server lets none in, or none is free for ``PATIENCE`` seconds.
        psycopg's own errors in the body pass through.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._free.acquire()
        except TimeoutError:
            raise StorageError(f"no database connection was free for {PATIENCE:g} seconds") from None
        try:
            connection = self._idle.pop() if self._idle else await self.open()
            try:
                yield connection
            finally:
                await self._give_back(connection)
        finally:
            self._free.release()

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do work that may be done twice, and return its result.

        A connection that broke while it was idle is replaced, and work that lost to another transaction
        is done again. Raises ``StorageError`` for everything that psycopg raises.
        """
        tries = 0
        while True:
            tries += 1
            fresh = not self._idle
            try:
                async with self.take() as connection:
                    return await work(connection)
            except (DeadlockDetected, SerializationFailure) as error:
                if tries >= TRIES:
                    raise failure(error) from error
            except psycopg.OperationalError as error:
                if fresh or tries >= TRIES:
                    raise failure(error) from error
                await self.forget_idle()
            except psycopg.Error as error:
                raise failure(error) from error

    async def open(self) -> Connection:
        """Open a connection outside of the bound; the caller closes it. Raises ``StorageError``."""
        if self._closed:
            raise StorageError("the persistence provider is closed")
        try:
            return await AsyncConnection.connect(
                autocommit=True, prepare_threshold=self._prepare_threshold, **(_DEFAULTS | self._given)
            )
        except psycopg.Error as error:
            raise failure(error) from error

    async def forget_idle(self) -> None:
        """Close what is idle: where one connection broke, the others are most likely broken too."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def close(self) -> None:
        """Close the connections; those that are lent are closed when they come back."""
        self._closed = True
        await self.forget_idle()

    async def _give_back(self, connection: Connection) -> None:
        if not self._closed and connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()


async def one(cursor: AsyncCursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the only row of a statement that always gives one."""
    row = await cursor.fetchone()
    if row is None:
        raise StorageError("the database gave no answer to a question that has one")
    return row


def failure(error: psycopg.Error) -> StorageError:
    """Return what the engine is told of an error of the database."""
    # Where in a function of the schema it happened is nobody's affair.
    text = error.diag.message_primary if error.diag.context else str(error).strip()
    return StorageError(f"the database failed: {text or type(error).__name__}")
