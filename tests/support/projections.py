"""Events for projections, written into the log as workers write them, and projections that count them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection

from holdfast import App, Projection, ProjectionStopped, RecordedEvent, Transaction
from holdfast.events.log import Append, Expected
from holdfast.events.postgres import append_many
from holdfast.events.types import Event, InstanceCompleted, InstanceStarted, Persisted
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.services.projector import Projector
from holdfast.schemas.settings import Settings

APP = "shop"


class Started(Projection):
    """How often each workflow was started, with one handler for all events of a page."""

    create = "create table started (workflow text primary key, instances bigint not null)"

    async def started(self, tx: Transaction, events: Sequence[InstanceStarted]) -> None:
        await tx.execute(
            """
            insert into started as s (workflow, instances)
            select workflow, count(*) from unnest(%s::text[]) as e (workflow) group by workflow
            on conflict (workflow) do update set instances = s.instances + excluded.instances
            """,
            [[event.workflow for event in events]],
        )


class Seen(Projection):
    """Every start and end, in the order in which they came, one at a time; a start of ``bad`` is refused."""

    create = "create table seen (place bigint generated always as identity, what text not null, version bigint)"
    page = 10

    async def started(self, tx: Transaction, event: InstanceStarted, recorded: RecordedEvent) -> None:
        if event.workflow == "bad":
            raise ValueError("a bad one")
        await tx.execute("insert into seen (what, version) values (%s, %s)", (event.workflow, recorded.version))

    async def completed(self, tx: Transaction, event: InstanceCompleted, recorded: RecordedEvent) -> None:
        await tx.execute("insert into seen (what, version) values (%s, %s)", (event.result, recorded.version))


class Lenient(Seen):
    on_poison = "skip"


def start(workflow: str = "order", body: Any = None) -> InstanceStarted:
    return InstanceStarted(
        workflow=workflow,
        program_hash="6a09e667",
        correlation_key="k",
        message_id=str(uuid4()),
        message_type="OrderPlaced",
        body=body,
    )


def life(workflow: str = "order", result: str = "done") -> list[Event]:
    return [start(workflow), Persisted(reason="idle", idle=True), InstanceCompleted(result=result)]


async def write(
    connection: AsyncConnection[Any], streams: Iterable[Sequence[Event]], app: str = APP, first: UUID | None = None
) -> list[UUID]:
    """Append the events of new instances in the connection's transaction, and return their ids."""
    appends = [
        Append(instance_id=first or uuid4(), expected=Expected.ANY, events=events, metadata={"app": app})
        for events in streams
    ]
    await append_many(connection, appends)
    return [append.instance_id for append in appends]


async def commit(url: str, *streams: Sequence[Event], app: str = APP) -> list[UUID]:
    """Append the events of new instances in a transaction of their own."""
    async with await AsyncConnection.connect(url) as connection:
        return await write(connection, streams, app)


def app_with(*projections: type[Projection], name: str = APP) -> App:
    app = App(name)
    for projection in projections:
        app.projection(projection)
    app.check()
    return app


@asynccontextmanager
async def projector(url: str, app: App, **settings: Any) -> AsyncIterator[Projector]:
    it = Projector(app.subscriptions, Settings(database_url=url, **settings), RealEnvironment())
    try:
        yield it
    finally:
        await it.close()


async def catch_up(url: str, app: App) -> None:
    """Let a process without a broker run the app's projections up to the end of the log."""
    await settle(url)
    async with projector(url, app) as it:
        with suppress(ProjectionStopped):
            await it.catch_up()


async def settle(url: str) -> None:
    """Wait until the safe horizon has passed all events: the server's own chores may hold it back for a moment."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        while not await _all_below_horizon(connection):
            pass


async def _all_below_horizon(connection: AsyncConnection[Any]) -> bool:
    cursor = await connection.execute(
        "select coalesce(max(xid::text::bigint), 0) < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        " from holdfast.events"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


def rows(url: str, query: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()
