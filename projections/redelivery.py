"""Gives a projection events once more that lie behind its checkpoint, which stays where it is.

Each page is one transaction under the lock of the projection's live build, so nothing that is new is handled in
between, and what was passed over and is now taken is no longer kept as such. The caller owns the transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.events.log import Page
from holdfast.projections import selection
from holdfast.projections.definition import Subscription
from holdfast.projections.selection import EventCriteria, Place, Selection
from holdfast.projections.subscription import (
    Build,
    Checkpoint,
    Connection,
    checkpoint,
    handle,
    lock,
)
from holdfast.schemas.errors import ProjectionNotFound, ReplayRefused
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def choose(
    connection: Connection,
    subscription: Subscription,
    first: Place,
    last: Place,
    criteria: EventCriteria,
    *,
    skipped: bool = False,
) -> Selection:
    """Return the events that a projection can be given again: those that it wants, and its checkpoint has passed.

    With ``skipped`` they are those that it passed over. Raises ``ProjectionNotFound``, and ``ReplayRefused`` as
    ``selection.choose``, while a rebuild is under way, and for tables that other code has built.
    """
    stands = await _require(connection, Build(subscription, "live"))
    chosen = await selection.choose(connection, subscription.app, first, last, criteria)
    return replace(
        chosen,
        end=chosen.after if stands.cursor is None else min(chosen.end, stands.cursor),
        types=subscription.types,
        skipped_by=subscription.name if skipped else None,
    )


async def redeliver(connection: Connection, build: Build, chosen: Selection, tx: Any, limit: int) -> Page:
    """Give the live build of a projection the first of the events that are chosen, among ``limit`` of the log.

    Raises ``HandlerFailed``, and then the transaction is to be rolled back; ``ProjectionNotFound`` and
    ``ReplayRefused`` as ``choose``.
    """
    await lock(connection, build)
    await _require(connection, build)
    page = await selection.read(connection, chosen, limit)
    if page.events:
        await handle(connection, build.subscription, build.schema, page, tx)
        await connection.execute(
            _SQL["forget_skipped"],
            build.key
            | {
                "instance_ids": [it.instance_id for it in page.events],
                "versions": [it.version for it in page.events],
            },
        )
    return page


async def _require(connection: Connection, build: Build) -> Checkpoint:
    """Return where a live build stands, if it can be given events again."""
    name = build.subscription.name
    stands = await checkpoint(connection, build)
    following = await checkpoint(connection, replace(build, stage="next"))
    if following is not None:
        raise ReplayRefused(
            f"projection {name} is being built, and the new tables will have all of it: wait for that, or drop schema "
            f"{replace(build, stage='next').schema} with `holdfast projections drop`"
        )
    if stands is None:
        raise ProjectionNotFound(name)
    if stands.version != build.subscription.version:
        raise ReplayRefused(
            f"the tables of projection {name} are of version {stands.version}, and the code is of "
            f"{build.subscription.version}: rebuild it"
        )
    return stands
