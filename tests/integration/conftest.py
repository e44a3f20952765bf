"""Stores for tests: a database for those of one file, and two providers on one database."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from compose.local.services import Services
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, Store
from tests.support.stores import BehindPostgres


@pytest.fixture(scope="module")
def shared_database_url(services: Services, migrated_template: str) -> Iterator[str]:
    """A migrated database that the tests of one file share: each rolls back what it did."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    yield services.new_database(name, template=migrated_template)
    services.drop_database(name)


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two providers, as two workers have them."""
    providers = PostgresProvider(database_url, APP), PostgresProvider(database_url, APP)
    behind = BehindPostgres(database_url)
    yield Store(providers[0], behind), Store(providers[1], behind)
    for provider in providers:
        await provider.close()
