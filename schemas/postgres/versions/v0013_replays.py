"""Replays, with how far each is."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add to what is there."""
    run("0013_replays.sql")
