"""A transaction for user SQL: the user's writes and the batch commit together, on a connection of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.errors import InvalidSavepointSpecification, NoActiveSqlTransaction
from psycopg.pq import TransactionStatus

from holdfast.processor.engine.provider import Batch, Committed
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.store.commit import TransactionAborted, commit_transaction
from holdfast.processor.store.connections import Connection, Connections, failure, one
from holdfast.processor.store.persistence_point import write
from holdfast.schemas.errors import CommitOutcomeUnknown, CommitRefused, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


class _Handle:
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
        try:
            async with self._connection.transaction():
                yield _Handle(self._connection)
        except psycopg.Error as error:
            if self._connection.closed:
                raise failure(error) from error
            raise

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
            if not await commit_transaction(self._connections, connection, outcome.xid):
                raise CommitOutcomeUnknown("the connection broke during the commit, and its outcome is unknown")
        except TransactionAborted as error:
            raise StorageError(f"the commit failed: {error}") from error
        except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
            raise failure(error) from error
        except (psycopg.Error, TypeError, ValueError) as error:
            raise CommitRefused(f"the database refused the batch: {error}") from error
        finally:
            await self.rollback()
        return outcome.written[batch.instance_id]

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
