"""Projections rebuilt as of a place in the log, and what compares their tables."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0012"
down_revision = "0009"


def upgrade() -> None:
    """Add the table of scratches, and functions."""
    run("0012_scratches.sql")
