"""Where the house stands, and its source files."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("schemas", "events", "projections", "processor")
BESIDE = ("benchmarks", "compose", "examples", "requirements", "tests")


def python_files(*folders: str) -> Iterator[Path]:
    """Give every Python file below some folders of the root."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))
