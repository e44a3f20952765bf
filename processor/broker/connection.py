"""A connection to RabbitMQ that comes back by itself.

It owns one connection of the AMQP library at a time and replaces it when that dies; channels die with it
and are opened anew by those who use them (``consumer``, ``publisher``). A broker that is short of memory or
disk stops reading from connections that publish, acks included: a process that both consumes and publishes
keeps one connection for each.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiormq
import structlog
from aiormq.connection import TCPTransportFactory, TLSTransportFactory
from aiormq.exceptions import AuthenticationError

from holdfast.processor.broker.backoff import Backoff
from holdfast.processor.broker.channel import FAILURES, GOODBYE, Channel, broker_errors, describe
from holdfast.processor.broker.tap import Tap, TappedTransport
from holdfast.schemas.errors import BrokerError, SettingsError

log = structlog.get_logger("holdfast.broker")

DIAL_TIMEOUT = 10.0
"""Seconds that one try to connect may take."""

_REFUSALS = (403, 530)
"""Reply codes for a user name or password, and for a virtual host, that the broker does not accept."""

C = TypeVar("C", bound=Channel)


class State(StrEnum):
    """How a connection is doing."""

    CLOSED = "closed"
    """It was not opened yet, or was closed for good."""
    CONNECTING = "connecting"
    """It is being opened, for the first time or again."""
    OPEN = "open"
    """It can be used."""
    BLOCKED = "blocked"
    """The broker, short of memory or disk, reads nothing from it for now; it may still deliver."""


class Connection:
    """Keeps a connection open for as long as the ``async with`` block lasts.

    ``name`` shows in the broker's lists, ``heartbeat`` is in seconds, ``random`` spreads the tries to
    connect. ``patience`` is how many seconds the first opening may take in all, None for ever; after
    it, entering raises ``BrokerError``, and at once where trying again is no use: for a user name, password
    or virtual host that the broker refuses. Raises ``SettingsError`` for a URL that cannot be read.
    """

    def __init__(self, url: str, *, name: str, heartbeat: int, random: Random, patience: float | None = 30.0) -> None:
        self._url, self.place = _read_url(url, name=name, heartbeat=heartbeat)
        self._random = random
        self._patience = patience
        self._state = State.CLOSED
        self._changed = asyncio.Event()
        self._problem = "no answer"
        self._is_blocked = False
        self._library: aiormq.Connection | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tap: Tap | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """How the connection is doing now."""
        return self._state

    async def until(self, *states: State) -> State:
        """Wait until the connection is in one of these states, and return it."""
        while self._state not in states:
            await self._changed.wait()
        return self._state

    async def open(self, channel: C, *, confirms: bool = False) -> C:
        """Open a channel as soon as there is a connection; ``confirms`` is for publishing.

        Raises ``BrokerError`` if the connection breaks meanwhile or is closed for good.
        """
        await self.until(State.OPEN, State.BLOCKED, State.CLOSED)
        library, writer, tap = self._library, self._writer, self._tap
        with broker_errors(f"cannot open a channel to RabbitMQ at {self.place}"):
            if library is None or writer is None or tap is None:
                raise ConnectionError("the connection is closed")
            channel.bind(await library.channel(publisher_confirms=confirms), writer, tap)
        return channel

    async def __aenter__(self) -> Self:
        self._set(State.CONNECTING)
        try:
            async with asyncio.timeout(self._patience):
                await self._connect(is_first=True)
        except TimeoutError:
            await self.close()
            raise BrokerError(
                f"RabbitMQ at {self.place} could not be reached within {self._patience:g} s: {self._problem}"
            ) from None
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection for good; unacked messages go back to their queues."""
        self._set(State.CLOSED)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        library, self._library = self._library, None
        if library:
            closing = asyncio.ensure_future(library.close())
            _, pending = await asyncio.wait([closing], timeout=GOODBYE)
            if pending and self._writer:
                # A broker that blocks this connection, or stands still, does not read that it is to be closed.
                self._writer.transport.abort()
                await asyncio.wait([closing], timeout=GOODBYE)
            _ = closing.done() and not closing.cancelled() and closing.exception()

    def _set(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._changed.set()
            self._changed = asyncio.Event()

    def _on_blocked(self, reason: str | None) -> None:
        self._is_blocked = reason is not None
        log.warning("blocked" if self._is_blocked else "unblocked", broker=self.place, reason=reason)
        if self._state in (State.OPEN, State.BLOCKED):
            self._set(State.BLOCKED if self._is_blocked else State.OPEN)

    async def _keep(self) -> None:
        while self._library:
            await asyncio.wait([self._library.closing])
            self._set(State.CONNECTING)
            log.warning("connection lost", broker=self.place)
            await self._connect(is_first=False)

    async def _connect(self, *, is_first: bool) -> None:
        backoff = Backoff(self._random)
        while True:
            self._tap = Tap(self._on_blocked)
            try:
                await self._dial(self._tap)
                return
            except FAILURES as error:
                code, said = self._tap.last_words or (0, describe(error))
                self._problem = said
                # A broker that was restarted may need a moment before it knows its users again.
                if is_first and (code in _REFUSALS or isinstance(error, AuthenticationError)):
                    raise BrokerError(f"RabbitMQ at {self.place} refuses the connection: {said}") from None
            except Exception as error:
                # Whatever it was, a process whose connection nobody opens again would stand still for good.
                log.exception("connecting failed", broker=self.place)
                self._problem = describe(error)
            wait = backoff.wait()
            log.warning("cannot connect", broker=self.place, problem=self._problem, next_try_in=round(wait, 2))
            await asyncio.sleep(wait)

    async def _dial(self, tap: Tap) -> None:
        self._is_blocked = False
        secure = self._url.startswith("amqps:")
        transport = TappedTransport(TLSTransportFactory() if secure else TCPTransportFactory(), tap)
        library = aiormq.Connection(self._url, transport_factory=transport)
        await _within(DIAL_TIMEOUT, library)
        self._library, self._writer = library, transport.writer
        log.info("connected", broker=self.place)
        self._set(State.BLOCKED if self._is_blocked else State.OPEN)


async def _within(seconds: float, library: aiormq.Connection) -> None:
    """Have the library connect, or raise ``TimeoutError``, even if it does not heed that it is to give up.

    When a broker breaks off at the wrong moment, the library may cancel its own attempt: that is a failure like others.
    """
    connecting = asyncio.ensure_future(library.connect())
    try:
        done, _ = await asyncio.wait([connecting], timeout=seconds)
    except asyncio.CancelledError:
        _give_up(connecting, library)
        raise
    if not done:
        _give_up(connecting, library)
        raise TimeoutError(f"no answer within {seconds:g} s")
    if connecting.cancelled():
        raise ConnectionError("the connection was closed")
    connecting.result()


def _give_up(connecting: asyncio.Future[bool], library: aiormq.Connection) -> None:
    """Stop an attempt to connect, and close what may come of it nevertheless."""

    def clear_away(attempt: asyncio.Future[bool]) -> None:
        if not attempt.cancelled() and attempt.exception() is None:
            _closing.add(closing := asyncio.ensure_future(library.close()))
            closing.add_done_callback(_closing.discard)

    connecting.add_done_callback(clear_away)
    connecting.cancel()


_closing: set[asyncio.Future[None]] = set()
"""What is closed with nobody waiting for it; the event loop itself holds no strong reference."""


def _read_url(url: str, *, name: str, heartbeat: int) -> tuple[str, str]:
    """Return the URL with the connection's options, and the broker's place without the password."""
    # What is wrong with it is not quoted, as it may be a part of the password.
    malformed = SettingsError("the RabbitMQ URL cannot be read: write amqp://user:password@host:port/vhost")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise malformed from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise malformed
    query = dict(parse_qsl(parts.query)) | {"name": name, "heartbeat": str(heartbeat)}
    place = f"{parts.hostname}:{port}" if port else parts.hostname
    return parts._replace(query=urlencode(query)).geturl(), place
