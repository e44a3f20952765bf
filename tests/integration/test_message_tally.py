"""How many messages of a type have which verdict is kept with every commit, and outlives the messages themselves."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from random import Random
from typing import LiteralString

import psycopg
import pytest

from holdfast import Client, Retention
from holdfast.processor.store import tally

VERDICTS = ("applied", "buffered", "rejected", "expired", "dead_lettered")
TAKE_IN: LiteralString = """
insert into holdfast.inbox (app, message_id, kind, type, correlation_key, body, digest, verdict)
select 'shop', name, %(kind)s, type, 'k', '{}', '', verdict
from unnest(%(names)s::text[], %(types)s::text[], %(verdicts)s::text[]) as m (name, type, verdict)
on conflict (app, message_id) do update set verdict = excluded.verdict
"""
CHANGES: dict[str, LiteralString] = {
    "take in": TAKE_IN,
    "settle": "update holdfast.inbox set verdict = %(verdict)s where message_id = any(%(names)s)",
    "address": "update holdfast.inbox set instance_id = gen_random_uuid() where message_id = any(%(names)s)",
    "delete": "delete from holdfast.inbox where message_id = any(%(names)s)",
}
KEPT: LiteralString = "select type, verdict, messages from holdfast.messages_by_verdict"
COUNTED: LiteralString = """
select type, verdict, count(*) from holdfast.inbox where kind = 'message' group by type, verdict
"""
FINAL: LiteralString = """
select type, verdict, count(*)
from holdfast.inbox
where kind = 'message' and verdict <> 'buffered' and message_id = any(%(names)s)
group by type, verdict
"""
ROWS: LiteralString = "select type, verdict, change from holdfast.message_tally_rows"

Counts = Counter[tuple[str, str]]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app="shop") as client:
        yield client


async def take_in(connection: psycopg.AsyncConnection, *names: str, verdict: str = "applied") -> None:
    """Take in messages of one type with one verdict."""
    several = {"names": [*names], "types": ["Paid"] * len(names), "verdicts": [verdict] * len(names)}
    await connection.execute(TAKE_IN, {**several, "kind": "message"})


async def ask(connection: psycopg.AsyncConnection, query: LiteralString, names: Sequence[str] = ()) -> Counts:
    rows = await (await connection.execute(query, {"names": [*names]})).fetchall()
    return Counts({(type_, verdict): messages for type_, verdict, messages in rows})


async def changes(connection: psycopg.AsyncConnection) -> list[tuple[str, str, int]]:
    return await (await connection.execute(ROWS)).fetchall()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_what_is_kept_is_what_a_count_gives_and_what_was_deleted_with_a_final_verdict(
    connection: psycopg.AsyncConnection, seed: int
) -> None:
    random = Random(seed)  # noqa: S311  A seed is to give the same changes again.
    deleted = Counts()
    for _ in range(200):
        change = random.choice([*CHANGES])
        names = random.sample([f"m-{number}" for number in range(30)], random.randint(0, 6))
        parameters = {
            "names": names,
            "types": random.choices(["Placed", "Paid"], k=len(names)),
            "verdicts": random.choices(VERDICTS, k=len(names)),
            "kind": random.choice(["message", "message", "control"]),
            "verdict": random.choice(VERDICTS),
        }
        before = await ask(connection, KEPT)
        going = await ask(connection, FINAL, names) if change == "delete" else Counts()
        async with connection.transaction() as transaction:
            await connection.execute(CHANGES[change], parameters)
            assert await ask(connection, KEPT) == await ask(connection, COUNTED) + deleted + going, change
            if random.random() < 0.2:
                raise psycopg.Rollback(transaction)
            deleted += going
            before = await ask(connection, KEPT)
        assert await ask(connection, KEPT) == before
        if random.random() < 0.1:
            await tally.merge(connection)
            assert await ask(connection, KEPT) == before
    assert {verdict for _, verdict in await ask(connection, KEPT)} == {*VERDICTS}
    assert deleted.total() > 0


async def test_a_statement_that_changes_no_verdict_adds_nothing(connection: psycopg.AsyncConnection) -> None:
    await take_in(connection, "a", "b", verdict="buffered")
    assert await changes(connection) == [("Paid", "buffered", 2)]
    await connection.execute("update holdfast.inbox set instance_id = gen_random_uuid()")
    await connection.execute("update holdfast.inbox set verdict = 'applied' where message_id = 'c'")
    await take_in(connection, "a", verdict="buffered")
    await connection.execute("delete from holdfast.inbox where message_id = 'c'")
    assert await changes(connection) == [("Paid", "buffered", 2)]
    await connection.execute("update holdfast.inbox set verdict = 'applied'")
    assert await changes(connection) == [("Paid", "buffered", 2), ("Paid", "applied", 2), ("Paid", "buffered", -2)]


async def test_what_an_operator_does_with_a_dead_letter_is_counted(
    connection: psycopg.AsyncConnection, client: Client
) -> None:
    await take_in(connection, "a", "b", "c", verdict="dead_lettered")
    await connection.commit()
    await client.drop("a")
    await client.requeue("b")
    expected = {("Paid", "rejected"): 1, ("Paid", "buffered"): 1, ("Paid", "dead_lettered"): 1}
    assert await ask(connection, KEPT) == await ask(connection, COUNTED) == expected
    await client.apply_retention(Retention(dead_letters=timedelta(0)))
    await connection.commit()
    assert ("Paid", "dead_lettered") not in await ask(connection, COUNTED)
    assert await ask(connection, KEPT) == expected


async def test_what_is_removed_while_it_is_buffered_is_not_counted_any_more(
    connection: psycopg.AsyncConnection,
) -> None:
    commands: tuple[LiteralString, ...] = ("delete from holdfast.inbox", "truncate holdfast.inbox")
    for command in commands:
        await take_in(connection, "waits", verdict="buffered")
        await take_in(connection, "taken")
        await connection.execute(command)
    assert await ask(connection, KEPT) == {("Paid", "applied"): 2}


async def test_messages_are_counted_by_app_type_and_verdict(
    connection: psycopg.AsyncConnection, client: Client, database_url: str
) -> None:
    await take_in(connection, "a", "b")
    await take_in(connection, "c", verdict="expired")
    await connection.execute("update holdfast.inbox set type = 'Placed' where message_id = 'b'")
    await connection.execute("update holdfast.inbox set app = 'other' where message_id = 'c'")
    await connection.commit()

    async def found(client: Client, **criteria: str) -> list[tuple[str, str, str, int]]:
        rows = await client.message_tally(**criteria)  # type: ignore[arg-type]  # Each line's own.
        return [(it.app, it.type, it.verdict, it.messages) for it in rows]

    paid, placed = ("shop", "Paid", "applied", 1), ("shop", "Placed", "applied", 1)
    expired = ("other", "Paid", "expired", 1)
    assert await found(client) == [paid, placed]
    assert await found(client, type="Placed") == [placed]
    assert await found(client, verdict="expired") == []
    async with Client(database_url) as of_all:
        assert await found(of_all) == [expired, paid, placed]
        assert await found(of_all, verdict="expired", type="Paid") == [expired]


async def test_merging_keeps_what_the_rows_add_up_to(database_url: str, connection: psycopg.AsyncConnection) -> None:
    for name in ("a", "b", "c"):
        await take_in(connection, name)
    await take_in(connection, "d", verdict="buffered")
    await take_in(connection, "d", verdict="expired")
    await connection.commit()
    before = await ask(connection, KEPT)
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await take_in(other, "e")  # Is not committed when the others are merged.
        await tally.merge(connection)
        await connection.commit()
        assert {*await changes(connection)} == {("Paid", "applied", 3), ("Paid", "expired", 1)}
        assert await ask(connection, KEPT) == before
        await other.commit()
        await tally.merge(connection)  # Holds what it merges, and another one passes over that.
        await other.execute("set lock_timeout = '1ms'")
        await tally.merge(other)
        await other.commit()
    await connection.commit()
    assert await changes(connection) == [("Paid", "expired", 1), ("Paid", "applied", 4)]


async def test_two_that_take_in_messages_at_once_do_not_wait_for_each_other(
    database_url: str, connection: psycopg.AsyncConnection
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("set lock_timeout = '1ms'")
        await take_in(connection, "a")
        await take_in(other, "b")
        await other.commit()
    await connection.commit()
    assert await ask(connection, KEPT) == {("Paid", "applied"): 2}


async def test_merging_beside_writers_loses_none(database_url: str, connection: psycopg.AsyncConnection) -> None:
    await connection.set_autocommit(True)

    async def write(writer: int) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
            for number in range(50):
                await take_in(own, f"{writer}/{number}", verdict="buffered")
                await take_in(own, f"{writer}/{number}", verdict=VERDICTS[number % 5])

    async def merge() -> int:
        merged = 0
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
            while not all(writer.done() for writer in writers):
                await tally.merge(own)
                merged += 1
        return merged

    writers = [asyncio.create_task(write(writer)) for writer in range(3)]
    merges = await asyncio.gather(merge(), merge())
    await asyncio.gather(*writers)
    assert min(merges) > 1
    assert await ask(connection, KEPT) == await ask(connection, COUNTED) == {("Paid", it): 30 for it in VERDICTS}
