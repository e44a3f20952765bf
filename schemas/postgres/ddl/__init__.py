"""The files of DDL, and how a migration runs one."""

from __future__ import annotations

from importlib.resources import files

from alembic import op


def run(name: str) -> None:
    """Run a file of DDL in the transaction of the migration.

    The text goes to the driver as it is, so that a ``%`` or a ``:`` in it means what it means in SQL.
    """
    connection = op.get_bind().connection.driver_connection
    if connection is None:
        raise RuntimeError("a migration needs a live connection")
    connection.execute(files(__name__).joinpath(name).read_bytes())
