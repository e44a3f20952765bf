"""Partitions: which host consumes which."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add to what is there."""
    run("0006_partitions.sql")
