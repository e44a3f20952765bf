"""The servers for the tests that need some, and a fresh database for each.

A test that asks for none of these fixtures starts nothing. The servers are those of HOLDFAST_DATABASE_URL and
HOLDFAST_AMQP_URL where these are set, else private ones that the first test to ask for them starts.
"""

import asyncio
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import settings

from compose.local.services import Services, running_services
from holdfast.schemas.postgres.migrate import migrate

# The laws of the port speak by `assert`, like tests.
pytest.register_assert_rewrite("holdfast.processor.testing.conformance")

# How long one example takes says more about what else the machine does than about the code.
settings.register_profile("holdfast", deadline=None, print_blob=True)
settings.load_profile("holdfast")


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Postgres and RabbitMQ, shared by all tests."""
    with running_services() as running:
        yield running


@pytest.fixture(scope="session")
def own_services(services: Services) -> Iterator[Services]:
    """Private servers that a test may stop and start; it leaves them running."""
    if services.postgres and services.rabbitmq:
        yield services
    else:
        with running_services({}) as running:
            yield running


@pytest.fixture(scope="session")
def migrated_template(services: Services) -> Iterator[str]:
    """The name of a database with Holdfast's schema and nothing in it, to be copied."""
    name = f"holdfast_template_{secrets.token_hex(4)}"
    asyncio.run(migrate(services.new_database(name)))
    yield name
    services.drop_database(name)


@pytest.fixture
def empty_database_url(services: Services) -> Iterator[str]:
    """A database of the test's own without Holdfast's schema."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    yield services.new_database(name)
    services.drop_database(name)


@pytest.fixture
def database_url(services: Services, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    yield services.new_database(name, template=migrated_template)
    services.drop_database(name)


@pytest.fixture
def amqp_url(services: Services) -> str:
    """The broker, which all tests share; what a test declares there is told apart by its `app_name`."""
    return services.amqp_url


@pytest.fixture
def app_name() -> str:
    """A name that no other test gives to its app."""
    return f"test-{secrets.token_hex(4)}"
