"""Something between a client and Postgres: how it reaches the server, and where the client reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Connect: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
Accept: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


def connect_to(database_url: str) -> Connect:
    """Return what connects to the server, which listens on a socket or on a port."""
    given = conninfo_to_dict(database_url)
    host, port = str(given["host"]), int(given.get("port") or 5432)
    if host.startswith("/"):
        return lambda: asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
    return lambda: asyncio.open_connection(host, port)


@asynccontextmanager
async def listening(accept: Accept, database_url: str) -> AsyncIterator[str]:
    """Let clients in on a socket, and give the address to use instead of the server's."""
    port = conninfo_to_dict(database_url).get("port") or 5432
    with TemporaryDirectory(prefix="holdfast-behind-") as folder:
        server = await asyncio.start_unix_server(accept, Path(folder) / f".s.PGSQL.{port}")
        try:
            yield make_conninfo(database_url, host=folder)
        finally:
            server.close()
