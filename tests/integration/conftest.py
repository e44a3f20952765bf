"""A database for the tests of one file."""

import secrets
from collections.abc import Iterator

import pytest

from compose.local.services import Services


@pytest.fixture(scope="module")
def shared_database_url(services: Services, migrated_template: str) -> Iterator[str]:
    """A migrated database that the tests of one file share: each rolls back what it did."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    yield services.new_database(name, template=migrated_template)
    services.drop_database(name)
