"""Non-persisted instances: a view of them, and what guards their removal."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add to what is there, and remove counts of attempts that are of no more use."""
    run("0004_removal.sql")
