"""Taps a connection's incoming bytes: frames that carry messages go straight to who wants them.

The rest of the connection, from the handshake to heartbeats and channels, is the library's. It reads
from what looks like its stream, and never sees the hot frames (``frames``) of channels with a listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiormq.connection import TransportFactory
from yarl import URL

from holdfast.processor.broker import frames
from holdfast.processor.broker.frames import Properties

_CHUNK = 1 << 16
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_LIVENESS = 0.5
"""Seconds after which the library is shown that the peer lives, if it saw no frame of its own."""
_KINDS = (frames.METHOD, frames.HEADER, frames.BODY, frames.HEARTBEAT)


class Listener:
    """Takes the hot frames of one channel; what it does not override, it ignores.

    The methods are called between two reads of the socket: they must be quick and never raise.
    """

    def delivered(self, tag: int, properties: Properties, body: bytes, *, redelivered: bool) -> None:
        """Take a message that came for the consumer on the channel."""

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Note that the broker took a published message over, or refused to."""

    def returned(self, reason: str, properties: Properties) -> None:
        """Note that a mandatory message could not be routed; its confirm is still to come."""

    def cancelled(self) -> None:
        """Note that the broker ended the consumer on the channel."""

    def closing(self) -> None:
        """Note that the broker closes the channel: from here on nothing may be written to it."""


class _Content:
    """A message of which the body has not come in full."""

    __slots__ = ("chunks", "method", "missing", "payload", "properties")

    def __init__(self, method: int, payload: bytes) -> None:
        self.method = method
        self.payload = payload
        self.properties = Properties()
        self.missing = 0
        self.chunks: list[bytes] = []


class Tap:
    """The listeners of one connection, by channel number.

    ``on_blocked`` is told the reason when the broker blocks publishers, and None when it stops to.
    ``last_words`` are the reply code and text with which the broker closed the connection, if it did.
    """

    def __init__(self, on_blocked: Callable[[str | None], None]) -> None:
        self.last_words: tuple[int, str] | None = None
        self._on_blocked = on_blocked
        self._listeners: dict[int, Listener] = {}
        self._contents: dict[int, _Content] = {}

    def attach(self, channel: int, listener: Listener) -> None:
        """Send the hot frames of a channel to ``listener`` from now on."""
        self._listeners[channel] = listener
        self._contents.pop(channel, None)

    def detach(self, channel: int, listener: Listener) -> None:
        """Stop that, unless another listener has taken the number over."""
        if self._listeners.get(channel) is listener:
            del self._listeners[channel]

    def take(self, kind: int, channel: int, payload: bytes) -> bool:
        """Handle a frame if it is a hot one, and tell whether it was; raises ``Damaged``."""
        listener = self._listeners.get(channel)
        if listener is None:
            if channel == 0 and kind == frames.METHOD:
                self._notice(payload)
            return False
        if kind == frames.METHOD:
            return self._take_method(listener, channel, payload)
        content = self._contents.get(channel)
        if content is None:
            return False
        if kind == frames.HEADER:
            content.missing, content.properties = frames.read_header(payload)
        else:
            content.chunks.append(payload)
            content.missing -= len(payload)
        if content.missing <= 0:
            del self._contents[channel]
            _complete(listener, content)
        return True

    def _take_method(self, listener: Listener, channel: int, payload: bytes) -> bool:
        match frames.method_id(payload):
            case (frames.BASIC, frames.DELIVER | frames.RETURN as method):
                self._contents[channel] = _Content(method, payload)
                return True
            case (frames.BASIC, frames.ACK | frames.NACK as method):
                tag, multiple = frames.read_confirm(payload)
                listener.confirmed(tag, multiple=multiple, taken=method == frames.ACK)
                return True
            case (frames.BASIC, frames.CANCEL):
                listener.cancelled()
            case (frames.CHANNEL, frames.CHANNEL_CLOSE):
                listener.closing()
        return False

    def _notice(self, payload: bytes) -> None:
        match frames.method_id(payload):
            case (frames.CONNECTION, frames.BLOCKED):
                self._on_blocked(payload[5:].decode(errors="replace"))
            case (frames.CONNECTION, frames.UNBLOCKED):
                self._on_blocked(None)
            case (frames.CONNECTION, frames.CLOSE):
                self.last_words = frames.read_close(payload)


def _complete(listener: Listener, content: _Content) -> None:
    if content.method == frames.DELIVER:
        tag, redelivered = frames.read_deliver(content.payload)
        body = content.chunks[0] if len(content.chunks) == 1 else b"".join(content.chunks)
        listener.delivered(tag, content.properties, body, redelivered=redelivered)
    else:
        listener.returned(frames.read_return(content.payload), content.properties)


class TappedReader:
    """What the library reads instead of the stream: whole frames, without those that the tap took."""

    def __init__(self, stream: asyncio.StreamReader, tap: Tap, time: Callable[[], float]) -> None:
        self._stream = stream
        self._tap = tap
        self._buffer = b""
        self._at = 0
        self._given = b""
        self._is_raw = False
        self._has_taken = False
        self._time = time
        self._shown = self._time()

    def at_eof(self) -> bool:
        """Tell whether there is nothing left to read."""
        return not self._given and self._at == len(self._buffer) and self._stream.at_eof()

    async def read(self, n: int = -1) -> bytes:
        """Read past the tap, as the library does once it has given up on frames."""
        return await self._stream.read(n)

    async def readexactly(self, n: int) -> bytes:
        """Return the next ``n`` bytes of a frame that the tap left."""
        while len(self._given) < n:
            try:
                self._given += await self._next()
            except EOFError:
                raise asyncio.IncompleteReadError(self._given, n) from None
        data, self._given = self._given[:n], self._given[n:]
        return data

    async def _next(self) -> bytes:
        while True:
            frame = self._scan()
            now = self._time()
            if not frame and self._has_taken and now - self._shown > _LIVENESS:
                # The library takes a peer for dead that sends it no frame for long, though others have flowed.
                frame = _HEARTBEAT
            if frame:
                self._has_taken = False
                self._shown = now
                return frame
            chunk = await self._stream.read(_CHUNK)
            if not chunk:
                raise EOFError
            self._buffer = self._buffer[self._at :] + chunk
            self._at = 0

    def _scan(self) -> bytes:
        """Let the tap take frames up to one that it leaves, and return that; empty if there is none yet."""
        buffer, end = self._buffer, len(self._buffer)
        while end - self._at >= frames.FRAME_OVERHEAD:
            start = self._at
            kind, channel, size = frames.HEAD.unpack_from(buffer, start)
            stop = start + frames.FRAME_OVERHEAD + size
            if self._is_raw or kind not in _KINDS:
                # The greeting of a peer that speaks another protocol, say: what to make of it, the library knows.
                self._is_raw = True
                stop = end
            elif stop > end:
                break
            self._at = stop
            if self._is_raw or not self._tap.take(kind, channel, buffer[start + 7 : stop - 1]):
                return buffer[start:stop]
            self._has_taken = True
        return b""


class TappedTransport(TransportFactory):
    """Opens connections as ``inner`` does, with a tap; ``writer`` is the stream to the broker."""

    def __init__(self, inner: TransportFactory, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap
        self.writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and return both directions."""
        reader, self.writer = await self._inner.create(url, **kwargs)
        # The library asks of the reader what TappedReader has, and nothing else.
        return cast(
            "asyncio.StreamReader", TappedReader(reader, self._tap, asyncio.get_running_loop().time)
        ), self.writer
