"""Counts of messages by type and verdict that are kept."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add to what is there."""
    run("0018_messages.sql")
