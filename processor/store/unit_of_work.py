"""A transaction for user SQL: the user's writes and the batch commit together, on a connection of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.errors import (
    DeadlockDetected,
    InvalidSavepointSpecification,
    NoActiveSqlTransaction,
    SerializationFailure,
)
from psycopg.pq import TransactionStatus

from holdfast.processor.engine.provider import Batch, Committed
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store.commit import TransactionAborted, commit_transaction
from holdfast.processor.store.connections import Connection, Connections, failure, one
from holdfast.processor.store.persistence_point import write
from holdfast.schemas.errors import CommitOutcomeUnknown, CommitRefused, StorageError, TransactionConflict
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

_CONFLICTS = (DeadlockDetected, SerializationFailure)
"""What a transaction gets that the database gave up in favour of another one."""


class Handle:
    """What user code may do with the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, query: Any, params: Any = None) -> Any:
        return await self._connection.execute(query, params)


class PostgresUnitOfWork:
    """See ``UnitOfWork``; ``open_unit_of_work`` makes one."""

    def __init__(self, connections: Connections, connection: Connection, app: str, xid: int) -> None:
        self._connections = connections
        self._app = app
        self._connection = connection
        self._xid = xid

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        async with _told_apart(self._connection), self._connection.transaction():
            yield Handle(self._connection)

    async def mark(self) -> None:
        await self._run("mark")

    async def back_to_mark(self) -> None:
        await self._run("back_to_mark")
        await self._run("drop_mark")

    async def drop_mark(self) -> None:
        await self._run("drop_mark")

    async def commit(self, batch: Batch) -> Committed:
        connection = self._connection
        try:
            if connection.info.transaction_status is not TransactionStatus.INTRANS:
                raise StorageError("the transaction is over: user SQL must not commit or roll back")
            outcome = await write(connection, self._app, [batch])
            for error in (*outcome.refused.values(), *outcome.spoilt.values()):
                raise error
            if outcome.late:
                raise StorageError("the transaction began before the instance's last commit and has to be run again")
            if outcome.xid != self._xid:
                raise StorageError("the transaction is another one: user SQL must not commit or roll back")
            if not await commit_transaction(self._connections, connection, outcome.xid, batch):
                raise CommitOutcomeUnknown("the connection broke during the commit, and its outcome is unknown")
        except TransactionAborted as error:
            cause = error.__cause__
            raise (
                _conflict(cause) if isinstance(cause, _CONFLICTS) else StorageError(f"the commit failed: {error}")
            ) from cause
        except _CONFLICTS as error:
            raise _conflict(error) from error
        except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
            raise failure(error) from error
        except (psycopg.Error, TypeError, ValueError) as error:
            raise CommitRefused(f"the database refused the batch: {error}") from error
        finally:
            await self.rollback()
        return outcome.written[batch.instance_id]

    async def end(self) -> None:
        """Commit the user's writes alone."""
        async with _told_apart(self._connection):
            await self._connection.execute(_SQL["commit"])

    async def rollback(self) -> None:
        try:
            if self._connection.info.transaction_status is not TransactionStatus.IDLE:
                await self._connection.execute(_SQL["rollback"])
        except psycopg.Error:
            await self._connection.close()

    async def _run(self, name: str) -> None:
        try:
            await self._connection.execute(_SQL[name])
        except (NoActiveSqlTransaction, InvalidSavepointSpecification) as error:
            raise StorageError("the transaction is over: user SQL must not commit or roll back") from error
        except psycopg.Error as error:
            raise failure(error) from error


@asynccontextmanager
async def _told_apart(connection: Connection) -> AsyncIterator[None]:
    """Tell errors of the user's SQL from those after which the transaction is worth nothing."""
    try:
        yield
    except _CONFLICTS as error:
        # Rolling back to the savepoint would keep the locks that were taken before it, and with them the deadlock.
        raise _conflict(error) from error
    except psycopg.Error as error:
        if connection.closed:
            raise failure(error) from error
        raise


def _conflict(error: Exception) -> TransactionConflict:
    return TransactionConflict(f"another transaction got in the way: {error}")


@asynccontextmanager
async def own_transaction(connections: Connections, app: str, timeout: float) -> AsyncIterator[Transaction]:
    """Open a transaction for user SQL alone, with the bounds of a unit of work."""
    async with open_unit_of_work(connections, app, timeout) as unit:
        async with unit.savepoint() as transaction:
            yield transaction
        await unit.end()


@asynccontextmanager
async def open_unit_of_work(connections: Connections, app: str, timeout: float) -> AsyncIterator[PostgresUnitOfWork]:
    """Open a transaction, rolled back at the end unless committed.

    The server ends it when nothing comes from this host for twice ``timeout`` seconds, for as long as it is
    open it holds back the safe horizon of the log.
    """
    async with connections.take() as connection:
        try:
            await connection.execute(_SQL["begin"])
            cursor = await connection.execute(_SQL["open_unit_of_work"], {"milliseconds": str(int(timeout * 2000))})
            xid, _ = await one(cursor)
        except psycopg.Error as error:
            await connections.forget_idle()
            raise failure(error) from error
        unit = PostgresUnitOfWork(connections, connection, app, int(xid))
        try:
            yield unit
        finally:
            await unit.rollback()
