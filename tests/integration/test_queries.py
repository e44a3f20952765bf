"""What is asked of the instance store and of dead letters."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.projections import queries
from holdfast.projections.queries import DeadLetter, Tally
from holdfast.schemas.errors import InstanceNotFound
from tests.support.instances import PAID, SUSPENDED, WAITING, add_host, add_order, register


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def host(connection: psycopg.AsyncConnection) -> UUID:
    return await add_host(connection)


async def add_letter(connection: psycopg.AsyncConnection, message_id: str, **columns: Any) -> None:
    values = {"app": "shop", "verdict": "dead_lettered", "reason": "not_json", "detail": None, "at": "2026-01-01"}
    await connection.execute(
        """insert into holdfast.inbox
            (app, message_id, type, correlation_key, body, digest, received_at, verdict, reason, detail)
        values (%(app)s, %(message_id)s, 'OrderPlaced', 'k', '{', '', %(at)s, %(verdict)s, %(reason)s, %(detail)s)""",
        {**values, **columns, "message_id": message_id},
    )


async def add_unroutable(connection: psycopg.AsyncConnection, message_id: str, at: str, reason: str | None) -> None:
    await connection.execute(
        """insert into holdfast.outbox (message_id, app, instance_id, host_id, exchange, routing_key, type,
            correlation_key, body, created_at, dead_reason)
        values (%s, 'shop', %s, %s, 'x', 'r', 'Shipped', 'k', '{}', %s, %s)""",
        [message_id, uuid4(), uuid4(), at, reason],
    )


async def test_instances_come_newest_first_and_page_by_page(connection: psycopg.AsyncConnection) -> None:
    ids = [await register(connection) for _ in range(5)]
    first = await queries.instances(connection, limit=2)
    second = await queries.instances(connection, after=first[-1].instance_id, limit=2)
    third = await queries.instances(connection, after=second[-1].instance_id, limit=2)
    assert [[it.instance_id for it in page] for page in (first, second, third)] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
    ]
    assert await queries.instances(connection, after=ids[0]) == []


async def test_instances_are_found_by_what_is_known_of_them(connection: psycopg.AsyncConnection, host: UUID) -> None:
    registered = await register(connection, host, key="k-special")
    waiting = await add_order(connection, host, WAITING)
    paid = await add_order(connection, host, WAITING, PAID)
    suspended = await add_order(connection, host, WAITING, SUSPENDED)
    elsewhere = await register(connection, app="other")

    async def found(**criteria: Any) -> set[UUID]:
        return {it.instance_id for it in await queries.instances(connection, **criteria)}

    assert await found() == {registered, waiting, paid, suspended, elsewhere}
    assert await found(app="shop") == {registered, waiting, paid, suspended}
    assert await found(workflow="order", app="other") == {elsewhere}
    assert await found(workflow="refund") == set()
    assert await found(correlation_key="k-special") == {registered}
    assert await found(execution_status="idle") == {waiting, suspended}
    assert await found(execution_status="closed", outcome="completed") == {paid}
    assert await found(outcome="faulted") == set()
    assert await found(is_suspended=True) == {suspended}
    assert await found(is_initialized=False, app="shop") == {registered}
    assert await found(is_initialized=True, is_suspended=False) == {waiting, paid}


async def test_one_instance_is_shown_with_where_it_waits(connection: psycopg.AsyncConnection, host: UUID) -> None:
    instance_id = await add_order(connection, host, WAITING)
    instance, bookmarks = await queries.instance(connection, instance_id)
    assert (instance.workflow, instance.execution_status, instance.version) == ("order", "idle", 4)
    assert (instance.is_initialized, instance.is_suspended, instance.outcome) == (True, False, None)
    assert (instance.current_machine, instance.lock_owner, instance.last_machine) == (None, None, "m-1")
    assert instance.pending_timer == datetime(2026, 3, 4, 5, 6, 7, 80000, tzinfo=UTC)
    assert list(instance.active_bookmarks) == ["0:late", "0:paid"]
    late, paid = bookmarks
    assert (late.name, late.kind, late.due, late.line) == ("0:late", "timer", instance.pending_timer, 11)
    assert (paid.kind, paid.message_type, paid.correlation_key) == ("message", "Paid", instance.correlation_key)


async def test_the_lock_of_a_host_whose_lease_has_lapsed_is_not_shown(connection: psycopg.AsyncConnection) -> None:
    living, lapsed = await add_host(connection, "alive"), await add_host(connection, "gone", lease=-1)
    held, _ = await queries.instance(connection, await register(connection, living))
    lost, _ = await queries.instance(connection, await register(connection, lapsed))
    assert (held.current_machine, held.lock_owner, held.lock_token) == ("alive", living, 1)
    assert held.lock_expiration is not None
    assert (lost.current_machine, lost.lock_owner, lost.lock_token, lost.lock_expiration) == (None, None, None, None)


async def test_an_instance_that_is_not_there_is_named(connection: psycopg.AsyncConnection) -> None:
    with pytest.raises(InstanceNotFound) as refused:
        await queries.instance(connection, missing := uuid4())
    assert refused.value.instance_id == missing


async def test_the_tally_counts_instances_by_condition(connection: psycopg.AsyncConnection, host: UUID) -> None:
    for batches in ([], [WAITING], [WAITING], [WAITING, PAID], [WAITING, SUSPENDED]):
        await add_order(connection, host, *batches)
    await register(connection, app="other")

    def row(status: Any, outcome: Any, count: int, *, initialized: bool = True, suspended: bool = False) -> Tally:
        return Tally(
            app="shop",
            workflow="order",
            execution_status=status,
            outcome=outcome,
            is_initialized=initialized,
            is_suspended=suspended,
            instances=count,
        )

    assert await queries.tally(connection, "shop") == [
        row("closed", "completed", 1),
        row("executing", None, 1, initialized=False),
        row("idle", None, 2),
        row("idle", None, 1, suspended=True),
    ]
    assert sum(it.instances for it in await queries.tally(connection)) == 6


async def test_non_persisted_instances_are_told_apart(connection: psycopg.AsyncConnection, host: UUID) -> None:
    lapsed = await add_host(connection, "gone", lease=-1)
    live = await register(connection, host)
    suspended, buffered, dead, applied, lost = [await register(connection, lapsed) for _ in range(5)]
    elsewhere = await register(connection, app="other")
    await add_order(connection, host, WAITING)
    await connection.execute(
        """update holdfast.instance_rows
        set is_suspended = true, suspension_reason = 'unhandled_exception', suspension_exception_name = 'ValueError'
        where instance_id = %s""",
        [suspended],
    )
    for instance_id, verdict in ((buffered, "buffered"), (dead, "dead_lettered"), (applied, "applied")):
        row, _ = await queries.instance(connection, instance_id)
        await add_letter(connection, row.start_message_id or "", verdict=verdict)
    other_row, _ = await queries.instance(connection, elsewhere)
    await add_letter(connection, other_row.start_message_id or "")  # The message of that name is another app's.

    found = await queries.non_persisted(connection)
    assert {it.instance_id: (it.class_, it.start_message_verdict) for it in found} == {
        live: ("live", None),
        suspended: ("suspended", None),
        buffered: ("orphan", "buffered"),
        dead: ("orphan", "dead_lettered"),
        applied: ("message_lost", "applied"),
        lost: ("message_lost", None),
        elsewhere: ("message_lost", None),
    }
    orphans = await queries.non_persisted(connection, class_="orphan")
    assert {it.instance_id for it in orphans} == {buffered, dead}
    by_id = {it.instance_id: it for it in found}
    assert (by_id[live].current_machine, by_id[lost].current_machine) == ("m-1", None)
    assert by_id[suspended].suspension_reason == "unhandled_exception"
    assert by_id[suspended].suspension_exception_name == "ValueError"
    page = await queries.non_persisted(connection, app="shop", limit=3)
    rest = await queries.non_persisted(connection, app="shop", after=page[-1].instance_id)
    assert [it.instance_id for it in page + rest] == [lost, applied, dead, buffered, suspended, live]


async def test_non_persisted_instances_have_an_age_beside_what_their_workflow_expects(
    connection: psycopg.AsyncConnection,
) -> None:
    await connection.execute(
        """insert into holdfast.programs (app, program_hash, workflow, format, program, expected_lifetime)
        values ('shop', 'p-1', 'order', 1, '{}', '2 hours')"""
    )
    young, old = await register(connection), await register(connection)
    unknown = await register(connection, app="other")
    await connection.execute(
        "update holdfast.instance_rows set creation_time = now() - interval '3 h' where instance_id <> %s", [young]
    )
    found = {it.instance_id: it for it in await queries.non_persisted(connection)}
    assert {it: found[it].is_overdue for it in found} == {young: False, old: True, unknown: False}
    assert {found[it].expected_lifetime for it in (young, old)} == {timedelta(hours=2)}
    assert found[unknown].expected_lifetime is None
    assert found[young].age < timedelta(hours=3) <= found[old].age < timedelta(hours=4)
    overdue = await queries.non_persisted(connection, is_overdue=True)
    assert [it.instance_id for it in overdue] == [old]
    aged = await queries.non_persisted(connection, older_than=timedelta(hours=3))
    assert {it.instance_id for it in aged} == {old, unknown}


async def test_the_promised_select_statements_answer(connection: psycopg.AsyncConnection, host: UUID) -> None:
    live = await register(connection, host)
    lapsed = await register(connection, await add_host(connection, "gone", lease=-1))
    suspended = await register(connection)
    await connection.execute(
        """update holdfast.instance_rows
        set is_suspended = true, suspension_reason = 'unhandled_exception', suspension_exception_name = 'ValueError'
        where instance_id = %s""",
        [suspended],
    )
    await add_order(connection, host, WAITING)
    await add_order(connection, host, WAITING, SUSPENDED)

    async def ask(query: bytes) -> set[tuple[Any, ...]]:
        return set(await (await connection.execute(query)).fetchall())

    non_persisted = b"select instance_id, creation_time from holdfast.instances where is_initialized = false"
    assert {row[0] for row in await ask(non_persisted)} == {live, lapsed, suspended}
    assert {row[0] for row in await ask(non_persisted + b" and current_machine is null")} == {lapsed, suspended}
    assert await ask(
        b"select instance_id, suspension_reason, suspension_exception_name"
        b" from holdfast.instances where is_initialized = false and is_suspended"
    ) == {(suspended, "unhandled_exception", "ValueError")}


async def test_dead_letters_of_both_boxes_come_newest_first_and_page_by_page(
    connection: psycopg.AsyncConnection,
) -> None:
    await add_letter(connection, "a", at="2026-01-01", detail="at 0")
    await add_letter(connection, "b", at="2026-01-02")
    await add_letter(connection, "b2", at="2026-01-02")
    await add_unroutable(connection, "b", "2026-01-02", "no queue takes it")
    await add_unroutable(connection, "c", "2026-01-03", "no queue takes it")
    await add_letter(connection, "fine", verdict="applied", at="2026-01-09")
    await add_unroutable(connection, "on its way", "2026-01-09", None)
    await add_letter(connection, "z", app="other", at="2026-01-01")

    letters: list[DeadLetter] = []
    while page := await queries.dead_letters(connection, app="shop", after=letters[-1] if letters else None, limit=2):
        letters += page
    assert [(it.box, it.message_id) for it in letters] == [
        ("outbox", "c"),
        ("outbox", "b"),
        ("inbox", "b2"),
        ("inbox", "b"),
        ("inbox", "a"),
    ]
    assert (letters[-1].reason, letters[-1].detail, letters[-1].size) == ("not_json", "at 0", 1)
    assert letters[0].reason == "no queue takes it"
    assert len(await queries.dead_letters(connection)) == 6


async def test_a_dead_letter_is_opened_with_its_body(connection: psycopg.AsyncConnection) -> None:
    await add_letter(connection, "a")
    await add_unroutable(connection, "b", "2026-01-02", "no queue takes it")
    await add_letter(connection, "fine", verdict="applied")
    received = await queries.dead_letter(connection, "shop", "a")
    sent = await queries.dead_letter(connection, "shop", "b")
    assert received is not None
    assert sent is not None
    assert (received.box, received.body, received.reason) == ("inbox", b"{", "not_json")
    assert (sent.box, sent.body, sent.reason) == ("outbox", b"{}", "no queue takes it")
    assert await queries.dead_letter(connection, "shop", "fine") is None
    assert await queries.dead_letter(connection, "other", "a") is None
