"""A proxy between a provider and Postgres that breaks connections at a named moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

from psycopg.conninfo import conninfo_to_dict

Cut = Literal["before", "after"]
"""Where a connection is cut: before the server sees the statement, or after it has answered."""


class Proxy:
    """Passes bytes on until a statement is to be cut off.

    ``cut`` names where the next ``commit`` breaks its connection; nothing means not at all. While
    ``is_closed`` no new connection is let in.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.cut: Cut | None = None
        self.is_closed = False
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_closed:
            writer.close()
            return
        from_server, to_server = await asyncio.open_unix_connection(self._target)
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
    """Give a proxy in front of a server that listens on a socket, and the address to use instead."""
    folder = conninfo_to_dict(database_url)["host"]
    proxy = Proxy(f"{folder}/.s.PGSQL.5432")
    with TemporaryDirectory(prefix="holdfast-proxy-") as own:
        server = await asyncio.start_unix_server(proxy.serve, Path(own) / ".s.PGSQL.5432")
        parts = urlsplit(database_url)
        assert parse_qs(parts.query)["host"] == [folder]
        try:
            yield proxy, parts._replace(query=f"host={quote(own)}").geturl()
        finally:
            server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()
