"""Check that a database has the schema that this version of Holdfast needs.

It stands apart from ``migrate.py`` so that workers need not load what only migrations use.
"""

from __future__ import annotations

from importlib.resources import files

import psycopg

from holdfast.schemas.errors import NotMigrated, StorageError
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def check(database_url: str) -> None:
    """Raise ``NotMigrated`` unless the database has the schema that this version needs.

    A newer schema is accepted: it has to serve the version before it while a deployment rolls.
    Raises ``StorageError`` if the database cannot be reached.
    """
    needed = newest()
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
    if found[0] < needed:
        raise NotMigrated(f"the database is at schema {found[0]}, this version needs {needed}: run `holdfast migrate`")
    if moved[0]:
        raise NotMigrated("the database has moved to another cluster: run `holdfast migrate`")


def newest() -> str:
    """Return the newest revision; each is named after its file of DDL, ``0001_foundation.sql``."""
    names = (file.name for file in files(__package__).joinpath("ddl").iterdir())
    return max(name.partition("_")[0] for name in names if name.endswith(".sql"))
