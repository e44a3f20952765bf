"""A wire between a worker and a server: it can be cut, or go silent, while both ends live on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from urllib.parse import urlsplit

from tests.support.behind import Connect, connect_to, listening


class Wire:
    """Passes bytes on, in both directions, for everybody who connects."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def cut(self) -> None:
        """Break every connection, at whatever moment it is in."""
        for end in self._open:
            end.transport.abort()

    def silence(self) -> None:
        """Pass nothing on from now on, and break nothing."""
        self._flowing.clear()

    def restore(self) -> None:
        """Pass on what was held up, and what comes."""
        self._flowing.set()

    async def close(self) -> None:
        """Break every connection and wait until nothing is passed on any more."""
        self.restore()
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect somebody to the server, or hang up if that is not there."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._open.add(writer)
        try:
            from_server, to_server = await self._connect()
            ends.add(to_server)
            self._open.add(to_server)
            passing = [asyncio.create_task(self._pass(*way)) for way in ((reader, to_server), (from_server, writer))]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            for task in passing:
                task.cancel()
            await asyncio.wait(passing)
        except OSError:
            pass
        finally:
            self._open -= ends
            for end in ends:
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def wire_to_rabbitmq(amqp_url: str, tls: SSLContext | None = None) -> AsyncIterator[tuple[Wire, str]]:
    """Give a wire to a broker, and the address to use instead of its own; with ``tls`` by TLS up to the wire."""
    parts = urlsplit(amqp_url)
    wire = Wire(lambda: asyncio.open_connection(parts.hostname, parts.port))
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    place = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
    try:
        yield wire, parts._replace(scheme="amqps" if tls else "amqp", netloc=place).geturl()
    finally:
        server.close()
        await wire.close()


@asynccontextmanager
async def wire_to_postgres(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Give a wire to a server, and the address to use instead of its own."""
    wire = Wire(connect_to(database_url))
    async with listening(wire.accept, database_url) as url:
        try:
            yield wire, url
        finally:
            await wire.close()
