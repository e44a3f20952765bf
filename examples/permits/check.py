"""Compares the event log with the file that was published, by SQL.

    python -m examples.permits.check receipt.csv

Prints one line a fact and ends with exit code 1 if one does not hold. That every snapshot equals the fold of its events
is what ``holdfast verify`` checks.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from examples.permits.event_log import read

CHECK = Path(__file__).with_name("check.sql").read_bytes()
TABLE = "create temporary table permit_file (line bigint, case_id text, task text, done_at timestamptz)"


@dataclass(frozen=True)
class Fact:
    """A number that the event log gives and the number that the file makes us expect."""

    name: str
    found: int
    expected: int


def facts(database_url: str, path: Path) -> list[Fact]:
    """Return what the event log says about the cases, each beside what the file says."""
    with psycopg.connect(database_url) as connection:
        connection.execute(TABLE)
        with connection.cursor().copy("copy permit_file from stdin") as copy:
            for line, task in enumerate(read(path)):
                copy.write_row((line, task.case, task.task, task.done_at))
        return [Fact(*row) for row in connection.execute(CHECK)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare the event log with the published file.")
    parser.add_argument("path", type=Path, help="the file that was published")
    results = facts(os.environ["HOLDFAST_DATABASE_URL"], parser.parse_args().path)
    for fact in results:
        print(f"{fact.name}: {fact.found}" + ("" if fact.found == fact.expected else f", expected {fact.expected}"))
    sys.exit(any(fact.found != fact.expected for fact in results))
