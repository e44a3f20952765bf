"""Heartbeats of activity workers."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a table; nothing that was stored changes."""
    run("0003_heartbeats.sql")
