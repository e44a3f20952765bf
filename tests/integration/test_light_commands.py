"""Commands that only read load what they use, and nothing of what acts."""

import asyncio
import subprocess
import sys
from uuid import UUID

import psycopg
import pytest

from tests.support.instances import WAITING, add_host, persist, register

COMMAND = """
import sys
from holdfast.processor.cli import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""

PARTS = ("broker", "core", "engine", "exporting", "language", "services")
ACTING = tuple(f"holdfast.processor.{part}" for part in PARTS)
THEIRS = {"aio_pika", "aiormq", "alembic", "opentelemetry", "prometheus_client", "rich", "sqlalchemy", "structlog"}

CLOCK = {"holdfast.processor.engine", "holdfast.processor.engine.environment"}
"""What a client tells the time by."""

PROGRAM = {
    "holdfast.processor.engine.stored_program",
    "holdfast.processor.language",
    "holdfast.processor.language.linking",
    "holdfast.processor.language.program",
    "holdfast.processor.language.trees",
}
"""What it takes to read a stored program, whose lines a command shows."""


@pytest.fixture(scope="module")
def order(shared_database_url: str) -> UUID:
    """An order that waits for its payment."""

    async def place() -> UUID:
        async with await psycopg.AsyncConnection.connect(shared_database_url) as connection:
            host = await add_host(connection)
            instance_id = await register(connection, host)
            await persist(connection, host, instance_id, WAITING)
            return instance_id

    return asyncio.run(place())


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("instances", CLOCK),
        ("instances --count", CLOCK),
        ("instances --all", CLOCK),
        ("show ORDER", CLOCK | PROGRAM),
        ("history ORDER", CLOCK | PROGRAM),
        ("explain ORDER", CLOCK | PROGRAM),
        ("state ORDER", CLOCK | PROGRAM),
        ("diff ORDER ORDER", CLOCK),
        ("transactions ORDER", CLOCK),
        ("compensation ORDER", CLOCK),
        ("messages", CLOCK),
        ("hosts", CLOCK),
        ("projections", CLOCK),
        ("timers list", CLOCK),
        ("dead-letters list", CLOCK),
        ("nonpersisted", CLOCK),
    ],
)
def test_a_command_that_only_reads_loads_nothing_of_what_acts(
    command: str, needed: set[str], shared_database_url: str, order: UUID
) -> None:
    arguments = [*command.replace("ORDER", str(order)).split(), "--database-url", shared_database_url]
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    unneeded = {it for it in loaded if it.startswith(ACTING) or it.partition(".")[0] in THEIRS} - needed
    assert unneeded == set()
