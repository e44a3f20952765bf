"""The foundation: the log, the instance store, messages, hosts and programs."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    run("0001_foundation.sql")
