"""The servers for the tests that need some, and a fresh database for each.

A test that asks for none of these fixtures starts nothing. The servers are those of HOLDFAST_DATABASE_URL and
HOLDFAST_AMQP_URL where these are set; else containers where an engine answers; else private ones. The first test to
ask for them starts them.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from compose.local import place
from compose.local.postgres import NEWEST
from compose.local.services import Containers, Services, running_services
from holdfast.schemas.postgres.migrate import migrate
from tests.support import length

# The laws of the port speak by `assert`, like tests.
pytest.register_assert_rewrite("holdfast.processor.testing.conformance")

# How long one example takes says more about what else the machine does than about the code.
settings.register_profile("holdfast", deadline=None, print_blob=True)
settings.load_profile("holdfast")

# Rich tracebacks show what every name holds at every level, and take seconds each.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback


SERVERS = pytest.StashKey[str]()
SERVERS_OUTPUT = "holdfast_servers"
"""Under what a process that runs some of the tests tells the one that reports."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("servers")
    for flag, value, meaning in (
        ("--containers", "always", "run Postgres and RabbitMQ in containers, or fail"),
        ("--no-containers", "never", "run them as private servers, also where an engine answers"),
    ):
        group.addoption(flag, dest="containers", action="store_const", const=value, default="if possible", help=meaning)
    parser.getgroup("general").addoption("--long", action="store_true", help="let the long tests do all that they can")
    group.addoption("--postgres", type=int, default=NEWEST, help="major version of the private Postgres: 15, 16 or 18")


def pytest_configure(config: pytest.Config) -> None:
    length.is_long = config.getoption("--long")
    # What servers lose with the machine is lost with the test run anyway.
    place.below = place.memory()
    # A shell's background job ignores Ctrl-C, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what brings containers up by itself, unless containers are what is asked for."""
    return True if collection_path.name == "deployment" and config.getoption("containers") != "always" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    servers = config.stash.get(SERVERS, None)
    if servers:
        terminalreporter.write_line(f"servers: {servers}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a process that ran some of the tests which servers it had."""
    if SERVERS_OUTPUT in getattr(node, "workeroutput", {}):
        node.config.stash[SERVERS] = node.workeroutput[SERVERS_OUTPUT]


def pytest_sessionfinish(session: pytest.Session) -> None:
    servers = session.config.stash.get(SERVERS, None)
    if servers and hasattr(session.config, "workeroutput"):
        session.config.workeroutput[SERVERS_OUTPUT] = servers


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Let what a command configures, which a test has run, end with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Iterator[Services]:
    """Postgres and RabbitMQ, shared by all tests."""
    with _running(pytestconfig, os.environ) as running:
        pytestconfig.stash[SERVERS] = f"{running.origin}, {running.versions()}"
        yield running


@pytest.fixture(scope="session")
def own_services(services: Services, pytestconfig: pytest.Config) -> Iterator[Services]:
    """Servers that a test may stop and start; it leaves them running."""
    if services.postgres and services.rabbitmq:
        yield services
    else:
        with _running(pytestconfig, {}) as running:
            yield running


def _running(config: pytest.Config, given: Mapping[str, str]) -> AbstractContextManager[Services]:
    # One version of several is only to be had privately.
    version = config.getoption("--postgres")
    wanted: Containers = config.getoption("containers")
    if wanted == "always" and version != NEWEST:
        raise pytest.UsageError("--postgres chooses a private server, and --containers wants none: leave one out")
    addresses = [name for name in ("HOLDFAST_DATABASE_URL", "HOLDFAST_AMQP_URL") if given.get(name)]
    if wanted == "always" and addresses:
        raise pytest.UsageError(f"--containers wants servers of its own: unset {' and '.join(addresses)}")
    use_containers: Containers = wanted if version == NEWEST else "never"
    return running_services(given, use_containers=use_containers, postgres_version=version)


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
