"""What a client asks of history: to publish it again, or to give it to a projection once more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from random import SystemRandom
from typing import TYPE_CHECKING, Unpack

from holdfast.events.recorded import Cursor
from holdfast.processor.core.destination import Destination
from holdfast.processor.engine.environment import Environment
from holdfast.processor.following import Run
from holdfast.processor.language.app import App
from holdfast.processor.services.settling import settle
from holdfast.processor.store import replays
from holdfast.processor.store.connections import Connection, Connections
from holdfast.processor.store.replays import Replay
from holdfast.projections import redelivery, selection
from holdfast.projections.definition import Subscription
from holdfast.projections.selection import EventCriteria, Place
from holdfast.projections.subscription import Build
from holdfast.schemas.errors import InvalidMessage, ProjectionNotFound, ReplayRefused, SettingsError
from holdfast.schemas.identifiers import check_name

if TYPE_CHECKING:
    from holdfast.processor.broker.connection import Connection as BrokerConnection
    from holdfast.processor.services.replay import ReplayStep
    from holdfast.processor.services.replay_into import IntoStep

RATE = 1000
"""Messages a second, unless it is said otherwise."""

PATIENCE = 60.0
"""Seconds that RabbitMQ may leave a message unconfirmed, or be away."""

_CONNECT = 5.0
"""Seconds that RabbitMQ may take to let the client in."""

_HEARTBEAT = 60


class Replays:
    """The replays of a client's app: ``Client.replays``.

    Events are those of the app from ``since`` to ``until``, both included, each a cursor or a moment with an offset
    from UTC, that fit all of the criteria: ``type``, ``workflow``, ``correlation_key``, ``instance_id``, and values of
    ``promoted``. Without ``until`` they end where the log ends now. ``ReplayRefused`` is raised for an app
    that nobody knows, a cursor behind the end of the log, a ``since`` that is to come, and a stretch that ends before
    it begins.
    """

    def __init__(
        self, run: Run, connections: Connections, app: str | None, amqp_url: str, environment: Environment
    ) -> None:
        self._run = run
        self._connections = connections
        self._app = app
        self._amqp_url = amqp_url
        self._environment = environment

    async def begin(
        self,
        name: str | None = None,
        *,
        to_exchange: str | None = None,
        to_queue: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        **criteria: Unpack[EventCriteria],
    ) -> Replay:
        """Begin a replay to an exchange or a queue, of which nothing is published until it is ``run``.

        It is known by its name, a new one if none is given, until it is removed. Where ``until`` is a moment, all
        transactions are waited for that run now, as they may have recorded events by then. Raises ``ReplayRefused``
        also if there is one of this name, and for a destination that belongs to an app; ``BrokerError`` if that is not
        there.
        """
        from holdfast.processor.broker import destinations

        app = self._require_app()
        if (to_exchange is None) == (to_queue is None):
            raise ReplayRefused("a replay goes either to an exchange or to a queue")
        destination = Destination("", to_queue) if to_exchange is None else Destination(to_exchange)
        try:
            destinations.refuse_intake(app, destination)
            known_as = check_name("name", name if name is not None else str(self._environment.new_id()))
        except InvalidMessage as error:
            raise ReplayRefused(f"a replay and where it goes have names: {error.detail}") from None
        if isinstance(until, datetime):
            await settle(self._connections, self._environment)
        chosen = await self._run(lambda connection: _choose(connection, app, _place(since), _place(until), criteria))
        async with self._connected() as connection:
            await destinations.require(connection, app, destination)
        return await self._run(lambda connection: replays.begin(connection, known_as, destination, chosen))

    async def run(self, name: str, *, rate: int = RATE, patience: float = PATIENCE) -> AsyncIterator[ReplayStep]:
        """Publish what of a replay is not out yet; yield how far it is, at first and after every few messages.

        ``rate`` is how many messages a second are published at most, 0 for as many as RabbitMQ takes; ``patience`` is
        how many seconds it may leave one unconfirmed. Raises ``ReplayNotFound``; ``ReplayStopped`` at an event that
        RabbitMQ does not take, ``BrokerError`` if it is away for too long, and ``ReplayRefused`` once another
        process has begun to run the same. Whatever ends it, it can be run again, and goes on behind what was confirmed.
        """
        from holdfast.processor.broker.publisher import Publisher
        from holdfast.processor.services.replay import Replayer

        if rate < 0:
            raise ReplayRefused(f"a replay publishes so many messages a second, or 0 for no bound, not {rate}")
        replay = await self._run(lambda connection: replays.take(connection, name))
        async with self._connected() as connection:
            replayer = Replayer(
                self._connections, Publisher(connection), self._environment, rate=rate, patience=patience
            )
            async for step in replayer.run(replay):
                yield step

    async def into(
        self,
        app: App,
        projection: str,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        skipped: bool = False,
        timeout: float = 60.0,
        **criteria: Unpack[EventCriteria],
    ) -> AsyncIterator[IntoStep]:
        """Give a projection of an app events once more that it has handled, or passed over; yield how far that is.

        With ``skipped`` it is given only those that it passed over. Its handlers must bear to be given the rest twice.
        ``timeout`` is how many seconds a transaction may take. Raises ``ProjectionNotFound``; ``ReplayStopped`` at an
        event that a handler cannot take, if the projection is one that stops; ``ReplayRefused`` also while it is being
        rebuilt, and for tables that other code has built.
        """
        from holdfast.processor.services.replay_into import replay_into

        subscription = _subscription(app, projection)
        chosen = await self._run(
            lambda connection: redelivery.choose(
                connection, subscription, _place(since), _place(until), criteria, skipped=skipped
            )
        )
        async for step in replay_into(self._connections, Build(subscription, "live"), chosen, timeout=timeout):
            yield step

    async def count(
        self,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        **criteria: Unpack[EventCriteria],
    ) -> dict[str, int]:
        """Return how many events of each type a replay would publish."""
        app = self._require_app()

        async def work(connection: Connection) -> dict[str, int]:
            chosen = await _choose(connection, app, _place(since), _place(until), criteria)
            return await selection.count(connection, chosen)

        return await self._run(work)

    async def count_into(
        self,
        app: App,
        projection: str,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        skipped: bool = False,
        **criteria: Unpack[EventCriteria],
    ) -> dict[str, int]:
        """Return how many events of each type ``into`` would give to a projection; raises as that does."""
        subscription = _subscription(app, projection)

        async def work(connection: Connection) -> dict[str, int]:
            chosen = await redelivery.choose(
                connection, subscription, _place(since), _place(until), criteria, skipped=skipped
            )
            return await selection.count(connection, chosen)

        return await self._run(work)

    async def list(self) -> list[Replay]:
        """Return the replays, the newest first."""
        return await self._run(lambda connection: replays.replays(connection, app=self._app))

    async def remove(self, name: str) -> None:
        """Forget a replay, or raise ``ReplayNotFound``; what is published stays published."""
        await self._run(lambda connection: replays.remove(connection, name))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerConnection]:
        from holdfast.processor.broker.connection import Connection

        if not self._amqp_url:
            raise SettingsError("to publish history, the client needs the URL of RabbitMQ")
        async with Connection(
            self._amqp_url, name="holdfast replay", heartbeat=_HEARTBEAT, random=SystemRandom(), patience=_CONNECT
        ) as connection:
            yield connection

    def _require_app(self) -> str:
        if not self._app:
            raise SettingsError("the client was not told whose history is meant")
        return self._app


async def _choose(
    connection: Connection, app: str, since: Place, until: Place, criteria: EventCriteria
) -> selection.Selection:
    await selection.require_app(connection, app)
    return await selection.choose(connection, app, since, until, criteria)


def _place(given: str | datetime | None) -> Place:
    return Cursor.parse(given) if isinstance(given, str) else given


def _subscription(app: App, name: str) -> Subscription:
    for subscription in app.subscriptions:
        if subscription.name == name:
            return subscription
    raise ProjectionNotFound(name)
