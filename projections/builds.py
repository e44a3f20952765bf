"""How a projection's tables come into being, and how a newer build takes the place of an older one.

Tables are always built where no reader looks, in a schema beside the one that readers know; when the build has come
as far as the one before it, the two change their names in one transaction. So a reader finds the tables whole, the old
ones or the new ones, and never sees them empty. One in REPEATABLE READ, whose snapshot is older than rows of the new
ones, would miss these; therefore the transactions that are open when a build is whole are waited for before the swap. A
build that is interrupted stays, with its checkpoint.

The caller owns the transaction.
"""

from __future__ import annotations

from typing import Any

from psycopg.errors import LockNotAvailable

from holdfast.events.recorded import Cursor
from holdfast.projections.definition import Subscription
from holdfast.projections.subscription import Build, Checkpoint, Connection, checkpoint, enter, go_on, is_due, lock
from holdfast.schemas.errors import RebuildRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def register(connection: Connection, subscription: Subscription) -> Build:
    """Make a subscription known, and return which build of it is to be run.

    A projection that has no tables yet begins to build them; a first build by an older version, which nobody has
    seen, gives way to one by this.
    """
    live, following = Build(subscription, "live"), Build(subscription, "next")
    if await checkpoint(connection, live) is not None:
        return live
    await lock(connection, live)
    if await checkpoint(connection, live) is not None:
        return live
    if subscription.schema is None:
        await _run(connection, "add_projection", live, schema=None)
        return live
    await lock(connection, following)
    found = await checkpoint(connection, following)
    if found is None or found.version < subscription.version:
        await _begin(connection, following)
    return following


async def begin(connection: Connection, subscription: Subscription, *, restart: bool = False) -> bool:
    """Begin to build a projection's tables anew, beside those that it has; returns whether that was begun before.

    What was begun by the same version goes on where it is, unless ``restart``. Raises ``RebuildRefused`` if something
    outside of the projection's schema depends on its tables.
    """
    if subscription.schema is None:
        raise RebuildRefused(subscription.name, f"{subscription.name} has no tables to rebuild")
    following = Build(subscription, "next")
    await _refuse_dependents(connection, subscription)
    await lock(connection, following)
    found = await checkpoint(connection, following)
    if found is not None and found.version == subscription.version and not restart:
        await _run(connection, "resume_projection", following)
        return True
    await _begin(connection, following)
    return False


async def come_up(connection: Connection, subscription: Subscription, tx: Any) -> Checkpoint | None:
    """Have what is built come as far as what readers see, or to the end of the log; return where it stands if it has.

    Meanwhile nobody runs either of them, so no more is handled than a page: if that is not enough, it stays, and the
    rest is to be handled before another try.
    """
    live, following = Build(subscription, "live"), Build(subscription, "next")
    await lock(connection, live)
    await lock(connection, following)
    built = await checkpoint(connection, following)
    if built is None or not built.is_running or built.version != subscription.version:
        return None
    before = await checkpoint(connection, live)
    if before is not None:
        await _refuse_dependents(connection, subscription)
    return built if await _come_to(connection, following, built, before, tx) else None


async def open_transactions(connection: Connection) -> dict[str, int]:
    """Return the transactions of the database that have a snapshot, each with its server process."""
    cursor = await connection.execute(_SQL["open_transactions"])
    return dict(await cursor.fetchall())


async def promote(connection: Connection, subscription: Subscription, tx: Any) -> bool:
    """Let what was built be what readers see; tell whether it was done.

    It comes up first, so that no reader goes back in time: see ``come_up``. The caller has waited for the
    ``open_transactions`` of the moment when it had come up once. What was there before is left for ``drop_old``.
    """
    live, following = Build(subscription, "live"), Build(subscription, "next")
    if await come_up(connection, subscription, tx) is None:
        return False
    if await checkpoint(connection, live) is not None:
        await connection.execute(_SQL["copy_rights"], {"schema": live.schema, "to_schema": following.schema})
        await connection.execute(_SQL["rename_schema"], {"schema": live.schema, "new_name": _old(subscription)})
    await connection.execute(_SQL["rename_schema"], {"schema": following.schema, "new_name": live.schema})
    await _remove(connection, live)
    await _run(connection, "promote_skipped", following)
    await _run(connection, "promote_projection", following)
    return True


async def drop_old(connection: Connection, subscription: Subscription, patience: float = 5.0) -> None:
    """Drop the tables that a newer build has taken the place of; who reads them is waited for ``patience`` seconds."""
    await connection.execute(_SQL["wait_briefly"], {"lock_timeout": f"{round(patience * 1000)}ms"})
    await connection.execute(_SQL["drop_schema"], {"schema": _old(subscription)})


async def drop_next(connection: Connection, schema: str) -> bool:
    """Give up what is built in a schema to take the place of a projection's tables; tells whether anything was."""
    cursor = await connection.execute(_SQL["built_in"], {"schema": schema})
    row = await cursor.fetchone()
    if row is None:
        return False
    key = {"app": row[0], "name": row[1], "build": "next"}
    await connection.execute(_SQL["lock_projection"], key)
    cursor = await connection.execute(_SQL["remove_projection"], key)
    if await cursor.fetchone() is None:
        return False
    await connection.execute(_SQL["remove_skipped"], key)
    await connection.execute(_SQL["drop_schema"], {"schema": schema})
    return True


async def _begin(connection: Connection, build: Build) -> None:
    place, subscription = {"schema": build.schema}, build.subscription
    try:
        await drop_old(connection, subscription)
    except LockNotAvailable:
        raise RebuildRefused(
            subscription.name,
            f"the tables that the last rebuild replaced, in schema {_old(subscription)}, are still read in a "
            "transaction: wait until it ends",
        ) from None
    await connection.execute(_SQL["drop_schema"], place)
    await _remove(connection, build)
    await connection.execute(_SQL["create_schema"], place)
    if await checkpoint(connection, Build(subscription, "live")) is not None:
        await connection.execute(_SQL["copy_rights"], {"schema": subscription.schema, "to_schema": build.schema})
    await enter(connection, build.schema)
    await connection.execute(subscription.create.encode())
    await connection.execute(_SQL["open_to_observers"], place)
    await _run(connection, "add_projection", build, schema=subscription.schema)


async def _remove(connection: Connection, build: Build) -> None:
    await _run(connection, "remove_skipped", build)
    await _run(connection, "remove_projection", build)


async def _come_to(connection: Connection, build: Build, built: Checkpoint, before: Checkpoint | None, tx: Any) -> bool:
    """Handle a page of what the older build has come to, or of the log if there is none; tell whether that is all."""
    if before is not None and _is_at(before, built.cursor):
        return True
    page = await go_on(connection, build, built.cursor, tx)
    if page.seen < build.subscription.page:
        return True
    return not await is_due(connection, build) if before is None else _is_at(before, page.cursor)


def _is_at(before: Checkpoint, cursor: Cursor | None) -> bool:
    return before.cursor is None or (cursor is not None and cursor >= before.cursor)


async def _refuse_dependents(connection: Connection, subscription: Subscription) -> None:
    cursor = await connection.execute(_SQL["dependents"], {"schema": subscription.schema})
    names = [name for (name,) in await cursor.fetchall()]
    if names:
        raise RebuildRefused(
            subscription.name,
            f"{', '.join(names)} depends on tables of schema {subscription.schema}, which a rebuild drops: let the "
            "projection create it",
        )


async def _run(connection: Connection, statement: str, build: Build, **parameters: object) -> None:
    await connection.execute(_SQL[statement], build.key | {"version": build.subscription.version} | parameters)


def _old(subscription: Subscription) -> str:
    return f"{subscription.schema}__old"
