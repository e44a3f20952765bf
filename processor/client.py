"""The client: what a program outside of the workers does with Holdfast.

    async with Client(database_url, amqp_url, app="orders") as client:
        await client.publish(OrderPlaced(order_id="A-1", amount=Decimal(5)))
        for instance in await client.instances(is_suspended=True):
            await client.resume(instance.instance_id, by="ann", why="the bank is back")

It talks to Postgres and RabbitMQ directly and needs no worker to be running: what it asks of one lies in the inbox
until some worker of the app takes it up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg import errors

from holdfast.processor.control import Control
from holdfast.processor.engine.environment import Environment, RealEnvironment
from holdfast.processor.forks import Forks
from holdfast.processor.looking_back import LookingBack
from holdfast.processor.store.connections import Connection, Connections, failure
from holdfast.processor.versions import Versions
from holdfast.projections import queries
from holdfast.projections.queries import (
    Class,
    DeadLetter,
    Instance,
    NonPersisted,
    OpenBookmark,
    OpenedDeadLetter,
    Relative,
)
from holdfast.schemas.errors import (
    DeadLetterNotFound,
    NotMigrated,
    SettingsError,
    StorageError,
)
from holdfast.schemas.postgres.statements import load

if TYPE_CHECKING:
    from holdfast.processor.exporting.exports import Exports
    from holdfast.processor.following import Projections
    from holdfast.processor.hold import HeldInstance, OnLocked
    from holdfast.processor.publishing import AppPublisher
    from holdfast.processor.replaying import Replays
    from holdfast.processor.store.retention import Removed, Retention
    from holdfast.projections.explanation import Explanation
    from holdfast.projections.hosts import HostStatus
    from holdfast.projections.timers import Timer
    from holdfast.schemas.envelope import Envelope
    from holdfast.schemas.message import Message

_SQL = load(__package__)
_STORE = load("holdfast.processor.store")
_CONNECTIONS = 4
_NO_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.InvalidSchemaName)

T = TypeVar("T")


class Client(Control, Forks, LookingBack, Versions):
    """An app's instances, messages, history, ``projections``, ``replays`` and ``export``; an async context manager.

    ``database_url`` is needed by everything but ``publish``, ``amqp_url`` and ``app`` by ``publish`` and replays alone.
    Where ``app`` is given, lists are of that app. Nothing connects before it has to. Methods raise ``StorageError`` or
    ``BrokerError`` when a server refuses or cannot be reached; one client may serve many tasks at once.
    ``publish_patience`` is how many seconds RabbitMQ may go on without confirming any message. The first call of a
    method imports what it needs, which may take some tenths of a second.
    """

    def __init__(
        self,
        database_url: str = "",
        amqp_url: str = "",
        app: str | None = None,
        *,
        environment: Environment | None = None,
        publish_patience: float = 30.0,
    ) -> None:
        try:
            self._connections = Connections(database_url, limit=_CONNECTIONS)
        except psycopg.Error:
            # What psycopg says repeats the address, password and all.
            raise SettingsError(
                "the database URL cannot be read: write postgresql://user:password@host:port/database"
            ) from None
        self.app = app
        self._database_url = database_url
        self._amqp_url = amqp_url
        self._publish_patience = publish_patience
        self._environment = environment or RealEnvironment()
        self._new_id = self._environment.new_id
        self._publisher: AppPublisher | None = None

    @cached_property
    def projections(self) -> Projections:
        """How far the app's projections are, and what can be done about them."""
        from holdfast.processor.following import Projections

        return Projections(self._run, self._connection, self.app, self._environment)

    @cached_property
    def export(self) -> Exports:
        """What writes history and instances to files."""
        from holdfast.processor.exporting.exports import Exports

        return Exports(self._connection, self.app)

    @cached_property
    def replays(self) -> Replays:
        """The replays of the app's history."""
        from holdfast.processor.replaying import Replays

        return Replays(self._run, self._connections, self.app, self._amqp_url, self._environment)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()
        if self._publisher is not None:
            await self._publisher.close()

    # Messages.

    async def publish(self, message: Message, message_id: str | None = None, *, reply_to: str | None = None) -> str:
        """Publish a message to the app, confirmed by the broker, and return its id.

        It carries the trace context that is current. ``reply_to`` is the queue in which an answer is waited for.
        Workers take in one message of an id: who may have to publish again gives the same ``message_id``. Raises
        ``InvalidMessage`` if the message has no correlation key or a bad id, ``BrokerError`` if it was not taken.
        """
        envelope = message.envelope(str(self._new_id()) if message_id is None else message_id, reply_to=reply_to)
        await self.publish_all([envelope])
        return envelope.message_id

    async def publish_all(self, envelopes: Iterable[Envelope]) -> None:
        """Publish messages in this order, many in flight together; return once each one is confirmed.

        Raises ``BrokerError`` that names the first message which was not taken; later ones may have been.
        """
        await self._open_publisher().publish(envelopes)

    # Instances.

    async def non_persisted(
        self,
        *,
        class_: Class | None = None,
        older_than: timedelta | None = None,
        is_overdue: bool | None = None,
        after: UUID | None = None,
        limit: int = 100,
    ) -> list[NonPersisted]:
        """Return a page of the instances without a persistence point that fit all that is given, newest first."""
        return await self._run(
            lambda connection: queries.non_persisted(
                connection,
                app=self.app,
                class_=class_,
                older_than=older_than,
                is_overdue=is_overdue,
                after=after,
                limit=limit,
            )
        )

    async def remove(
        self,
        instance_id: UUID,
        *,
        class_: Class | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
    ) -> None:
        """Remove an instance without a persistence point that no host holds, and give up its start message.

        It must still be of ``class_`` and older than ``older_than``, where these are given, and than the database
        allows. An instance that waits for its end gets ``SubflowFailed``. With ``dry_run`` all is tried and nothing
        done. Raises ``NotRemovable`` or ``InstanceNotFound``.
        """
        from holdfast.processor.store import removal

        async def work(connection: Connection) -> None:
            async with connection.transaction(force_rollback=dry_run):
                await removal.remove(connection, instance_id, app=self.app, class_=class_, older_than=older_than)

        await self._run(work)

    async def apply_retention(self, kept: Retention, *, dry_run: bool = False) -> Removed:
        """Remove what is over for longer than it is to be kept, for good, and return how much that was.

        With ``dry_run`` it is only counted. It takes the database role ``holdfast_retention``.
        """
        from holdfast.processor.store import retention

        async with self._connection() as connection:
            return await retention.remove(connection, kept, app=self.app, dry_run=dry_run)

    async def instance(self, instance_id: UUID) -> tuple[Instance, list[OpenBookmark]]:
        """Return one instance and where it waits, or raise ``InstanceNotFound``."""
        return await self._run(lambda connection: queries.instance(connection, instance_id))

    async def explain(self, instance_id: UUID) -> Explanation:
        """Return why an instance stands where it stands and what would move it, or raise ``InstanceNotFound``."""
        from holdfast.projections import explanation

        return await self._run(lambda connection: explanation.explain(connection, instance_id))

    async def hosts(self) -> list[HostStatus]:
        """Return the workers that live, with what each consumes and holds, and those that died not long ago."""
        from holdfast.projections.hosts import host_statuses

        return await self._run(lambda connection: host_statuses(connection, app=self.app))

    async def timers(
        self,
        *,
        instance_id: UUID | None = None,
        before: datetime | None = None,
        after: Timer | None = None,
        limit: int = 100,
    ) -> list[Timer]:
        """Return a page of the open timers due ``before`` a moment, the next one first, from behind ``after``."""
        from holdfast.projections import timers

        return await self._run(
            lambda connection: timers.timers(
                connection, app=self.app, instance_id=instance_id, before=before, after=after, limit=limit
            )
        )

    async def tree(self, instance_id: UUID) -> list[Relative]:
        """Return one instance and the subflows that came out of it, nearest first, or raise ``InstanceNotFound``."""
        return await self._run(lambda connection: queries.tree(connection, instance_id))

    @asynccontextmanager
    async def hold(self, instance_id: UUID, *, on_locked: OnLocked = "basic_retry") -> AsyncIterator[HeldInstance]:
        """Lock and load an instance: nothing moves it until the ``async with`` block ends.

        Messages for it are kept meanwhile, and handled as soon as it is given back. ``on_locked`` says how often to try
        if somebody else holds it: ``no_retry``, ``basic_retry`` at equal intervals or ``aggressive_retry`` at ones
        that double, both for about 30 seconds. Raises ``InstanceLocked`` with owner, machine and expiration,
        ``InstanceNotFound``, ``InstanceCompleted``, ``InstanceUnreadable``, and at the end ``InstanceLockLost`` if the
        lease lapsed within the block, for example because the machine slept.
        """
        from holdfast.processor.hold import hold

        found, _ = await self.instance(instance_id)
        async with hold(self._connections, self._environment, found.app, instance_id, on_locked) as held:
            yield held

    # Dead letters.

    async def dead_letters(self, *, after: DeadLetter | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return a page of the messages that were given up, newest first, from behind ``after``."""
        return await self._run(
            lambda connection: queries.dead_letters(connection, app=self.app, after=after, limit=limit)
        )

    async def dead_letter(self, message_id: str) -> OpenedDeadLetter:
        """Return one dead letter with its body, or raise ``DeadLetterNotFound``."""
        return await self._run(lambda connection: self._dead_letter(connection, message_id))

    async def requeue(self, message_id: str) -> None:
        """Give a dead letter another chance: workers take it in, or publish it, once more.

        Raises ``DeadLetterNotFound``, also for a message of which no body was kept, for one to the control queue, and
        for history that was replayed.
        """
        await self._settle("requeue", message_id)

    async def drop(self, message_id: str) -> None:
        """Give a dead letter up for good: its body is removed. Raises ``DeadLetterNotFound``."""
        await self._settle("drop", message_id)

    async def _settle(self, action: str, message_id: str) -> None:
        from holdfast.processor.store import inbox

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                letter = await self._dead_letter(connection, message_id)
                parameters = {"app": letter.app, "message_id": message_id}
                if await _one(connection, f"{action}_{letter.box}", **parameters) is None:
                    raise DeadLetterNotFound(message_id)
                await connection.execute(_STORE["notify"], {"channel": inbox.CHANNEL, "app": letter.app})

        await self._run(work)

    async def _dead_letter(self, connection: Connection, message_id: str) -> OpenedDeadLetter:
        apps = [self.app] if self.app else await self._apps(connection, message_id)
        if len(apps) > 1:
            raise DeadLetterNotFound(message_id, tuple(apps))
        letter = await queries.dead_letter(connection, apps[0], message_id) if apps else None
        if letter is None:
            raise DeadLetterNotFound(message_id)
        return letter

    async def _apps(self, connection: Connection, message_id: str) -> list[str]:
        cursor = await connection.execute(_SQL["apps_of_dead_letter"], {"message_id": message_id})
        return [app for (app,) in await cursor.fetchall()]

    # Connections.

    def _open_publisher(self) -> AppPublisher:
        if self._publisher is None:
            if not self._amqp_url or not self.app:
                raise SettingsError("to publish, the client needs the URL of RabbitMQ and the name of the app")
            from holdfast.processor.publishing import AppPublisher

            self._publisher = AppPublisher(self._amqp_url, self.app, patience=self._publish_patience)
        return self._publisher

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        self._require_database()
        try:
            return await self._connections.run(work)
        except StorageError as error:
            raise _explained(error) from error.__cause__

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Give a connection of its own to what reads for longer."""
        self._require_database()
        async with await self._connections.open() as connection:
            try:
                yield connection
            except psycopg.Error as error:
                raise _explained(failure(error), error) from error

    def _require_database(self) -> None:
        if not self._database_url:
            raise SettingsError("the client was given no database URL")


async def _one(connection: Connection, name: str, **parameters: object) -> object:
    cursor = await connection.execute(_SQL[name], parameters)
    row = await cursor.fetchone()
    return row[0] if row else None


def _explained(error: StorageError, cause: BaseException | None = None) -> StorageError:
    """Return the error, or what is to be done about it, if the database lacks the schema."""
    if isinstance(cause or error.__cause__, _NO_SCHEMA):
        return NotMigrated("the database lacks Holdfast's schema, or its newest part: run `holdfast migrate`")
    return error
