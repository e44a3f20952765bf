"""What a record activity is given: a hold on the transaction that commits the workflow's state."""

from __future__ import annotations

from typing import Any, Protocol


class Transaction(Protocol):
    """The database transaction of the next persistence point.

    ``execute`` takes SQL with psycopg's placeholders and gives a psycopg cursor (``fetchone``,
    ``fetchall``, ``rowcount``). Commit and roll-back belong to Holdfast.
    """

    async def execute(self, query: Any, params: Any = None) -> Any:
        """Run one statement and return its cursor."""
        ...
