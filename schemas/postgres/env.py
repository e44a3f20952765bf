"""Alembic's environment: Alembic runs this file, on the connection that ``migrate`` hands over.

The caller owns the transaction; all that is missing is applied in it, or nothing.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="schema_version",
    version_table_schema="holdfast",
    on_version_apply=context.config.attributes["on_version_apply"],
)
context.run_migrations()
