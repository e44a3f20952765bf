"""A projection that is rebuilt by the next version of its code, and a log to rebuild it from."""

from collections.abc import Sequence

from psycopg import AsyncConnection

from holdfast import Projection, Transaction
from holdfast.events.types import InstanceStarted
from holdfast.processor import projecting
from holdfast.projections.lag import Progress
from holdfast.schemas.settings import Settings
from tests.support.projections import Started, app_with, start, write

SCHEMAS = "select nspname from pg_namespace where nspname like 'shop%' order by 1"
STARTED = "select sum(instances)::int from shop_started.started"


class Counted(Started):
    """The same tables, by code of the next version: it counts double."""

    name = "started"
    version = 2
    page = 200

    async def started(self, tx: Transaction, events: Sequence[InstanceStarted]) -> None:
        await super().started(tx, [*events, *events])


async def rebuild(url: str, projection: type[Projection], *, restart: bool = False) -> list[Progress]:
    app = app_with(projection)
    name = app.subscriptions[0].name
    return [it async for it in projecting.rebuild(app, name, Settings(database_url=url), restart=restart)]


async def fill(url: str, count: int, workflow: str = "order") -> None:
    async with await AsyncConnection.connect(url) as connection:
        await write(connection, [[start(workflow)] for _ in range(count)])
