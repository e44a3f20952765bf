"""Bring a database up to the schema that this version of Holdfast needs, and check that it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from holdfast.schemas.errors import NotMigrated, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_HOME = Path(__file__).parent
_OLDEST_SERVER = 140000

_alembic = Lock()
"""Alembic keeps what it works on in globals, so one thread at a time may use it."""


async def migrate(database_url: str) -> list[str]:
    """Apply the migrations that the database lacks and return their revisions, oldest first.

    All of them are applied in one transaction. Callers at the same time wait for each other, and all
    but the first find nothing to do. If the database has moved to another cluster, as its system
    identifier tells, the epoch of the log is raised. Raises ``StorageError``.
    """
    return await asyncio.to_thread(_migrate, database_url)


async def check(database_url: str) -> None:
    """Raise ``NotMigrated`` unless the database has the schema that this version needs.

    A newer schema is accepted: it has to serve the version before it while a deployment rolls.
    Raises ``StorageError`` if the database cannot be reached.
    """
    head = _script().get_current_head()
    try:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            found = await (await connection.execute(_SQL["schema_version"])).fetchone()
            moved = await (await connection.execute(_SQL["moved"])).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        found = moved = None
    except psycopg.Error as error:
        raise StorageError(f"cannot read the schema of the database: {error}") from error
    if found is None or moved is None or found[0] is None:
        raise NotMigrated("the database has no Holdfast schema yet: run `holdfast migrate`")
    if head is not None and found[0] < head:
        raise NotMigrated(f"the database is at schema {found[0]}, this version needs {head}: run `holdfast migrate`")
    if moved[0]:
        raise NotMigrated("the database has moved to another cluster: run `holdfast migrate`")


def _migrate(database_url: str) -> list[str]:
    applied: list[str] = []

    def on_version_apply(*, step: Any, **_: object) -> None:
        applied.append(step.up_revision_id)

    try:
        with _alembic, psycopg.connect(database_url) as raw:
            if raw.info.server_version < _OLDEST_SERVER:
                raise StorageError(f"Holdfast needs PostgreSQL 14 or newer, this is {raw.info.server_version // 10000}")
            engine = create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool)
            with engine.begin() as connection:
                raw.execute(_SQL["lock_schema"])
                raw.execute("create schema if not exists holdfast")
                config = _config()
                config.attributes.update(connection=connection, on_version_apply=on_version_apply)
                command.upgrade(config, "head")
                raw.execute(_SQL["raise_epoch"])
    except DBAPIError as error:
        raise StorageError(f"the migration failed: {error.orig}") from error
    except psycopg.Error as error:
        raise StorageError(f"the migration failed: {error}") from error
    return applied


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HOME).replace("%", "%%"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
