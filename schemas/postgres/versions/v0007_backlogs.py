"""Backlogs: what waited in a partition before a host came, and the timers that wait for it."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add to what is there."""
    run("0007_backlogs.sql")
