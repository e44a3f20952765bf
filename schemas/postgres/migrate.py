"""Bring a database up to the schema that this version of Holdfast needs; ``check.py`` tells whether it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What a migration did.

    ``applied`` are the revisions, oldest first; ``epoch`` is the new epoch of the log if it was raised, else None;
    ``granted`` are the roles that lacked rights and have them now, ``missing`` those that are not there and that this
    user may not create.
    """

    applied: tuple[str, ...]
    epoch: int | None
    granted: tuple[str, ...]
    missing: tuple[str, ...]


async def migrate(database_url: str) -> Migrated:
    """Apply the migrations that the database lacks, and set right what a restore leaves wrong.

    All is done in one transaction. Callers at the same time wait for each other, and all but the first find
    nothing to do. If the database has moved to another cluster, was restored to an earlier moment or has been
    promoted, as its system identifier and its timeline tell, the epoch of the log is raised, which waits for the
    transactions that write to the log. Roles get the rights that they lack. Raises ``StorageError``.
    """
    return await asyncio.to_thread(_migrate, database_url)


def _migrate(database_url: str) -> Migrated:
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
                epoch = _raise_epoch(raw)
                before = {*raw.execute(_SQL["rights"]).fetchall()}
                raw.execute(_SQL["grant_rights"])
                granted = {role for role, *_ in {*raw.execute(_SQL["rights"]).fetchall()} - before}
                missing = [role for (role,) in raw.execute(_SQL["missing_roles"]).fetchall()]
    except DBAPIError as error:
        raise StorageError(f"the migration failed: {error.orig}") from error
    except psycopg.Error as error:
        raise StorageError(f"the migration failed: {error}") from error
    return Migrated(applied=tuple(applied), epoch=epoch, granted=tuple(sorted(granted)), missing=tuple(missing))


def _raise_epoch(connection: psycopg.Connection[Any]) -> int | None:
    """Raise the epoch if transaction ids of before and after are not to be compared, and return it then."""
    if not any(connection.execute(_SQL["moved"]).fetchone() or ()):
        return None
    connection.execute(_SQL["lock_log"])
    row = connection.execute(_SQL["raise_epoch"]).fetchone()
    return row and int(row[0])
