"""Check that a database has the schema that this version of Holdfast needs.

It stands apart from ``migrate.py`` so that workers need not load what only migrations use.
"""

from __future__ import annotations

from importlib.resources import files

import psycopg

from holdfast.schemas.errors import NotMigrated, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_NO_SCHEMA = "the database has no Holdfast schema yet: run `holdfast migrate`"


async def check(database_url: str) -> bool:
    """Raise ``NotMigrated`` unless the database has the schema that this version needs.

    A newer schema is accepted: it has to serve the version before it while a deployment rolls. Return False if the
    database was restored to an earlier moment, or promoted, and the epoch of its log has not been raised since: all
    inside goes on as it should, but a cursor that somebody keeps outside may pass over new events.
    Raises ``StorageError`` if the database cannot be reached.
    """
    needed = newest()
    try:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            found = await (await connection.execute(_SQL["schema_version"])).fetchone()
            if found is None or found[0] is None:
                raise NotMigrated(_NO_SCHEMA)
            if found[0] < needed:
                raise NotMigrated(
                    f"the database is at schema {found[0]}, this version needs {needed}: run `holdfast migrate`"
                )
            is_elsewhere, is_later = await (await connection.execute(_SQL["moved"])).fetchone() or (False, False)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise NotMigrated(_NO_SCHEMA) from None
    except psycopg.Error as error:
        raise StorageError(f"cannot read the schema of the database: {error}") from error
    if is_elsewhere:
        raise NotMigrated("the database has moved to another cluster: run `holdfast migrate`")
    return not is_later


def newest() -> str:
    """Return the newest revision; each is named after its file of DDL, ``0001_foundation.sql``."""
    names = (file.name for file in files(__package__).joinpath("ddl").iterdir())
    return max(name.partition("_")[0] for name in names if name.endswith(".sql"))
