"""The servers that Holdfast needs: those whose addresses are given, and private ones for the rest."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from compose.local.postgres import Postgres
from compose.local.provide import provide_rabbitmq
from compose.local.rabbitmq import Broker


@dataclass(frozen=True, kw_only=True)
class Services:
    """A Postgres and a RabbitMQ to work with."""

    database_url: str
    """Of an existing database; the names of further ones are up to the caller."""
    amqp_url: str
    postgres: Postgres | None
    """The private server, to be stopped and started by a test; nothing when the address was given."""
    rabbitmq: Broker | None
    """The private node, likewise."""

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

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_services(given: Mapping[str, str] = os.environ) -> Iterator[Services]:
    """Give services for as long as the block lasts; whatever had to be started for it is gone at its end.

    HOLDFAST_DATABASE_URL and HOLDFAST_AMQP_URL, where they are `given`, are used as they are. Raises ServerError when a
    private server cannot be had.
    """
    database_url = given.get("HOLDFAST_DATABASE_URL")
    amqp_url = given.get("HOLDFAST_AMQP_URL")
    with ExitStack() as stack:
        postgres = None if database_url else Postgres()
        if postgres:
            stack.callback(postgres.close)
        rabbitmq = None if amqp_url else provide_rabbitmq()
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
        yield Services(
            database_url=database_url or (postgres.url if postgres else ""),
            amqp_url=amqp_url or (rabbitmq.url if rabbitmq else ""),
            postgres=postgres,
            rabbitmq=rabbitmq,
        )
