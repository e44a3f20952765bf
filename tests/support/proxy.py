"""A proxy between a provider and Postgres that breaks connections at a named moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from tests.support.behind import Connect, connect_to, listening

Cut = Literal["before", "after"]
"""Where a connection is cut: before the server sees the statement, or after it has answered."""


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
                if self.cut is not None and data.startswith(b"Q") and data[5:11].lower() == b"commit":
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
    proxy = Proxy(connect_to(database_url))
    async with listening(proxy.serve, database_url) as url:
        yield proxy, url


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()
