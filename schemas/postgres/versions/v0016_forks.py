"""Forks, found by their origin."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0016"
down_revision = "0014"


def upgrade() -> None:
    """Add to what is there."""
    run("0016_forks.sql")
