"""A first page is read from an index and is all that is read, whatever is asked for and however long ago it was."""

import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import psycopg
import pytest
from psycopg.rows import class_row

from benchmarks.queries import CASES, fill
from compose.local.services import Services
from holdfast.processor.cli.instances import CRITERIA, Status
from holdfast.projections import queries
from holdfast.projections.criteria import Criteria, Order
from holdfast.projections.queries import Instance
from holdfast.schemas.postgres.statements import load

SQL = load("holdfast.projections")
SMALL = {"hosts", "tally_rows"}
"""Tables that stay small however many instances there are."""
MOST = 5_000
"""Rows that a page of 50 may have to read: those looked through for a promoted value, and what belongs to the page."""
BOUNDED_OTHERWISE = {"promoted, half, long ago"}
"""What reads more: all that fit, where the newest instances have other values. `docs/queries.md` says so."""


@pytest.fixture(scope="module")
def full_store(services: Services, migrated_template: str) -> Iterator[psycopg.Connection]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = services.new_database(name, template=migrated_template)
    fill(url, 100_000)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
    services.drop_database(name)


def look(connection: psycopg.Connection, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a statement and return the nodes of its plan that were executed."""
    cursor = connection.execute(b"explain (analyze, format json) " + SQL[statement], parameters)
    row = cursor.fetchone()
    assert row is not None
    return [node for node in walk(row[0][0]["Plan"]) if node["Actual Loops"]]


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from walk(child)


def read(nodes: list[dict[str, Any]]) -> int:
    """Return how many rows were read of tables that grow."""
    return sum(
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes
        if node.get("Relation Name") not in {None, *SMALL}
    )


@pytest.mark.parametrize("name", CASES)
def test_a_page_reads_little_more_than_what_is_on_it(full_store: psycopg.Connection, name: str) -> None:
    criteria = dict(CASES[name])
    if "program_hash" in criteria:
        cursor = full_store.execute(
            "select program_hash from holdfast.tally where workflow = %s", [criteria["program_hash"]]
        )
        criteria["program_hash"] = (cursor.fetchone() or [""])[0]
    app = criteria.pop("app", None)
    order = {"sort": criteria.pop("sort", "created"), "ascending": criteria.pop("ascending", False)}
    found: Any = criteria
    nodes = look(full_store, *queries.find(app, found, limit=50, **order))
    if name not in BOUNDED_OTHERWISE:
        scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
        assert scanned <= SMALL, json.dumps(nodes, indent=1)
        assert read(nodes) < MOST, json.dumps(nodes, indent=1)


def test_a_page_far_down_reads_no_more_than_the_first(full_store: psycopg.Connection) -> None:
    middle = "select percentile_disc(0.5) within group (order by instance_id) from holdfast.instance_rows"
    (after,) = full_store.execute(middle).fetchone() or (None,)
    cases: list[Criteria] = [
        {},
        {"workflow": "order"},
        {"outcome": "completed"},
        {"promoted": {"stage": "paid"}},
        {"older_than": timedelta(hours=1)},
        {"waits_at": "0.3/paid"},
    ]
    cursor = full_store.cursor(row_factory=class_row(Instance))
    place = cursor.execute(SQL["instance"], {"instance_id": after}).fetchone()
    for criteria in cases:
        nodes = look(full_store, *queries.find(None, criteria, after=place, limit=50))
        assert read(nodes) < MOST, json.dumps(nodes, indent=1)


def test_the_counts_read_no_instance(full_store: psycopg.Connection) -> None:
    nodes = look(full_store, "tally", {"app": "shop", "workflow": None, "program_hash": None})
    assert {node["Relation Name"] for node in nodes if "Relation Name" in node} == {"tally_rows"}
    assert sum(node["Actual Rows"] for node in nodes if "Relation Name" in node) < 1_000


def test_the_counts_of_messages_read_no_message(full_store: psycopg.Connection) -> None:
    with full_store.transaction(force_rollback=True):
        full_store.execute(
            """insert into holdfast.inbox (app, message_id, type, correlation_key, digest, verdict)
            select 'shop', n::text, 'Paid', n::text, '', case n % 2 when 0 then 'applied' else 'rejected' end
            from generate_series(1, 10000) n"""
        )
        nodes = look(full_store, "message_tally", {"app": "shop", "type": "Paid", "verdict": None})
    assert {node["Relation Name"] for node in nodes if "Relation Name" in node} == {"message_tally_rows"}
    assert sum(node["Actual Rows"] for node in nodes if "Relation Name" in node) < 1_000


def test_every_order_is_looked_at_here() -> None:
    def order(criteria: dict[str, Any]) -> str:
        found: Any = {name: it for name, it in criteria.items() if name not in ("app", "sort", "ascending")}
        return str(queries.find(criteria.get("app"), found, sort=criteria.get("sort", "created"))[1]["by"])

    assert {order(criteria) for criteria in CASES.values()} == {*get_args(Order)}
    assert {name for criteria in CASES.values() for name in criteria} >= {*Criteria.__annotations__}


def test_every_status_of_the_command_line_is_looked_at_here() -> None:
    assert [status for status in Status if CRITERIA[status] not in CASES.values()] == []
