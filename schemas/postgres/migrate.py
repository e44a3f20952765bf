"""Bring a database up to the schema that this version of Holdfast needs; ``check.py`` tells whether it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from holdfast.schemas.errors import StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_HOME = Path(__file__).parent
_OLDEST_SERVER = 150000

_alembic = Lock()
"""Alembic keeps what it works on in globals, so one thread at a time may use it."""


async def migrate(database_url: str) -> list[str]:
    """Apply the migrations that the database lacks and return their revisions, oldest first.

    All of them are applied in one transaction. Callers at the same time wait for each other, and all
    but the first find nothing to do. If the database has moved to another cluster, as its system
    identifier tells, the epoch of the log is raised. Raises ``StorageError``.
    """
    return await asyncio.to_thread(_migrate, database_url)


def _migrate(database_url: str) -> list[str]:
    applied: list[str] = []

    def on_version_apply(*, step: Any, **_: object) -> None:
        applied.append(step.up_revision_id)

    try:
        with _alembic, psycopg.connect(database_url) as raw:
            if raw.info.server_version < _OLDEST_SERVER:
                raise StorageError(f"Holdfast needs PostgreSQL 15 or newer, this is {raw.info.server_version // 10000}")
            engine = create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool)
            with engine.begin() as connection:
                raw.execute(_SQL["lock_schema"])
                raw.execute("create schema if not exists holdfast")
                config = Config()
                config.set_main_option("script_location", str(_HOME).replace("%", "%%"))
                config.attributes.update(connection=connection, on_version_apply=on_version_apply)
                command.upgrade(config, "head")
                raw.execute(_SQL["raise_epoch"])
    except DBAPIError as error:
        raise StorageError(f"the migration failed: {error.orig}") from error
    except psycopg.Error as error:
        raise StorageError(f"the migration failed: {error}") from error
    return applied
