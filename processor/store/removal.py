"""Removing non-persisted instances, each in a transaction of its own.

What may be removed is for the database to say: triggers (``schemas/postgres/ddl/0004_removal.sql``) refuse a plain
``delete`` just as well, and give the messages of a removed instance their verdict. Here is what comes on top: that the
instance still is what the caller believes it to be, and that who waits for its end hears of it.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import psycopg

from holdfast.processor.engine.provider import Deposit
from holdfast.processor.store.connections import Connection
from holdfast.processor.store.inbox import deposit
from holdfast.projections.queries import Class, NonPersisted, non_persisted
from holdfast.schemas.errors import InstanceNotFound, NotRemovable, Obstacle
from holdfast.schemas.postgres.statements import load
from holdfast.schemas.results import SubflowResult

_SQL = load(__package__)

_REFUSALS: dict[str | None, tuple[Obstacle, str]] = {
    "HF002": ("persisted", "it is persisted"),
    "HF003": ("live", "a host holds it"),
    "HF004": ("young", "it is younger than the database allows (removal_age in holdfast.settings)"),
    "HF005": ("awaited", "another instance waits for its end"),
}
"""What the database says by SQLSTATE."""


async def remove(
    connection: Connection,
    instance_id: UUID,
    *,
    app: str | None = None,
    class_: Class | None = None,
    older_than: timedelta | None = None,
) -> None:
    """Remove a non-persisted instance, if it is of that class and that old; whoever waits for it gets its end.

    Raises ``NotRemovable`` or ``InstanceNotFound``, and then the caller rolls back.
    """
    cursor = await connection.execute(
        _SQL["to_be_removed"],
        {"instance_id": instance_id, "app": app, "result_type": SubflowResult.message_type},
    )
    row = await cursor.fetchone()
    if row is None:
        raise InstanceNotFound(instance_id)
    its_app, workflow, awaited_as, is_awaited = row
    for found in await non_persisted(connection, instance_id=instance_id):
        _check(found, class_, older_than)
    if is_awaited:
        # Nothing of it ever was, so no outcome of its own is lost.
        end = SubflowResult(instance_id=str(awaited_as), workflow=workflow, outcome="terminated")
        await deposit(connection, its_app, [Deposit(envelope=end.posted())])
    try:
        await connection.execute(_SQL["remove"], {"instance_id": instance_id})
    except psycopg.Error as error:
        if error.sqlstate not in _REFUSALS:
            raise
        raise NotRemovable(instance_id, *_REFUSALS[error.sqlstate]) from error


def _check(found: NonPersisted, class_: Class | None, older_than: timedelta | None) -> None:
    """Raise ``NotRemovable`` for an instance that is not what was to be removed."""
    if found.class_ == "live":
        raise NotRemovable(found.instance_id, "live", f"a host on {found.current_machine} holds it")
    if class_ not in (None, found.class_):
        raise NotRemovable(found.instance_id, "changed", f"it is {found.class_} by now, not {class_}")
    if older_than is not None and found.age < older_than:
        raise NotRemovable(found.instance_id, "young", f"it is not older than {older_than}")
