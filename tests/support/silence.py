"""Something between a worker and RabbitMQ that passes everything on, until it is to be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from urllib.parse import urlsplit


class Silence:
    """Passes bytes on both ways, on connections that stay open, for as long as it is not ``kept``."""

    def __init__(self, amqp_url: str) -> None:
        parts = urlsplit(amqp_url)
        self.kept = False
        self.url = ""
        self._parts = parts
        self._open = Event()
        self._end: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    async def _listen(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.url = self._parts._replace(netloc=f"{self._parts.netloc.rpartition('@')[0]}@{host}").geturl()
        self._open.set()
        await self._end.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        await asyncio.gather(self._pass_on(reader, to_server), self._pass_on(from_server, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                while self.kept:  # noqa: ASYNC110  Who keeps it is in another thread.
                    await asyncio.sleep(0.02)
                writer.write(data)
        writer.close()


@contextmanager
def silence_before(amqp_url: str) -> Iterator[Silence]:
    """Give what can be silent, in a thread of its own; ``url`` is the address to use instead of the broker's."""
    silence = Silence(amqp_url)
    thread = Thread(target=lambda: asyncio.run(silence._listen()), daemon=True)
    thread.start()
    silence._open.wait()
    try:
        yield silence
    finally:
        silence._loop.call_soon_threadsafe(silence._end.set)
        thread.join()
