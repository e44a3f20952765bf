"""Subflows: parents, what may be waited for, and where answers go."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to what is there; nothing that was stored changes its meaning."""
    run("0002_subflows.sql")
