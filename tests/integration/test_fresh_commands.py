"""Commands that act find all that they import in a process that has imported nothing else."""

import subprocess

import pytest

from tests.support.commands import HOLDFAST, ROOT
from tests.support.workers import environment

ABSENT = "0199c1a2-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"suspend {ABSENT}", 1),
        (f"resolve {ABSENT} --retry", 1),
        (f"fork {ABSENT} --at 1", 1),
        (f"nonpersisted remove {ABSENT}", 1),
        ("dead-letters requeue nothing", 1),
        ("preflight examples.orders.app:app", 0),
        ("migrate-instances examples.orders.app:app", 0),
        ("retention apply --inbox 30d --dry-run", 0),
        ("replay --app examples.permits.app:app --into nothing --dry-run", 1),
        ("replays remove nothing", 1),
        ("export --format jsonl --out -", 0),
        ("verify", 0),
        ("migrate", 0),
    ],
)
def test_it_comes_to_its_own_end(command: str, code: int, shared_database_url: str, amqp_url: str) -> None:
    env = environment(shared_database_url, amqp_url)
    done = subprocess.run([HOLDFAST, *command.split()], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "unexpected" not in done.stderr
