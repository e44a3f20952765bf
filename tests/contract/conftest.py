"""The stores that the contract of the persistence provider is shown on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from holdfast.processor.store.memory import MemoryProvider
from holdfast.processor.store.postgres import PostgresProvider
from holdfast.processor.testing.conformance.harness import APP, Store
from tests.support.stores import BehindMemory, BehindPostgres


@pytest.fixture(params=["memory", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """Where the store is; nothing for the one in memory."""
    return request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest.fixture
async def store(store_url: str | None) -> AsyncIterator[Store]:
    if store_url is None:
        memory = MemoryProvider(APP, lambda: datetime.now(UTC), sql=lambda _query, _parameters: None)
        yield Store(memory, BehindMemory(memory))
    else:
        postgres = PostgresProvider(store_url, APP)
        yield Store(postgres, BehindPostgres(store_url))
        await postgres.close()
