"""Every look for work goes through an index, however much there is that is no work."""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, sql

from compose.local.services import Services
from holdfast.schemas.postgres.statements import load

STORE = {**load("holdfast.processor.store"), **load("holdfast.projections")}
SMALL = {"hosts", "programs", "cluster"}
"""Tables that stay small however long an app runs."""

FILL = """
insert into holdfast.hosts (host_id, app, machine, process_id, lease_expiration)
select md5(h::text)::uuid, 'shop', 'm', h, now() + case when h = 3 then interval '-1 h' else interval '1 h' end
from generate_series(1, 3) h;

insert into holdfast.programs (app, program_hash, workflow, format, program, starts_with, receives)
values ('shop', 'h', 'order', 1, '{}', 'Placed', '{Paid,Note}');

insert into holdfast.instance_rows (
    instance_id, app, workflow, program_hash, correlation_key, start_message_id, execution_status, is_initialized,
    outcome, is_completed, lock_owner, lock_token, version
)
select
    md5('i' || n)::uuid, 'shop', 'order', 'h', 'k' || n, 's' || n, case when n % 2 = 0 then 'closed' else 'idle' end,
    true,
    case when n % 2 = 0 then 'completed' end, n % 2 = 0,
    case when n % 2 = 1 and n <= 400 then md5((n % 4)::text)::uuid end, 1, 5
from generate_series(1, 20000) n;

insert into holdfast.instance_states (instance_id, state) select instance_id, '{}' from holdfast.instance_rows;

insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, due, line)
select
    md5('i' || n)::uuid, 'b', 'shop', case when n % 4 = 1 then 'message' else 'timer' end,
    case when n % 4 = 1 then 'Paid' end, case when n % 4 = 1 then 'k' || n end,
    case when n % 4 = 3 then now() + interval '1 h' end, 1
from generate_series(1, 20000, 2) n;

insert into holdfast.inbox (app, message_id, type, correlation_key, digest, verdict, body)
select 'shop', 'm' || n, 'Note', 'x' || n, '', case when n % 3 = 0 then 'buffered' else 'applied' end, '{}'
from generate_series(1, 20000) n;

insert into holdfast.outbox (message_id, app, instance_id, host_id, exchange, routing_key, type, correlation_key, body)
select 'o' || n, 'shop', md5('i' || n)::uuid, md5((n % 2 + 1)::text)::uuid, 'e', 'r', 't', 'k', '{}'
from generate_series(1, 20000) n;

insert into holdfast.attempts (app, message_id, attempts, instance_id)
select 'shop', 'a' || n, 1, case when n % 2 = 0 then md5('i' || n)::uuid end from generate_series(1, 20000) n;

insert into holdfast.heartbeats (app, request, due)
select 'shop', 'k' || n, now() + case when n % 1000 = 1 then interval '-1 s' else interval '1 h' end
from generate_series(1, 20000) n;
"""

HOST = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
LOOK: dict[str, Any] = {"app": "shop", "host_id": HOST, "foreign": [1], "held_back": [2], "limit": 100}
FROM_FIRST = {"after": 0, "after_id": UUID(int=0)}
FROM_LONG_AGO = FROM_FIRST | {"after": datetime(1, 1, 1, tzinfo=UTC)}
IDS = {"instance_ids": ["c4ca4238-a0b9-2382-0dcc-509a6f75849b"]}
HELD = "9ce88802-f075-91e5-ce04-57ef51ece021"
PARAMETERS: dict[str, dict[str, Any]] = {
    "advance": {
        "instance_ids": [HELD],
        "hosts": [HOST],
        "lock_tokens": [1],
        "expected": [5],
        "versions": [6],
        "statuses": ["idle"],
        "outcomes": [None],
        "suspended": [False],
        "reasons": [None],
        "exception_names": [None],
        "pending_timers": [None],
        "releases": [False],
        "states": [b"{}"],
        "encodings": ["none"],
        "promoted": [None],
        "closed_of": [HELD],
        "closed": ["b"],
        "opened_by": [HELD],
        "opened": ["c"],
        "kinds": ["message"],
        "message_types": ["Paid"],
        "correlation_keys": ["other"],
        "dues": [None],
        "lines": [1],
    },
    "attempt": {"app": "shop", "message_ids": ["m1"], "instance_id": None},
    "await_commits": IDS,
    "beat": {"app": "shop", "requests": ["k1", "k2"], "seconds": [1.0, 2.0], "result_type": "Paid"},
    "commanded_instances": LOOK | FROM_FIRST,
    "compare": {"app": "shop", "message_ids": ["m1"]},
    "due_instances": LOOK | FROM_LONG_AGO,
    "expire": LOOK | {"after": 0, "ttl_seconds": 60.0},
    "find_takers": {"app": "shop", "message_ids": ["m1", "m3"]},
    "forget_heartbeats": {"app": "shop", "requests": ["k1", "k2"]},
    "hand_on": IDS | {"successor_ids": IDS["instance_ids"]},
    "instances_with_mail": LOOK | FROM_FIRST,
    "lapsed_instances": LOOK | FROM_LONG_AGO,
    "leave_to_be_found": {"instance_id": HELD},
    "load": LOOK | IDS,
    "lock": LOOK | IDS,
    "look_through_inbox": LOOK | {"after": 0, "page": 100, "start_types": ["Placed"], "result_type": "Result"},
    "next_timer": LOOK,
    "published": {"message_ids": ["o1"]},
    "read_states": LOOK | IDS,
    "reject_late": {"app": "shop", "message_ids": ["m1", "m3"]},
    "reject_left_over": IDS,
    "release": LOOK | IDS,
    "route": {"app": "shop", "message_ids": ["m1"], "types": ["Paid"], "keys": ["k1"], "digests": [b"x"]},
    "silent": {"app": "shop", "result_type": "Paid", "limit": 100},
    "unpublished": LOOK,
    "wakeups": {"host_id": HOST} | IDS,
}


@pytest.fixture(scope="module", params=["now", "when it was empty"])
def full_store(request: pytest.FixtureRequest, services: Services, migrated_template: str) -> Iterator[Connection]:
    """A well filled store, and a planner that knows it as it is, or as it was before it was filled."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    with psycopg.connect(services.new_database(name, template=migrated_template)) as connection:
        for table in ("instance_rows", "bookmarks", "inbox", "outbox", "attempts", "heartbeats"):
            connection.execute(
                sql.SQL("alter table holdfast.{} set (autovacuum_enabled = false)").format(sql.Identifier(table))
            )
        connection.execute("analyze")
        connection.execute(FILL)
        if request.param == "now":
            connection.execute("analyze")
        connection.commit()
        yield connection
        connection.rollback()
    services.drop_database(name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_look_reads_no_table_from_end_to_end(full_store: Connection, name: str) -> None:
    cursor = full_store.execute(b"explain (analyze, format json) " + STORE[name], PARAMETERS[name])
    row = cursor.fetchone()
    full_store.rollback()
    assert row is not None
    plan = row[0][0]["Plan"]
    nodes = list(walk(plan))
    scanned = {n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan"}
    assert scanned <= SMALL, json.dumps(plan, indent=1)
    read = sum(
        n["Actual Loops"] * (n["Actual Rows"] + n.get("Rows Removed by Filter", 0))
        for n in nodes
        if "Relation Name" in n
    )
    assert read < 5_000, json.dumps(plan, indent=1)


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from walk(child)
