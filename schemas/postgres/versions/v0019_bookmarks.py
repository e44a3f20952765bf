"""What the columns of the table of bookmarks are for."""

from __future__ import annotations

from holdfast.schemas.postgres.ddl import run

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add to what is there."""
    run("0019_bookmarks.sql")
