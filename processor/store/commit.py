"""The group commit: the batches of many instances in one transaction, on a connection of its own.

One bad member harms no other. What does not pass the fence is left out while the rest goes on. What shows
only later, a message that was consumed before, a key that another instance waits for, spoils the
transaction: it is rolled back and run again without the culprit. What the database or the driver
refuses for a reason that names nobody is narrowed down by halves.

When the connection breaks under COMMIT, the server knows what became of the transaction: its id, which is
known from the events, is asked for on another connection. The id alone is no proof: a server that fell gives ids
anew, so one of the transaction's events has to be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation
from psycopg.pq import TransactionStatus

from holdfast.processor.engine.provider import AlreadyConsumed, Batch, Committed
from holdfast.processor.store.connections import TRIES, Connection, Connections, failure
from holdfast.processor.store.persistence_point import Written, write
from holdfast.schemas.errors import CommitOutcomeUnknown, CommitRefused, HoldfastError, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds between questions after a transaction whose outcome is unknown."""

Answer = Committed | HoldfastError


class TransactionAborted(Exception):
    """The connection broke under COMMIT, and the server says that the transaction did not commit."""


class GroupWriter:
    """Commits groups, one after the other."""

    def __init__(self, connections: Connections, app: str) -> None:
        self._app = app
        self._connections = connections
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def commit(self, batches: Sequence[Batch]) -> list[Answer]:
        """Commit a group and answer each batch; see ``PersistenceProvider.commit``."""
        if len({batch.instance_id for batch in batches}) < len(batches):
            raise ValueError("a group holds at most one batch of an instance")
        async with self._turn:
            answers = _refuse_repeated(batches)
            left = [batch for batch in batches if batch.instance_id not in answers]
            for _ in range(TRIES + len(batches)):
                if not left:
                    break
                outcome = await self._transact(left)
                answers |= outcome.written | outcome.refused | outcome.spoilt
                left = [batch for batch in left if batch.instance_id not in answers]
        for batch in left:
            answers[batch.instance_id] = StorageError("other transactions got in the way again and again")
        return [answers[batch.instance_id] for batch in batches]

    async def close(self) -> None:
        """Close the connection once no commit is on its way."""
        async with self._turn:
            await self._drop_connection()

    async def _transact(self, batches: Sequence[Batch]) -> Written:
        """Run one transaction; run it again if nothing of it can have been committed."""
        tries = 0
        while True:
            tries += 1
            connection, fresh = await self._connect()
            try:
                return await self._attempt(connection, batches)
            except (DeadlockDetected, SerializationFailure, TransactionAborted) as error:
                await self._roll_back()
                if tries >= TRIES:
                    raise StorageError(f"the commit failed {tries} times: {error}") from error
            except psycopg.OperationalError as error:
                await self._drop_connection()
                if fresh or tries >= TRIES:
                    raise failure(error) from error
            except psycopg.ProgrammingError as error:
                # The schema is not as it should be, or not for this user: no batch is to blame.
                await self._roll_back()
                raise failure(error) from error
            except (psycopg.Error, CommitRefused, TypeError, ValueError) as error:
                await self._roll_back()
                return await self._narrow_down(batches, error)
            except StorageError as error:
                await self._roll_back()
                if not isinstance(error.__cause__, UniqueViolation) or tries >= TRIES:
                    raise
            except BaseException:
                # Whoever is cancelled here leaves no transaction behind that keeps its locks.
                await self._drop_connection()
                raise

    async def _attempt(self, connection: Connection, batches: Sequence[Batch]) -> Written:
        await connection.execute(_SQL["begin"])
        outcome = await write(connection, self._app, batches)
        if outcome.must_roll_back or not outcome.written:
            await connection.execute(_SQL["rollback"])
            outcome.written.clear()
        elif not await commit_transaction(self._connections, connection, outcome.xid, _one_of(batches, outcome)):
            unknown = CommitOutcomeUnknown("the connection broke during the commit, and its outcome is unknown")
            outcome.spoilt.update(dict.fromkeys(outcome.written, unknown))
            outcome.written.clear()
        return outcome

    async def _narrow_down(self, batches: Sequence[Batch], error: Exception) -> Written:
        if len(batches) == 1:
            refusal = CommitRefused(f"the database refused the batch: {error}")
            refusal.__cause__ = error
            return Written(refused={batches[0].instance_id: refusal})
        middle = len(batches) // 2
        outcome = await self._transact(batches[:middle])
        other = await self._transact(batches[middle:])
        outcome.written |= other.written
        outcome.refused |= other.refused
        outcome.spoilt |= other.spoilt
        return outcome

    async def _connect(self) -> tuple[Connection, bool]:
        """Return a connection outside of any transaction, and whether it is a new one."""
        if self._connection is not None and self._connection.info.transaction_status is TransactionStatus.IDLE:
            return self._connection, False
        await self._drop_connection()
        self._connection = await self._connections.open()
        return self._connection, True

    async def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                await self._connection.execute(_SQL["rollback"])
        except psycopg.Error:
            await self._drop_connection()

    async def _drop_connection(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


async def commit_transaction(
    connections: Connections,
    connection: Connection,
    xid: int,
    batch: Batch,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Commit; False if nobody can tell whether it did. ``batch`` is one that the transaction wrote.

    Raises ``TransactionAborted`` if it surely did not, and ``CommitRefused`` if it never will.
    """
    try:
        await connection.execute(_SQL["commit"])
    except psycopg.OperationalError as error:
        status = await _ask(connections, xid, batch, sleep)
        if status == "aborted":
            raise TransactionAborted(str(error)) from error
        return status == "committed"
    except psycopg.Error as error:
        raise CommitRefused(f"the database refused the commit: {error}") from error
    return True


async def _ask(
    connections: Connections, xid: int, batch: Batch, sleep: Callable[[float], Awaitable[None]]
) -> str | None:
    """Return what became of a transaction; None if it still runs after a while, or the server is gone."""
    parameters = {
        "xid": str(xid),
        "instance_id": batch.instance_id,
        "version": batch.expected_version + 1,
        "host_id": str(batch.host_id),
    }
    for pause in PAUSES:
        await sleep(pause)
        try:
            connection = await connections.open()
            async with connection:
                cursor = await connection.execute(_SQL["transaction_status"], parameters)
                row = await cursor.fetchone()
        except (StorageError, psycopg.Error):
            continue
        if row is not None and row[0] in ("committed", "aborted"):
            return str(row[0])
    return None


def _one_of(batches: Sequence[Batch], outcome: Written) -> Batch:
    return next(batch for batch in batches if batch.instance_id in outcome.written)


def _refuse_repeated(batches: Sequence[Batch]) -> dict[UUID, Answer]:
    """Refuse batches that consume a message which an earlier one of the group consumes."""
    seen: set[str] = set()
    refused: dict[UUID, Answer] = {}
    for batch in batches:
        ids = [consumed.envelope.message_id for consumed in batch.consumed]
        repeated = next((name for index, name in enumerate(ids) if name in seen or name in ids[:index]), None)
        if repeated is None:
            seen.update(ids)
        else:
            refused[batch.instance_id] = AlreadyConsumed(repeated)
    return refused
