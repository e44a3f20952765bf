"""One channel: rare commands go through the AMQP library, frames that carry messages straight to the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError

from holdfast.processor.broker.tap import Listener, Tap
from holdfast.schemas.errors import BrokerError

FAILURES = (AMQPError, OSError, RuntimeError, EOFError, StopAsyncIteration)
"""What the AMQP library raises when the broker refuses, breaks off (the last: before its first word), or is gone."""

GOODBYE = 1.0
"""Seconds that the broker has to confirm that a channel or a connection is closed; a silent one holds up nobody."""


class Channel(Listener):
    """A channel that is opened once and ends once; subclasses take the messages (``Listener``).

    ``Connection.open`` opens it. ``ended`` is done, with the reason, when it can no longer be used.
    """

    library: AbstractChannel
    """The library's channel, for declarations and the like."""
    number: int
    frame_max: int
    """The largest frame, in bytes, that the broker takes."""
    ended: asyncio.Future[Exception]

    def bind(self, library: AbstractChannel, writer: asyncio.StreamWriter, tap: Tap) -> None:
        """Become the channel that the library has opened."""
        self.library = library
        self.number = library.number
        self.frame_max = library.connection.connection_tune.frame_max
        self.ended = asyncio.get_running_loop().create_future()
        self._writer = writer
        self._tap = tap
        self._out: list[bytes] = []
        self._is_writable = True
        tap.attach(self.number, self)
        library.closing.add_done_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """Whether frames can be written."""
        return self._is_writable and not self._writer.is_closing()

    def write(self, data: bytes) -> None:
        """Send frames together with all others of this turn of the loop; lost if the channel ends before."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        # A frame for a channel that was closed would make the broker close the whole connection.
        if data and self.is_open:
            self._writer.write(data)

    def end(self, reason: Exception) -> None:
        """Use the channel no longer."""
        self._is_writable = False
        if not self.ended.done():
            self.ended.set_result(reason)

    def closing(self) -> None:
        # The reason follows through the library, some turns of the loop later.
        self._is_writable = False

    def _on_closed(self, closing: asyncio.Future[object]) -> None:
        self._tap.detach(self.number, self)
        error = None if closing.cancelled() else closing.exception()
        self.end(error if isinstance(error, Exception) else ConnectionError("the connection was closed"))

    async def close(self) -> None:
        """Send what was written, then give every unacked message back to its queue, in order."""
        self._flush()
        self.end(BrokerError("the channel was closed"))
        with heeding_cancellation(), suppress(*FAILURES):
            await self.library.close()


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raise ``CancelledError`` if the task is cancelled in the body, whatever the AMQP library makes of that.

    It may take the cancellation for that of its own work, and raise something else or return as if nothing had been.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    except Exception:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Raise what the AMQP library raises as ``BrokerError``; ``doing`` says what was tried."""
    try:
        with heeding_cancellation():
            yield
    except FAILURES as error:
        raise BrokerError(f"{doing}: {describe(error)}") from error
    except asyncio.CancelledError:
        # The library cancels what waits for an answer when the connection is closed from this side.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError(f"{doing}: the connection was closed") from None


def describe(error: BaseException) -> str:
    """Return what an error of the AMQP library says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
