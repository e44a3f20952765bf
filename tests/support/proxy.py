"""A proxy between a provider and Postgres that breaks connections at a named moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Cut = Literal["before", "after"]
"""Where a connection is cut: before the server sees the statement, or after it has answered."""

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""How the server itself is reached."""


class Proxy:
    """Passes bytes on until a statement is to be cut off.

    ``cut`` names where the next ``commit`` breaks its connection; nothing means not at all. While
    ``is_closed`` no new connection is let in.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.cut: Cut | None = None
        self.is_closed = False
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_closed:
            writer.close()
            return
        from_server, to_server = await self._connect()
        answers = asyncio.create_task(_pump(from_server, writer))
        try:
            while data := await reader.read(1 << 16):
                if self.cut is not None and data.startswith(b"Q") and data[5:].startswith(b"commit"):
                    cut, self.cut = self.cut, None
                    self.cuts += 1
                    if cut == "after":
                        answers.cancel()
                        await asyncio.wait([answers])
                        to_server.write(data)
                        await from_server.read(1)
                    return
                to_server.write(data)
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for end in (writer, to_server):
                end.close()


@asynccontextmanager
async def proxy_to(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy in front of a server, wherever that listens, and the address to use instead."""
    given = conninfo_to_dict(database_url)
    host, port = str(given["host"]), int(given.get("port") or 5432)
    with TemporaryDirectory(prefix="holdfast-proxy-") as own:
        if host.startswith("/"):
            proxy = Proxy(partial(asyncio.open_unix_connection, f"{host}/.s.PGSQL.{port}"))
        else:
            proxy = Proxy(partial(asyncio.open_connection, host, port))
        server = await asyncio.start_unix_server(proxy.serve, Path(own) / f".s.PGSQL.{port}")
        try:
            yield proxy, make_conninfo(database_url, host=own)
        finally:
            server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()
