"""The servers that Holdfast needs: those whose addresses are given; for the rest containers, or private servers."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from compose.local import containers
from compose.local.postgres import NEWEST, Postgres
from compose.local.process import ServerError
from compose.local.provide import provide_rabbitmq
from compose.local.rabbitmq import version_of
from compose.local.server import Broker, Database

Containers = Literal["never", "if possible", "always"]


@dataclass(frozen=True, kw_only=True)
class Services:
    """A Postgres and a RabbitMQ to work with."""

    database_url: str
    """Of an existing database; the names of further ones are up to the caller."""
    amqp_url: str
    postgres: Database | None
    """The server, to be stopped and started by a test; nothing when the address was given."""
    rabbitmq: Broker | None
    """The node, likewise."""
    origin: str
    """Where the servers come from, for people."""

    def database(self, name: str) -> str:
        """Give the address of another database on the same server."""
        return urlsplit(self.database_url)._replace(path=f"/{name}").geturl()

    def new_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which nobody may be connected to, and give its address."""
        self._run(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.database(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, and end the connections to it."""
        self._run(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def versions(self) -> str:
        """Return the versions of both servers, for people."""
        with psycopg.connect(self.database_url) as connection:
            postgres = connection.info.parameter_status("server_version")
        return f"PostgreSQL {postgres}, RabbitMQ {asyncio.run(version_of(self.amqp_url))}"

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_services(
    given: Mapping[str, str] = os.environ, *, use_containers: Containers = "never", postgres_version: int = NEWEST
) -> Iterator[Services]:
    """Give services for as long as the block lasts; whatever had to be started for it is gone at its end.

    HOLDFAST_DATABASE_URL and HOLDFAST_AMQP_URL, where they are `given`, are used as they are. What is missing is
    started, in a container or as a private server, Postgres in the `postgres_version` if it is private. Raises
    ServerError when that cannot be had.
    """
    database_url = given.get("HOLDFAST_DATABASE_URL")
    amqp_url = given.get("HOLDFAST_AMQP_URL")
    obstacle = None if use_containers == "never" else containers.why_not()
    if use_containers == "always" and obstacle is not None:
        raise ServerError(f"there are no containers to be had: {obstacle}")
    contained = use_containers != "never" and obstacle is None
    with ExitStack() as stack:
        postgres = None if database_url else _postgres(postgres_version, contained=contained)
        if postgres:
            stack.callback(postgres.close)
        rabbitmq = None if amqp_url else _rabbitmq(contained=contained)
        if rabbitmq:
            stack.callback(rabbitmq.close)
        # They take seconds to start, so they start side by side.
        starts = stack.enter_context(ThreadPoolExecutor())
        servers = [server for server in (postgres, rabbitmq) if server]
        for server in servers:
            # When one start fails, this ends the other; what that still does before it ends is cleared away later.
            stack.callback(server.close)
        for start in [starts.submit(server.start) for server in servers]:
            start.result()
        images = [image for image, server in zip(containers.images(), (postgres, rabbitmq), strict=True) if server]
        own = f"containers of {' and '.join(images)}" if contained else "private servers"
        yield Services(
            database_url=database_url or (postgres.url if postgres else ""),
            amqp_url=amqp_url or (rabbitmq.url if rabbitmq else ""),
            postgres=postgres,
            rabbitmq=rabbitmq,
            origin={0: "given addresses", 1: f"a given address and {own}", 2: own}[len(servers)],
        )


def _postgres(version: int, *, contained: bool) -> Database:
    return containers.ContainedPostgres(containers.images()[0]) if contained else Postgres(version)


def _rabbitmq(*, contained: bool) -> Broker:
    return containers.ContainedRabbitMQ(containers.images()[1]) if contained else provide_rabbitmq()
