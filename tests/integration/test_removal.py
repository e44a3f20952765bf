"""Removing non-persisted instances: what the database lets go, what it keeps, and what becomes of the rest."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast import Client
from holdfast.schemas.errors import InstanceNotFound, NotRemovable
from tests.support.instances import WAITING, add_host, add_order, register

HOUR = timedelta(hours=1)
PLAIN = (
    "delete from holdfast.instances where instance_id = %s",
    "delete from holdfast.instance_rows where instance_id = %s",
)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


async def age(connection: psycopg.AsyncConnection, instance_id: UUID, by: timedelta = 2 * HOUR) -> None:
    await connection.execute(
        "update holdfast.instance_rows set creation_time = creation_time - %s where instance_id = %s", [by, instance_id]
    )


async def orphan(connection: psycopg.AsyncConnection, host_id: UUID | None = None) -> UUID:
    """Register an instance two hours ago; unless a host is given, the one that held it has fallen."""
    instance_id = await register(connection, host_id or await add_host(connection, "gone", lease=-1))
    await age(connection, instance_id)
    return instance_id


async def persisted(connection: psycopg.AsyncConnection) -> UUID:
    async with connection.transaction():
        return await add_order(connection, await add_host(connection), WAITING)


async def is_there(connection: psycopg.AsyncConnection, instance_id: UUID) -> bool:
    cursor = await connection.execute("select from holdfast.instance_rows where instance_id = %s", [instance_id])
    return await cursor.fetchone() is not None


async def add_message(
    connection: psycopg.AsyncConnection, message_id: str, verdict: str = "buffered", addressee: UUID | None = None
) -> None:
    await connection.execute(
        """insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict, instance_id)
        values ('shop', %s, 'OrderPlaced', 'k', '{}', '', %s, %s)""",
        [message_id, verdict, addressee],
    )


@pytest.mark.parametrize("statement", PLAIN)
@pytest.mark.parametrize("suspended", [False, True])
async def test_a_plain_delete_removes_what_nobody_needs(
    connection: psycopg.AsyncConnection, statement: str, *, suspended: bool
) -> None:
    instance_id, other = await orphan(connection), await orphan(connection)
    await connection.execute(
        "update holdfast.instance_rows set is_suspended = %s where instance_id = %s", [suspended, instance_id]
    )
    deleted = await connection.execute(statement.encode(), [instance_id])
    assert deleted.rowcount == 1
    assert not await is_there(connection, instance_id)
    assert await is_there(connection, other)
    assert (await connection.execute(statement.encode(), [instance_id])).rowcount == 0


@pytest.mark.parametrize("verdict", ["buffered", "dead_lettered"])
async def test_the_messages_of_a_removed_instance_are_rejected_and_its_attempts_forgotten(
    connection: psycopg.AsyncConnection, verdict: str
) -> None:
    instance_id = await orphan(connection)
    cursor = await connection.execute(
        "select start_message_id from holdfast.instances where instance_id = %s", [instance_id]
    )
    ((start,),) = await cursor.fetchall()
    await add_message(connection, start, verdict)
    await add_message(connection, "command", addressee=instance_id)
    await add_message(connection, "another's")
    for name, of in ((start, None), ("burst", instance_id), ("another's", None)):
        await connection.execute(
            "insert into holdfast.attempts (app, message_id, attempts, instance_id) values ('shop', %s, 1, %s)",
            [name, of],
        )
    await connection.execute("delete from holdfast.instances where instance_id = %s", [instance_id])
    inbox = await connection.execute(
        "select message_id, verdict, reason, body is null, instance_id from holdfast.inbox order by message_id"
    )
    assert await inbox.fetchall() == [
        ("another's", "buffered", None, False, None),
        ("command", "rejected", "removed", True, instance_id),
        (start, "rejected", "removed", True, instance_id),
    ]
    attempts = await connection.execute("select message_id from holdfast.attempts")
    assert await attempts.fetchall() == [("another's",)]


async def test_a_start_message_with_a_final_verdict_keeps_it(connection: psycopg.AsyncConnection) -> None:
    instance_id = await orphan(connection)
    await add_message(connection, "m", "rejected")
    await connection.execute("update holdfast.instance_rows set start_message_id = 'm'")
    await connection.execute("delete from holdfast.instances where instance_id = %s", [instance_id])
    inbox = await connection.execute("select verdict, reason from holdfast.inbox")
    assert await inbox.fetchall() == [("rejected", None)]


async def test_a_worker_may_remove_by_way_of_the_view_and_an_observer_may_not(
    connection: psycopg.AsyncConnection,
) -> None:
    instance_id = await orphan(connection)
    await connection.execute("set role holdfast_observer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await connection.execute("delete from holdfast.instances where instance_id = %s", [instance_id])
    await connection.execute("set role holdfast_worker")
    await connection.execute("delete from holdfast.instances where instance_id = %s", [instance_id])
    await connection.execute("reset role")
    assert not await is_there(connection, instance_id)


async def refused(connection: psycopg.AsyncConnection, client: Client, instance_id: UUID) -> tuple[str | None, str]:
    """Return how the database refuses a plain delete, by SQLSTATE, and what stands in the way of the client."""
    codes = set()
    for statement in PLAIN:
        with pytest.raises(psycopg.Error) as said:
            await connection.execute(statement.encode(), [instance_id])
        codes.add(said.value.sqlstate)
    with pytest.raises(NotRemovable) as told:
        await client.remove(instance_id)
    assert await is_there(connection, instance_id)
    (code,) = codes
    return code, told.value.obstacle


async def test_what_is_persisted_stays(connection: psycopg.AsyncConnection, client: Client) -> None:
    instance_id = await persisted(connection)
    await age(connection, instance_id)
    assert await refused(connection, client, instance_id) == ("HF002", "persisted")


async def test_what_a_living_host_holds_stays(connection: psycopg.AsyncConnection, client: Client) -> None:
    instance_id = await orphan(connection, await add_host(connection))
    assert await refused(connection, client, instance_id) == ("HF003", "live")


async def test_what_is_young_stays_until_it_has_the_age_that_the_database_asks_for(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    instance_id = await register(connection)
    assert await refused(connection, client, instance_id) == ("HF004", "young")
    await age(connection, instance_id, 0.9 * HOUR)
    assert await refused(connection, client, instance_id) == ("HF004", "young")
    await connection.execute("update holdfast.settings set removal_age = '50 minutes'")
    await client.remove(instance_id)
    assert not await is_there(connection, instance_id)


async def test_of_many_rows_in_one_delete_one_that_stays_keeps_them_all(connection: psycopg.AsyncConnection) -> None:
    fit, young = await orphan(connection), await register(connection)
    with pytest.raises(psycopg.Error) as said:
        await connection.execute("delete from holdfast.instances where not is_initialized and current_machine is null")
    assert said.value.sqlstate == "HF004"
    assert await is_there(connection, fit)
    assert await is_there(connection, young)


# The client.


async def test_the_client_removes_what_is_still_what_it_was_taken_for(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    instance_id = await orphan(connection)
    for wanted, obstacle in (({"class_": "orphan"}, "changed"), ({"older_than": 3 * HOUR}, "young")):
        with pytest.raises(NotRemovable) as told:
            await client.remove(instance_id, **wanted)
        assert told.value.obstacle == obstacle
    await client.remove(instance_id, class_="message_lost", older_than=HOUR, dry_run=True)
    assert await is_there(connection, instance_id)
    await client.remove(instance_id, class_="message_lost", older_than=HOUR)
    with pytest.raises(InstanceNotFound):
        await client.remove(instance_id)


async def test_a_client_of_an_app_removes_nothing_of_another(
    connection: psycopg.AsyncConnection, database_url: str
) -> None:
    instance_id = await orphan(connection)
    async with Client(database_url, app="another") as client:
        with pytest.raises(InstanceNotFound):
            await client.remove(instance_id)
    assert await is_there(connection, instance_id)


# Children.


async def test_a_child_that_is_waited_for_is_removed_once_its_parent_is_told(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    parent = await persisted(connection)
    child = await orphan(connection)
    awaited_as = uuid4()
    await connection.execute(
        "update holdfast.instance_rows set parent_id = %s, subflow = 'start', awaited_as = %s where instance_id = %s",
        [parent, awaited_as, child],
    )
    await connection.execute(
        """insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, line)
        values (%s, 'child', 'shop', 'child', 'holdfast.SubflowResult', %s, 1)""",
        [parent, str(awaited_as)],
    )
    for statement in PLAIN:
        with pytest.raises(psycopg.Error) as said:
            await connection.execute(statement.encode(), [child])
        assert said.value.sqlstate == "HF005"
    await client.remove(child)
    inbox = await connection.execute("select message_id, verdict, correlation_key from holdfast.inbox")
    assert await inbox.fetchall() == [(f"{awaited_as}:result", "buffered", str(awaited_as))]
    assert not await is_there(connection, child)


async def test_a_child_that_nobody_waits_for_any_more_is_simply_removed(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    parent = await persisted(connection)
    child = await orphan(connection)
    await connection.execute(
        "update holdfast.instance_rows set parent_id = %s, subflow = 'start', awaited_as = %s where instance_id = %s",
        [parent, uuid4(), child],
    )
    await client.remove(child)
    inbox = await connection.execute("select count(*) from holdfast.inbox")
    assert await inbox.fetchone() == (0,)
