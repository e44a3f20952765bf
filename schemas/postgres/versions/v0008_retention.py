"""How long instances and what belongs to them are kept, keys that are used again, and values found by an index."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add to what is there, and order the index of keys."""
    run("0008_retention.sql")
