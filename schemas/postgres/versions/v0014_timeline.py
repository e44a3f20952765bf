"""The timeline that the log is written on, so that a restore and a promotion are noticed."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add to what is there."""
    run("0014_timeline.sql")
