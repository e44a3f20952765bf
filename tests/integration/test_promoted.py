"""Instances by their values for queries, among very many."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from compose.local.services import Services
from holdfast import Client

FILL = """
insert into holdfast.instance_rows (
    instance_id, app, workflow, program_hash, correlation_key, start_message_id, execution_status, is_initialized,
    version
)
select md5('i' || n)::uuid, 'shop', 'order', 'h', 'k' || n, 's' || n, 'idle', true, 5
from generate_series(1, 100000) n;

insert into holdfast.instance_states (instance_id, state, promoted)
select
    md5('i' || n)::uuid, '{}',
    jsonb_build_object('number', n, 'name', 'n' || n, 'stage', case n % 2 when 0 then 'even' else 'odd' end,
        'tags', jsonb_build_array('t' || n, 'all'))
from generate_series(1, 100000) n;
"""


@pytest.fixture(scope="module")
def filled_url(services: Services, migrated_template: str) -> Iterator[str]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    url = services.new_database(name, template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute("analyze")
    yield url
    services.drop_database(name)


@pytest.fixture
async def client(filled_url: str) -> AsyncIterator[Client]:
    async with Client(filled_url, app="shop") as client:
        yield client


@pytest.mark.parametrize(
    ("promoted", "expected"),
    [
        ({"number": 17}, ["k17"]),
        ({"number": "17"}, []),
        ({"name": "n99999"}, ["k99999"]),
        ({"number": 18, "stage": "even"}, ["k18"]),
        ({"number": 18, "stage": "odd"}, []),
        ({"tags": ["t7"]}, ["k7"]),
        ({"missing": None}, []),
    ],
)
async def test_instances_are_found_by_promoted_values_and_their_types(
    client: Client, promoted: dict[str, Any], expected: list[str]
) -> None:
    assert [row.correlation_key for row in await client.instances(promoted=promoted)] == expected


async def test_a_common_value_is_paged_like_any_other_criterion(client: Client) -> None:
    first = await client.instances(promoted={"stage": "even"}, limit=3)
    second = await client.instances(promoted={"stage": "even"}, limit=3, after=first[-1].instance_id)
    assert len({row.instance_id for row in [*first, *second]}) == 6
