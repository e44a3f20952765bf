"""Counts that are kept, indexes for what instances are found by, and comments on every view."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Count what is there, and go on from there."""
    run("0009_queries.sql")
