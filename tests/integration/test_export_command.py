"""``holdfast export``, as a user runs it: what it writes, what it tells, and what it refuses."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from holdfast.processor.cli import main
from tests.support.commands import HOLDFAST, ROOT, holdfast
from tests.support.exports import QUERY, add_orders, files
from tests.support.instances import PAID, WAITING
from tests.support.projections import commit, life, rows, settle, start
from tests.support.roles import in_role
from tests.support.workers import environment, eventually


@pytest.fixture
def orders(database_url: str) -> list[UUID]:
    return asyncio.run(add_orders(database_url))


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return environment(database_url, "")


def test_the_command_writes_lines_to_stdout_and_tells_the_cursor_beside(
    orders: list[UUID], env: dict[str, str], database_url: str
) -> None:
    done = holdfast("export", "--format", "jsonl", "--app", "shop", env=env)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["app"] for row in found} == {"shop"}
    cursor = rows(database_url, QUERY)[-1][0]
    assert done.stderr == f"{len(found)} events, up to the cursor {cursor}\n"
    rest = holdfast("export", "--format", "jsonl", "--from", cursor, env=env)
    assert (rest.returncode, rest.stdout) == (0, "")


def test_the_command_tells_of_a_file(orders: list[UUID], env: dict[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "log.parquet")
    done = holdfast("export", "--format", "parquet", "--out", out, "--json", "--where", "status=completed", env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("cursor")
    assert told == {"file": out, "format": "parquet", "events": len(WAITING + PAID), "instances": None}
    assert pq.read_table(out).num_rows == len(WAITING + PAID)


def test_the_command_exports_instances(orders: list[UUID], env: dict[str, str]) -> None:
    done = holdfast("export", "--format", "jsonl", "--instances", "--where", "status=suspended", env=env)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["instance_id"], row["suspension_exception_name"]) == (str(orders[2]), "ValueError")


def test_an_observer_may_export(orders: list[UUID], database_url: str, env: dict[str, str], tmp_path: Path) -> None:
    env["HOLDFAST_DATABASE_URL"] = in_role(database_url, "holdfast_observer")
    for arguments in (["jsonl"], ["xes"], ["jsonl", "--instances"], ["jsonl", "--where", "status=completed"]):
        done = holdfast("export", "--format", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_who_reads_only_the_beginning_gets_it_quietly(database_url: str) -> None:
    asyncio.run(commit(database_url, *[life(result="x" * 10_000) for _ in range(200)]))
    asyncio.run(settle(database_url))
    command = f"{HOLDFAST} export --format jsonl | head -1"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(database_url, ""), capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["version"] == 1
    assert done.stderr == ""


REFUSED = [
    (["--format", "parquet"], 2, "Parquet is written to a file: say which with --out"),
    (["--format", "jsonl", "--json"], 2, "--json tells about a file"),
    (["--format", "csv"], 2, "'csv' is not one of"),
    (["--format", "jsonl", "--label", "a:b"], 2, "--label, --case and --all-events are about traces"),
    (["--format", "parquet", "--out", "x", "--all-events"], 2, "--label, --case and --all-events are about traces"),
    (["--format", "jsonl", "--case", "key"], 2, "--label, --case and --all-events are about traces"),
    (["--format", "xes", "--instances"], 2, "XES has traces, and no table of instances"),
    (["--format", "jsonl", "--instances", "--to", "1-2-3"], 2, "leave out --from and --to"),
    (
        ["--format", "jsonl", "--from", "yesterday"],
        2,
        "--from takes a cursor, or a moment in ISO 8601, not 'yesterday'",
    ),
    (["--format", "jsonl", "--to", "999-1-1"], 1, "the log is complete up to 0-0-0 only, not up to 999-1-1"),
    (["--format", "jsonl", "--from", "999-1-1"], 1, "the log is complete up to 0-0-0 only, not up to 999-1-1"),
    (["--format", "jsonl", "--from", "0-0-1", "--to", "0-0-0"], 1, "nothing lies between 0-0-1 and 0-0-0"),
    (["--format", "jsonl", "--from", "2026-02-01", "--to", "2026-01-01"], 1, "the second comes before the first"),
    (["--format", "xes", "--from", "0-0-0", "--where", "status=completed"], 1, "instances come to fit outcome as they"),
    (["--format", "jsonl", "--from", "0-0-0", "--where", "older=2h"], 1, "instances come to fit older_than as they"),
    (["--format", "jsonl", "--where", "colour=red"], 2, "--where 'colour=red' means nothing"),
    (["--format", "xes", "--label", "Traces"], 2, "'Traces' names no label: write module:name"),
    (["--format", "xes", "--label", "no.such:Traces"], 2, "there is no module 'no.such'"),
    (["--format", "xes", "--label", "examples.permits.app:No"], 2, "module examples.permits.app has no 'No'"),
    (["--format", "xes", "--label", "examples.permits.app:TaskDone"], 2, "neither a function nor a class of Variants"),
    (["--format", "jsonl", "--out", "/"], 1, "/ is no file"),
    (["--format", "jsonl", "--out", "/no/such/folder/x"], 1, "/no/such/folder/x cannot be written: No such file"),
]


@pytest.fixture
def empty_log(shared_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", shared_database_url)


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED, ids=[" ".join(it[0]) for it in REFUSED])
def test_what_cannot_be_exported_is_refused_in_one_sentence(
    empty_log: None, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["export", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(("option", "lines"), [("--from", 1), ("--to", 0)])
async def test_what_may_be_a_date_or_a_cursor_is_a_date(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, lines: int
) -> None:
    await commit(database_url, [start("a")])
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", database_url)
    assert await asyncio.to_thread(main, ["export", "--format", "jsonl", option, "2020-01-01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_a_killed_export_leaves_no_file_that_looks_whole(database_url: str, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    with stalled(database_url, "export", "--format", "jsonl", "--out", str(out)) as process:
        process.kill()
        process.wait()
    assert files(tmp_path) == [f"log.jsonl.{process.pid}.part"]


@contextmanager
def stalled(database_url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run an export up to where it has asked for the first events, which it is not given."""
    with psycopg.connect(database_url) as connection:
        connection.execute("lock table holdfast.instance_rows in access exclusive mode")
        process = subprocess.Popen([HOLDFAST, *arguments], env=environment(database_url, ""), cwd=ROOT, text=True)
        eventually("it waits for the table", lambda: waits(connection))
        yield process


def waits(connection: psycopg.Connection) -> bool:
    query = "select 1 from pg_locks where relation = 'holdfast.instance_rows'::regclass and not granted"
    return connection.execute(query).fetchone() is not None


def test_an_interrupted_export_ends(database_url: str, tmp_path: Path) -> None:
    with stalled(database_url, "export", "--format", "jsonl", "--out", str(tmp_path / "log.jsonl")) as process:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode != 0
    assert files(tmp_path) == []
