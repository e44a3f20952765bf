"""The rights of those who read a projection's tables."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add to what is there."""
    run("0017_rights.sql")
